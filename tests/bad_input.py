"""Input that cannot be right, each with words that the message about it must have: what, where, and what to do.

The table in docs/reliability.md is made of these cases by `scripts/reliability_records.py`.
"""

import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from tflens import fits_io
from tflens.catalogue import read_catalogue
from tflens.config import Input, RunConfig
from tflens.errors import ObservationError, ParameterError, SavedModelError, StorageError, TflensError
from tflens.observation import Observation
from tflens.output import prepare_folder
from tflens.runs import read_runs

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """Something that must be refused.

    Args:
        group: heading in the documentation.
        name: what is given, in words.
        called: what is called with it, in words.
        give: makes the input in an empty folder and calls; a command line gives its arguments instead.
        words: the message has all of them.
        error: class of the error; a command line's exit code instead.
    """

    group: str
    name: str
    called: str
    give: Callable[[Path], object]
    words: tuple[str, ...]
    error: type[TflensError] | int


def message_of(case: Case) -> str:
    """What the package says to a case, without the path of the folder it is in.

    Raises:
        AssertionError: it is accepted, refused in another way, or the message lacks a word.
    """
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(place).resolve()
        message = _printed(case, folder) if isinstance(case.error, int) else _raised(case, folder)
        for known in (folder, ROOT):  # the checkout is where shipped models are
            message = message.replace(f"{known}/", "").replace(str(known), ".")
    for word in case.words:
        assert word in message, f"{case.name}: {word!r} is not in: {message}"
    return message


def _raised(case: Case, folder: Path) -> str:
    try:
        case.give(folder)
    except TflensError as error:
        refused = error
    else:
        raise AssertionError(f"{case.name}: accepted")
    assert type(refused) is case.error, f"{case.name}: {type(refused).__name__}, not {case.error.__name__}: {refused}"
    return str(refused)


def _printed(case: Case, folder: Path) -> str:
    from tflens.cli import app

    # Wide, and without colours and boxes, which would break the words.
    plain = {"COLUMNS": "1000", "TERM": "dumb", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [str(word) for word in case.give(folder)], env=plain)
    assert result.exit_code == case.error, f"{case.name}: exit code {result.exit_code}: {result.output}"
    assert result.exception is None or isinstance(result.exception, SystemExit), f"{case.name}: {result.exception!r}"
    assert result.stdout == "", f"{case.name}: {result.stdout}"
    assert "Traceback" not in result.stderr
    message = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
    return message.removeprefix("error: ")


CASES: list[Case] = []


def _case(group: str, called: str, error: type[TflensError] | int) -> Callable[..., None]:
    def add(name: str, give: Callable[[Path], object], *words: str) -> None:
        CASES.append(Case(group, name, called, give, words, error))

    return add


# FITS files


def image(shape: tuple[int, int] = (20, 24)) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


GOOD = {"SCI": image(), "ERR": np.ones((20, 24)), "PSF": np.outer([1, 2, 1], [1, 2, 1]) / 16}


def lens(folder: Path, header: dict | None = None, change: Callable | None = None, **parts: np.ndarray | None) -> Path:
    """`lens.fits` of good parts but for those given; None leaves one out."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    for name, data in ({**GOOD, **parts}).items():
        if data is not None:
            hdus.append(fits.ImageHDU(np.asarray(data), name=name))
    hdus[1].header.update({"PIXSCALE": 0.05} if header is None else header)
    if change:
        change(hdus)
    path = folder / "lens.fits"
    hdus.writeto(path, output_verify="ignore")
    return path


def read(**settings) -> Callable[[Path], Observation]:
    """Reads a good file but for the parts, header or change given."""
    return lambda folder: Observation.from_fits(lens(folder, **settings))


def units(image: str, noise: str) -> Callable[[fits.HDUList], None]:
    """Gives image and noise the unit of their pixels."""

    def change(hdus: fits.HDUList) -> None:
        for name, unit in (("SCI", image), ("ERR", noise)):
            hdus[name].header["BUNIT"] = unit

    return change


def bytes_of(change: Callable[[bytes], bytes], suffix: str = "") -> Callable[[Path], Observation]:
    """Reads a good file whose bytes are changed."""

    def give(folder: Path) -> Observation:
        path = lens(folder)
        damaged = folder / f"lens.fits{suffix}"
        damaged.write_bytes(change(path.read_bytes()))
        return Observation.from_fits(damaged)

    return give


def at(values: np.ndarray, place: tuple[int, int], value: float) -> np.ndarray:
    changed = np.array(values, float)
    changed[place] = value
    return changed


def with_card(card: str, instead_of: str) -> Callable[[bytes], bytes]:
    """The first card of a keyword in an extension replaced by another, 80 letters of whatever one likes."""

    def change(content: bytes) -> bytes:
        start = content.index(f"{instead_of:8}=".encode(), 2880)
        return content[:start] + card.encode("latin1").ljust(80)[:80] + content[start + 80 :]

    return change


def gzipped(content: bytes) -> bytes:
    import gzip

    return gzip.compress(content)


def sky(**changes: float) -> dict:
    """World coordinates of pixels of 0.05 arcsec, with changes to `cdelt`."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), (150.0, 2.0)
    wcs.wcs.cdelt = (changes.get("x", -0.05 / 3600), changes.get("y", 0.05 / 3600))
    return dict(wcs.to_header())


def _bomb(folder: Path) -> Observation:
    with patch.object(fits_io, "MOST_BYTES", 10_000):
        return bytes_of(gzipped, ".gz")(folder)


bad = _case("FITS file", "Observation.from_fits", ObservationError)
bad(
    "no such file",
    lambda folder: Observation.from_fits(folder / "no.fits"),
    "no.fits: the FITS file does not exist. Check the path",
)
bad("a folder", Observation.from_fits, "is a directory, not a file. Check the path")
bad(
    "a name of 5,000 letters",
    lambda folder: Observation.from_fits(folder / ("n" * 5000)),
    "does not exist. Check the path",
)
bad(
    "an empty file",
    bytes_of(lambda content: b""),
    "lens.fits: the file cannot be read as FITS",
    "fetch or write it again",
)
bad(
    "a text file",
    bytes_of(lambda content: b"# a table\n1 2 3\n"),
    "lens.fits: the file cannot be read as FITS",
    "another format",
)
bad(
    "a PNG picture",
    bytes_of(lambda content: b"\x89PNG\r\n\x1a\n" + content),
    "lens.fits: the file cannot be read as FITS",
)
bad(
    "cut off within an image",
    bytes_of(lambda content: content[: 2880 * 3]),
    "lens.fits: the file must be as long as its headers say",
    "truncated",
    "Fetch or write it again",
)
bad("cut off within a header", bytes_of(lambda content: content[:4000]), "lens.fits", "truncated", "again")
bad(
    "gzipped and cut off",
    bytes_of(lambda content: gzipped(content)[:-500], ".gz"),
    "lens.fits.gz: the file cannot be read as FITS",
    "fetch or write it again",
)
bad(
    "gzipped, of more bytes than the limit",
    _bomb,
    "lens.fits.gz: the file cannot be read as FITS",
    "unzipped, it has more than",
)
bad(
    "a header with an axis of negative length",
    bytes_of(with_card("NAXIS2  =                  -64", "NAXIS2")),
    "lens.fits",
    "NAXIS2 = -64",
    "must be 0 or more",
)
bad(
    "a header with two billion axes",
    bytes_of(with_card("NAXIS   =           2147483648", "NAXIS")),
    "lens.fits",
    "NAXIS = 2147483648",
    "must be 999 at most",
)
bad(
    "an axis longer than the file",
    bytes_of(with_card("NAXIS1  =           1000000000", "NAXIS1")),
    "lens.fits",
    "truncated",
    "again",
)
bad(
    "no extension ERR",
    read(ERR=None),
    "lens.fits: the extension ERR for the noise is missing",
    "1 SCI (20 x 24)",
    "Give its right name or number",
)
bad("no extension PSF", read(PSF=None), "the extension PSF for the PSF is missing", "Give its right name or number")
bad(
    "the number of an extension that is not there",
    lambda folder: Observation.from_fits(lens(folder), image=9),
    "the extension 9 for the image is missing",
    "Give its right name or number",
)
bad(
    "two extensions SCI",
    read(change=lambda hdus: hdus.append(fits.ImageHDU(image(), name="SCI"))),
    "lens.fits: one extension must be meant",
    "2 extensions named SCI",
    "Choose one by its number",
)
bad(
    "a table instead of an image",
    read(
        ERR=None,
        change=lambda hdus: hdus.append(
            fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])], name="ERR")
        ),
    ),
    "lens.fits[ERR]: the extension must be an image, but it is a table",
)
bad(
    "an extension without data",
    read(ERR=None, change=lambda hdus: hdus.append(fits.ImageHDU(name="ERR"))),
    "lens.fits[ERR]: the extension must hold an image, but it has no data",
)
bad(
    "a cube",
    read(SCI=image()[None]),
    "lens.fits[SCI]: the image must be two-dimensional",
    "(1, 20, 24)",
    "Give one plane of a cube",
)
bad(
    "no pixel scale",
    read(header={}),
    "lens.fits[SCI]: the pixel scale is missing",
    "PIXSCALE",
    "Add one, or give pixel_scale",
)
bad(
    "PIXSCALE in words",
    read(header={"PIXSCALE": "fine"}),
    "lens.fits[SCI]: keyword PIXSCALE must be a number",
    "'fine'",
    "Correct the header or give pixel_scale",
)
bad(
    "PIXSCALE that cannot be read",
    bytes_of(with_card("PIXSCALE=  0.0.5 arcsec", "PIXSCALE")),
    "lens.fits[SCI]: the pixel scale is missing",
    "give pixel_scale",
)
bad(
    "PIXSCALE = 0",
    read(header={"PIXSCALE": 0.0}),
    "lens.fits[SCI], keyword PIXSCALE: the pixel scale must be a positive number",
    "Give the right pixel_scale",
)
bad("PIXSCALE = -0.05", read(header={"PIXSCALE": -0.05}), "the pixel scale must be a positive number", "-0.05")
bad(
    "world coordinates of pixels that are not square",
    read(header=sky(y=0.06 / 3600)),
    "lens.fits[SCI]: the pixels must be square",
    "0.05 (x) by 0.06 (y) arcsec",
    "Resample the image",
)
bad(
    "noise in another unit: a variance",
    read(change=units("electron/s", "electron2/s2")),
    "lens.fits[ERR]: the noise must be 1 sigma in the unit of the image",
    "Convert it (a variance by its root)",
)
bad(
    "noise in another unit: counts beside counts/s",
    read(change=units("ELECTRONS/S", "ELECTRONS")),
    "lens.fits[ERR]: the noise must be 1 sigma in the unit of the image",
    "Convert it",
)
bad(
    "a negative exposure time",
    read(header={"PIXSCALE": 0.05, "EXPTIME": -100.0}),
    "lens.fits[SCI]: keyword EXPTIME must not be negative",
    "-100",
    "Correct the header",
)
bad(
    "noise of another shape",
    read(ERR=np.ones((24, 20))),
    "lens.fits[ERR]: the noise map must have the shape of the image",
    "24 x 20",
    "20 x 24",
    "Cut both to the same frame",
)
bad(
    "a mask of another shape",
    read(MASK=np.zeros((20, 20), np.uint8)),
    "lens.fits[MASK]: the mask must have the shape of the image",
    "Cut both to the same frame",
)
bad(
    "NaN in the image",
    read(SCI=at(image(), (3, 5), np.nan)),
    "lens.fits[SCI]: the image must be finite in every used pixel",
    "pixel [3, 5]",
    "Mask such pixels",
)
bad(
    "infinity in the image",
    read(SCI=at(image(), (3, 5), np.inf)),
    "lens.fits[SCI]: the image must be finite",
    "has inf",
    "Mask such pixels",
)
bad(
    "NaN in the noise",
    read(ERR=at(GOOD["ERR"], (0, 1), np.nan)),
    "lens.fits[ERR]: the noise must be finite",
    "pixel [0, 1]",
    "Mask such pixels",
)
bad(
    "noise 0 everywhere",
    read(ERR=np.zeros((20, 24))),
    "lens.fits[ERR]: the noise must be positive",
    "the first of 480",
    "Mask such pixels",
)
bad(
    "noise 0 in a pixel",
    read(ERR=at(GOOD["ERR"], (7, 8), 0.0)),
    "lens.fits[ERR]: the noise must be positive",
    "pixel [7, 8]",
    "has 0",
)
bad(
    "negative noise", read(ERR=-GOOD["ERR"]), "lens.fits[ERR]: the noise must be positive", "has -1", "Mask such pixels"
)
bad(
    "noise whose square leaves float32",
    read(ERR=1e-20 * GOOD["ERR"]),
    "lens.fits[ERR]: the noise must be above 1e-18",
    "multiply image and noise by a constant",
)
bad(
    "an image whose square leaves float32",
    read(SCI=at(image(), (1, 1), 1e30)),
    "lens.fits[SCI]: the image must be within",
    "multiply image and noise by a constant",
)
bad(
    "a blank image",
    read(SCI=np.full((20, 24), 3.0)),
    "lens.fits[SCI]: the image must not be blank",
    "hold 3",
    "Check that the right extension is read",
)
bad(
    "an image of one pixel",
    read(SCI=np.ones((1, 1)), ERR=np.ones((1, 1)), PSF=np.ones((1, 1))),
    "lens.fits[SCI]: the image must have more than one used pixel",
    "1 x 1",
    "Give an image of the whole lens",
)
bad(
    "a mask that leaves one pixel",
    read(MASK=at(np.ones((20, 24)), (2, 2), 0)),
    "lens.fits[SCI]: the image must have more than one used pixel",
    "20 x 24",
    "mask",
)
bad(
    "a mask that leaves none",
    read(MASK=np.ones((20, 24), np.uint8)),
    "lens.fits[MASK]: the mask must leave some pixel to use",
    "discards all 480",
    "is the mask inverted?",
)
bad(
    "NaN in the mask",
    read(MASK=at(np.zeros((20, 24)), (2, 2), np.nan)),
    "lens.fits[MASK]: the mask must be 0 (used) or another number (bad)",
    "Write the mask as integers",
)
bad(
    "a PSF of even size",
    read(PSF=np.ones((4, 5)) / 20),
    "lens.fits[PSF]: the PSF must have an odd number of pixels",
    "4 x 5",
    "Resample it about its peak",
)
bad(
    "a PSF larger than the image",
    read(PSF=np.ones((21, 3))),
    "lens.fits[PSF]: the PSF must not be larger than the image",
    "21 x 3",
    "Cut the PSF symmetrically",
)
bad(
    "a negative PSF",
    read(PSF=-GOOD["PSF"]),
    "lens.fits[PSF]: the sum of the PSF must be positive",
    "-1",
    "Check that the right extension is read",
)
bad("a PSF of zeros", read(PSF=np.zeros((3, 3))), "lens.fits[PSF]: the sum of the PSF must be positive", "it is 0")
bad(
    "NaN in the PSF",
    read(PSF=at(GOOD["PSF"], (0, 2), np.nan)),
    "lens.fits[PSF]: the PSF must be finite in every pixel",
    "pixel [0, 2]",
    "Repair it",
)
bad(
    "a noise correlation that is 2 in the middle",
    read(CORR=np.array([[0.2, 2.0, 0.2]])),
    "lens.fits[CORR]: the noise correlation must be 1 in the middle",
    "it is 2",
    "Divide a covariance by its middle",
)
bad(
    "a noise correlation that no noise has",
    read(CORR=np.array([[0.9, 1.0, 0.9]])),
    "lens.fits[CORR]: the noise correlation must have a power spectrum of at least",
    "it falls to",
)

# Observations made in Python


def observation(**changes) -> Callable[[Path], Observation]:
    given = {"image": image(), "noise": np.ones((20, 24)), "psf": np.ones((3, 3)) / 9, "pixel_scale": 0.05} | changes
    return lambda folder: Observation(**given)


bad = _case("Observation", "Observation", ObservationError)
bad(
    "strings for numbers",
    observation(image=image().astype(str)),
    "Observation.image: the image must hold real numbers",
    "<U",
    "Convert it to floats",
)
bad(
    "complex numbers",
    observation(noise=np.ones((20, 24), complex)),
    "Observation.noise: the noise map must hold real numbers",
    "complex128",
    "Convert it to floats",
)
bad(
    "rows of several lengths",
    observation(image=[[1.0, 2.0], [3.0]]),
    "Observation.image: the image must be an array of numbers",
    "rows of one length",
)
bad(
    "a masked array",
    observation(image=np.ma.masked_invalid(image())),
    "Observation.image: the image must be a plain array",
    "inverted mask",
)
bad(
    "a mask of numbers",
    observation(mask=np.ones((20, 24), int)),
    "Observation.mask: the mask must be boolean with True = used",
    "int64",
    "plane == 0",
)
bad(
    "a pixel scale in words",
    observation(pixel_scale="0.05 arcsec"),
    "Observation.pixel_scale: the pixel scale must be a positive number",
    "Give the right pixel_scale",
)
bad(
    "noise multiplied by 0",
    lambda folder: observation()(folder).with_noise(scale=0.0),
    "with_noise(scale): the noise map must be multiplied by a positive number",
    "Give the right scale",
)

bad = _case("Observation", "Observation.to_fits", ObservationError)
bad(
    "a file that is there",
    lambda folder: (read()(folder)).to_fits(folder / "lens.fits"),
    "lens.fits: the file exists and is not overwritten",
    "overwrite=True",
)
bad(
    "a folder that is not there",
    lambda folder: observation()(folder).to_fits(folder / "no/lens.fits"),
    "no/lens.fits: the file cannot be written (No such file or directory). Check that the directory exists",
)
bad(
    "metadata that no header can hold",
    lambda folder: observation(metadata={"NOTE": [1, 2]})(folder).to_fits(folder / "x.fits"),
    "x.fits: the metadata must fit into a FITS header",
    "NOTE",
    "Remove or change these entries",
)


# Models


def toml(text: str | None) -> Callable[[Path], object]:
    """Reads a file of this text; None writes none."""

    def give(folder: Path) -> object:
        from tflens.model_file import read_model

        if text is not None:
            (folder / "model.toml").write_text(text)
        return read_model(folder / "model.toml")

    return give


def priors(text: str) -> Callable[[Path], object]:
    return toml(f'source = {{ profile = "Sersic" }}\n[priors]\n{text}\n')


def _latin(folder: Path) -> object:
    from tflens.model_file import read_model

    (folder / "model.toml").write_bytes("# G\xfcte\nsky = true\n".encode("latin1"))
    return read_model(folder / "model.toml")


def _fit_with(priors: dict) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.inference.pipeline import Fitter
        from tflens.light import Sersic
        from tflens.model import LensModel

        return Fitter(LensModel(source=Sersic(), priors=priors)).fit(observation()(folder))

    return give


bad = _case("Model", "read_model", ParameterError)
bad("no such file", toml(None), "model.toml: the file of the model does not exist. Check the path")
bad(
    "a file that is no TOML",
    toml("lens = ["),
    "model.toml: the file of the model must be readable TOML, but",
    "at end of document",
)
bad("a file that is not UTF-8", _latin, "model.toml: the file of the model must be readable TOML", "utf-8")
bad(
    "brackets nested 3,000 deep",
    toml("lens = " + "[" * 3000),
    "model.toml: the file of the model must be readable TOML",
    "nested too deeply",
)
bad("a misspelt key", toml("lense = []"), "model.toml: unknown key 'lense'; a model has lens, lens_light, source")
bad(
    "an unknown profile",
    toml('lens = [{ profile = "SIEE" }]'),
    "model.toml: lens[0]: there is no profile 'SIEE'; there are",
    "SIE",
)
bad(
    "a base class of profiles",
    toml('lens = [{ profile = "CircularMass" }]'),
    "model.toml: lens[0]: there is no profile 'CircularMass'; there are",
)
bad(
    "a light profile as mass",
    toml('lens = [{ profile = "Shapelets" }]'),
    "model.toml: lens[0]: there is no profile 'Shapelets'",
)
bad(
    "a profile without its name",
    toml('lens = [{ name = "SIE" }]'),
    "model.toml: lens[0] must be a table with a profile, such as",
)
bad(
    "an unknown setting",
    toml('lens = [{ profile = "SIE", slope = 2 }]'),
    "model.toml: lens[0]: SIE has no setting 'slope'; it has max_ellipticity",
)
bad(
    "a setting that is missing",
    toml('lens_light = [{ profile = "MultiGaussian" }]'),
    "model.toml: lens_light[0]: MultiGaussian needs sigmas",
)
bad(
    "a setting out of range",
    toml('lens = [{ profile = "SIE", max_ellipticity = 3 }]'),
    "model.toml: lens[0]: SIE cannot be made",
    "max_ellipticity",
    "3",
)
bad(
    "a setting in words",
    toml('lens = [{ profile = "EPL", tolerance = "small" }]'),
    "model.toml: lens[0]: EPL cannot be made",
    "small",
)
bad(
    "one profile where a list is wanted", toml('lens = "EPL"'), "model.toml: lens must be a list of profiles, got 'EPL'"
)
bad("sky = 1", toml("sky = 1"), "model.toml: sky must be true or false, got 1")
bad("an unknown dtype", toml('dtype = "float16"'), 'model.toml: dtype must be "float32" or "float64", got \'float16\'')
bad(
    "an unknown prior",
    priors('"lens.gamma" = { gauss = [2.0, 0.1] }'),
    "model.toml: priors: lens.gamma must be one of normal",
    "a number or a name",
)
bad(
    "a prior without its arguments",
    priors('"lens.gamma" = { normal = [2.0] }'),
    "model.toml: priors: lens.gamma: normal takes loc, scale",
)
bad(
    "a prior of negative width",
    priors('"lens.gamma" = { normal = [2.0, -0.1] }'),
    "model.toml: priors: lens.gamma",
    "scale positive",
)
bad(
    "a prior with words for numbers",
    priors('"lens.gamma" = { normal = ["two", 0.1] }'),
    "model.toml: priors: lens.gamma",
    "normal takes loc, scale",
)
bad(
    "a prior of a parameter that is not there", priors('"lens.slope" = 2.0'), "model.toml: ", "lens.slope", "lens.gamma"
)
bad(
    "a parameter fixed at NaN",
    priors('"lens.gamma" = nan'),
    "model.toml: lens.gamma must be fixed at 1 finite number(s), got nan",
)
bad(
    "two parameters fixed at words",
    priors('"lens.e1,e2" = ["a", "b"]'),
    "model.toml: lens.e1,e2 must be fixed at 2 finite number(s)",
)
bad("a tie to nothing", priors('"lens.gamma" = "halo.gamma"'), "model.toml: ", "halo.gamma")
bad("priors that are no table", toml("priors = 3"), "model.toml: priors must be a table of parameters, got 3")

bad = _case("Model", "fit", ParameterError)
bad(
    "a prior that excludes the data: an Einstein radius larger than the image",
    _fit_with({"lens.theta_E": 50.0}),
    "the prior of lens.theta_E must reach into the image",
    "it is 50",
    "Give another prior, or check the pixel scale",
)
bad(
    "a prior that excludes the data: a centre beside the image",
    _fit_with({"light1.center_x": 9.0}),
    "the prior of light1.center_x must reach into the image, which goes from -0.6 to 0.6 arcsec",
    "Give another prior",
)

# Configurations


def config(
    change: Callable[[dict], object] = lambda content: None, text: str | None = None
) -> Callable[[Path], RunConfig]:
    """Loads the configuration of a run after a change to its content."""

    def give(folder: Path) -> RunConfig:
        content = RunConfig(Input(str(folder / "lens.fits")), "sersic", {"seed": 1}).as_dict()
        change(content)
        (folder / "config.json").write_text(json.dumps(content) if text is None else text)
        return RunConfig.load(folder / "config.json")

    return give


def _moved(folder: Path) -> object:
    path = lens(folder)
    given = Input(str(path)).with_digests()
    path.unlink()
    lens(folder, SCI=image() + 1)
    return given.read()


def _fitter(settings: dict) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.run import make_fitter

        return make_fitter(observation()(folder), RunConfig(Input("x"), "sersic", settings))

    return give


bad = _case("Configuration", "RunConfig.load", ParameterError)
bad(
    "no such file",
    lambda folder: RunConfig.load(folder / "config.json"),
    "config.json: the configuration does not exist. Give DIR/config.json of a run",
)
bad(
    "half a file",
    config(text='{"format": "tflens.fit", "inp'),
    "config.json: the configuration must be readable JSON, but",
)
bad(
    "brackets nested 100,000 deep",
    config(text="[" * 100_000),
    "config.json: the configuration must be readable JSON",
    "nested too deeply",
)
bad(
    "JSON of something else",
    config(text="[1, 2]"),
    'config.json: a configuration must have "format": "tflens.fit"',
    "Give DIR/config.json of a run",
)
bad(
    "another version of the format",
    config(lambda content: content.update(format_version=99)),
    'config.json: a configuration must have "format": "tflens.fit" and "format_version": 1',
)
bad(
    "a misspelt key",
    config(lambda content: content.update(setings=content.pop("settings"))),
    "config.json: the configuration does not describe a fit",
    "the key settings is missing",
)
bad(
    "a key too many",
    config(lambda content: content.update(tabels={})),
    "config.json",
    "unknown key 'tabels'; a configuration has input, source, settings",
)
bad(
    "a misspelt key of the input",
    config(lambda content: content["input"].update(nois="ERR")),
    "config.json",
    "input: unknown key 'nois'; it has file, image, noise",
)
bad(
    "an input without a file",
    config(lambda content: content["input"].pop("file")),
    "config.json",
    "the key input.file is missing",
)
bad(
    "a number for a path",
    config(lambda content: content["input"].update(psf_file=3.5)),
    "config.json",
    "Input.psf_file must be the path of a file or left out, got 3.5",
)
bad(
    "words for a number",
    config(lambda content: content["input"].update(pixel_scale="0.05")),
    "config.json",
    "Input.pixel_scale must be a number, arcsec per pixel or left out, got '0.05'",
)
bad(
    "a list for the settings",
    config(lambda content: content.update(settings=["seed"])),
    "config.json",
    "settings must be a table of names and values, got ['seed']",
)
bad(
    "an unknown source",
    config(lambda content: content.update(source="pixels")),
    "config.json",
    "source must be one of neural, sersic, got 'pixels'",
)
bad(
    "a noise scale in words",
    config(lambda content: content["input"].update(noise_scale="twice")),
    "config.json",
    "Input.noise_scale must be \"auto\" or a positive number, got 'twice'",
)
bad(
    "a noise correlation of uneven rows",
    config(lambda content: content["input"].update(noise_correlation=[[1], [1, 2]])),
    "config.json",
    "Input.noise_correlation must be",
    "rows of numbers of one length",
)

bad = _case("Configuration", "make_fitter", ParameterError)
bad("a misspelt setting", _fitter({"chain": 4}), "settings: ", "chain", "it has seed, starts")
bad("a setting out of range", _fitter({"chains": 1}), "FitSettings.chains must be an integer >= 2, got 1")
bad("a setting in words", _fitter({"draws": "300"}), "FitSettings.draws must be an integer >= 20, got '300'")
bad("an unknown sampler", _fitter({"sampler": "gibbs"}), "FitSettings.sampler must be one of hmc", "got 'gibbs'")

bad = _case("Configuration", "Input.read", ObservationError)
bad(
    "a FITS file that is not the one of the run",
    _moved,
    "lens.fits: the input must be the file that the configuration was written for",
    "its SHA-256 differs",
    "Give the original file",
)

# Catalogues


def table(text: str, name: str = "lenses.csv") -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        (folder / name).write_text(text)
        return read_catalogue(folder / name)

    return give


def _no_fits(folder: Path) -> object:
    (folder / "lenses").mkdir()
    return read_catalogue(folder / "lenses")


EVIL_YAML = "!!python/object/apply:os.system ['touch harm']"

bad = _case("Catalogue", "read_catalogue", ParameterError)
bad(
    "no such file",
    lambda folder: read_catalogue(folder / "no.csv"),
    "no.csv: the catalogue does not exist. Give a table or a folder of FITS files",
)
bad(
    "no column `file`",
    table("name,path\na,a.fits\n"),
    'lenses.csv: the catalogue must have a column "file", it has name, path',
)
bad("a table without rows", table("name,file\n"), "lenses.csv: the catalogue must hold a lens at least")
bad(
    "a folder without FITS files",
    _no_fits,
    "lenses: the catalogue must hold a lens at least",
    "folder without FITS files",
)
bad(
    "a name twice", table("name,file\na,a.fits\na,b.fits\n"), "lenses.csv: names must be unique, but 'a' occurs 2 times"
)
bad(
    "a name that leaves the folder",
    table("name,file\n../a,a.fits\n"),
    "lenses.csv: a name must be one that a folder can have, got '../a'",
)
bad(
    "an empty cell for the file",
    table("name,file\na,\nb,b.fits\n"),
    "lenses.csv: row 1: file must not be empty",
    "Give the FITS file",
)
bad(
    "a pixel scale in words",
    table("file,pixel_scale\na.fits,0.05\nb.fits,fine\n"),
    "lenses.csv: row 2: pixel_scale must be a number",
    "'fine'",
)
bad(
    "a file that is no table",
    table("\x00\x01\x02", "lenses.fits"),
    "lenses.fits: the catalogue must be a table that astropy can read",
)
bad(
    "a YAML header that would run a program",
    table(f"# %ECSV 1.0\n# ---\n# datatype: {EVIL_YAML}\nfile\na.fits\n", "lenses.ecsv"),
    "lenses.ecsv: the catalogue must be a table that astropy can read",
)

# Datasets


def dataset(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Loads a dataset of two galaxies after a change to its folder."""

    def give(folder: Path) -> object:
        from tflens.datasets.records import Record, load_dataset, write_dataset

        path = folder / "data"
        write_dataset(path, {}, [0, 3, 4], lambda key: Record(np.full((2, 2), 1.0, np.float32), key))
        change(path)
        return load_dataset(path, "train")

    return give


def ledger(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        content = json.loads((path / "dataset.json").read_text())
        change(content)
        (path / "dataset.json").write_text(json.dumps(content))

    return dataset(edit)


def shard(change: Callable[[bytes], bytes], digest: bool = False) -> Callable[[Path], object]:
    """With `digest` the manifest tells the digest of the damaged file: that which a bad disk wrote from the start."""

    def edit(path: Path) -> None:
        import hashlib

        (file,) = path.glob("train-*")
        file.write_bytes(change(file.read_bytes()))
        if digest:
            content = json.loads((path / "dataset.json").read_text())
            content["blocks"][0]["shards"]["train"]["digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
            (path / "dataset.json").write_text(json.dumps(content))

    return dataset(edit)


def flipped(content: bytes) -> bytes:
    return content[:20] + bytes([content[20] ^ 255]) + content[21:]


def _other_records(content: bytes) -> bytes:
    """Records of something else, whole in themselves."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as place:
        path = str(Path(place) / "x")
        with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
            writer.write(b"\x07not an example")
        return Path(path).read_bytes()


def _unknown_split(folder: Path) -> object:
    from tflens.datasets.records import load_dataset

    return load_dataset(folder, "all")


bad = _case("Dataset", "load_dataset", ParameterError)
bad(
    "no dataset in the folder",
    dataset(lambda path: (path / "dataset.json").unlink()),
    "no dataset in data",
    "dataset.json is missing",
    "make one with `tflens data`",
)
bad(
    "half a `dataset.json`",
    dataset(lambda path: (path / "dataset.json").write_text('{"format": 1, "bl')),
    "data/dataset.json is not that of a dataset",
    "make the dataset anew",
)
bad(
    "`dataset.json` without its blocks",
    ledger(lambda content: content.pop("blocks")),
    "data/dataset.json is not that of a dataset",
    "blocks",
    "make the dataset anew",
)
bad(
    "`dataset.json` with blocks of another kind",
    ledger(lambda content: content.update(blocks=[{"count": "x"}])),
    "data/dataset.json is not that of a dataset",
    "make the dataset anew",
)
bad(
    "another format",
    ledger(lambda content: content.update(format=9)),
    "data/dataset.json has format 9, not 1; make it anew",
)
bad(
    "an unfinished dataset",
    ledger(lambda content: content.update(count=9)),
    "the dataset in data is unfinished (3 of 9 done)",
    "it goes on where it stopped",
)
bad(
    "a TFRecord file that is missing",
    dataset(lambda path: next(path.glob("train-*")).unlink()),
    "train-00000.tfrecord.gz is missing",
    "run the command that makes the dataset again",
)
bad(
    "a corrupted TFRecord file",
    shard(flipped),
    "train-00000.tfrecord.gz is damaged",
    "run the command that makes the dataset again",
)
bad(
    "a corrupted TFRecord file, its digest noted",
    shard(flipped, digest=True),
    "data",
    "cannot be read as records",
    "make the dataset anew",
)
bad(
    "TFRecords of something else",
    shard(_other_records, digest=True),
    "data",
    "cannot be read as records",
    "make the dataset anew",
)
bad(
    "an unknown split",
    _unknown_split,
    "split must be one of train, validation, test, got 'all'",
)

# Trained models


def galaxies(change: Callable[[Path], object], name: str = "galaxies/2") -> Callable[[Path], object]:
    """Loads a copy of a shipped model after a change to its folder."""

    def give(folder: Path) -> object:
        from tflens.galaxies.source import load_galaxy_model

        path = folder / "model"
        path.mkdir()
        for file in (ROOT / "saved_models" / name).iterdir():
            if file.is_file() and file.suffix != ".png":
                shutil.copy(file, path)
        change(path)
        return load_galaxy_model(path)

    return give


def model_config(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        content = json.loads((path / "config.json").read_text())
        change(content)
        (path / "config.json").write_text(json.dumps(content))

    return edit


def noted(name: str, write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Another file in the place of one of the model's, with its digest noted as that of the right one."""

    def edit(path: Path) -> None:
        import hashlib

        write(path / name)
        digest = hashlib.sha256((path / name).read_bytes()).hexdigest()
        model_config(lambda content: content["sha256"].update({name.split(".")[0]: digest}))(path)

    return edit


def _evil_array(path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return os.system, ("touch harm",)

    with path.open("wb") as file:
        np.save(file, np.array([Harm()], dtype=object), allow_pickle=True)


def _other_weights(path: Path) -> None:
    shutil.copy(path.with_name("flow.weights.h5"), path)


def _evil_weights(path: Path) -> None:
    """A pickle in the place of an HDF5 file."""
    import pickle

    path.write_bytes(pickle.dumps({"weights": [1.0]}))


def _no_galaxies(folder: Path) -> object:
    from tflens.galaxies.source import load_galaxy_model

    return load_galaxy_model(folder / "no")


bad = _case("Trained model", "load_galaxy_model", SavedModelError)
bad(
    "no such model",
    _no_galaxies,
    "no galaxy model",
    "looked for no",
)
bad(
    "a folder without `config.json`",
    galaxies(lambda path: (path / "config.json").unlink()),
    "model holds no versions of a galaxy model",
)
bad(
    "half a `config.json`",
    galaxies(lambda path: (path / "config.json").write_text('{"format": ')),
    "model/config.json is not readable JSON",
)
bad(
    "another version of the format",
    galaxies(model_config(lambda content: content.update(format_version=99))),
    "model/config.json does not describe a galaxy model of format 1 or 2",
)
bad(
    "`config.json` without the decoder",
    galaxies(model_config(lambda content: content.pop("decoder"))),
    "model/config.json describes no model that can be built",
    "decoder",
)
bad(
    "digests that are no table",
    galaxies(model_config(lambda content: content.update(sha256="abc"))),
    "model/config.json describes no model that can be built",
)
bad(
    "weights that are missing",
    galaxies(lambda path: (path / "flow.weights.h5").unlink()),
    "model/flow.weights.h5 is missing; restore the model's directory",
)
bad(
    "weights that were changed",
    galaxies(lambda path: (path / "flow.weights.h5").write_bytes(b"x")),
    "model/flow.weights.h5 is not the file that config.json was written for (its SHA-256 differs)",
)
bad(
    "weights of another shape",
    galaxies(noted("decoder.weights.h5", _other_weights)),
    "model/decoder.weights.h5 does not fit the networks of config.json",
)
bad(
    "weights that are a pickle",
    galaxies(noted("decoder.weights.h5", _evil_weights)),
    "model/decoder.weights.h5 does not fit the networks of config.json",
)
bad(
    "a PSF that is a pickle",
    galaxies(noted("psf.npy", _evil_array)),
    "model/config.json describes no model that can be built",
    "allow_pickle=False",
)


def _stamps(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.galaxies.real_stamps import load_real_stamps

        write(folder / "stamps.npz")
        return load_real_stamps(folder / "stamps.npz")

    return give


def _evil_archive(path: Path) -> None:
    import zipfile

    _evil_array(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".npy"), "images.npy")


bad = _case("Stamps", "load_real_stamps", ParameterError)
bad("no such file", _stamps(lambda path: None), "stamps.npz cannot be read as an .npz file of stamps")
bad(
    "a file that is no .npz",
    _stamps(lambda path: path.write_bytes(b"junk")),
    "stamps.npz cannot be read as an .npz file of stamps",
)
bad(
    "arrays that are missing",
    _stamps(lambda path: np.savez(path, images=np.ones((2, 4, 4)))),
    "stamps.npz lacks ident, mag, snr, pixel_scale, psf_fwhm (it has images)",
)
bad(
    "an array that is a pickle",
    _stamps(_evil_archive),
    "stamps.npz cannot be read as an .npz file of stamps",
    "allow_pickle=False",
)


def _cosmology(folder: Path) -> object:
    from tflens.cosmology import cosmology

    return cosmology(EVIL_YAML)


bad = _case("Cosmology", "cosmology", ParameterError)
bad("YAML that would run a program", _cosmology, "cosmology")

# Folders of runs


def run_folder(folder: Path, change: Callable[[Path], object] = lambda path: None) -> Path:
    """What a fit leaves behind, as far as it is looked at before a fault in it shows."""
    path = folder / "out"
    path.mkdir()
    config()(path)
    summary = {"name": "toy", "parameters": {}, "check": [], "diagnostics": {}, "seconds": {}}
    (path / "summary.json").write_text(json.dumps(summary))
    fits.HDUList([fits.PrimaryHDU()]).writeto(path / "best.fits")
    _draws().save(path / "posterior.nc")
    change(path)
    return path


def _draws() -> object:
    from tflens.inference.posterior import Posterior, az

    data = az.from_dict(posterior={"lens.theta_E": np.ones((2, 5))}, sample_stats={"lp": np.ones((2, 5))})
    data.posterior.attrs["units"] = json.dumps({"lens.theta_E": "arcsec"})
    return Posterior(data)


def results(change: Callable[[Path], object]) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.results import Results

        return Results.load(run_folder(folder, change))

    return give


def posterior(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.inference.posterior import Posterior

        write(folder / "posterior.nc")
        return Posterior.load(folder / "posterior.nc")

    return give


def _half_posterior(path: Path) -> None:
    _draws().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_netcdf(path: Path) -> None:
    import xarray

    xarray.Dataset({"t": ("x", [1.0])}).to_netcdf(path, engine="h5netcdf")


bad = _case("Posterior", "Posterior.load", ParameterError)
bad("no such file", posterior(lambda path: None), "posterior.nc: the posterior does not exist", "Check the path")
bad("half a file", posterior(_half_posterior), "posterior.nc: cannot be read as the posterior of a fit", "Fit again")
bad(
    "a text file",
    posterior(lambda path: path.write_text("draws")),
    "posterior.nc: cannot be read as the posterior of a fit",
    "Fit again",
)
bad(
    "netCDF of something else",
    posterior(_other_netcdf),
    "posterior.nc: cannot be read as the posterior of a fit",
    "Fit again",
)

bad = _case("Folder of a fit", "Results.load", ParameterError)
bad(
    "a file that is missing",
    results(lambda path: (path / "best.fits").unlink()),
    "out: must be the output folder of a fit, but it has no best.fits",
    "Give the folder that `tflens fit --out` wrote",
)
bad(
    "half a posterior",
    results(lambda path: _half_posterior(path / "posterior.nc")),
    "out/posterior.nc: cannot be read as",
    "Fit again",
)
bad(
    "half a `summary.json`",
    results(lambda path: (path / "summary.json").write_text('{"name": ')),
    "out/summary.json: cannot be read as a result of a fit",
    "Fit again",
)
bad(
    "a list for `summary.json`",
    results(lambda path: (path / "summary.json").write_text("[]")),
    "out/summary.json: cannot be read as a result of a fit",
    "Fit again",
)
bad(
    "`config.json` cut off",
    results(lambda path: (path / "config.json").write_text("{")),
    "out/config.json: cannot be read as a result of a fit",
    "Fit again",
)
bad(
    "`best.fits` without its images",
    results(lambda path: None),
    "out/best.fits: cannot be read as a result of a fit",
    "Fit again",
)
bad(
    "`best.fits` cut off",
    results(lambda path: (path / "best.fits").write_bytes(b"SIMPLE")),
    "out/best.fits: cannot be read as a result of a fit",
    "Fit again",
)


def _saved(folder: Path, change: Callable[[Path], object], name: str) -> object:
    from tflens.saved_fit import SavedFit

    return getattr(SavedFit(run_folder(folder, change)), name)


bad = _case("Folder of a fit", "SavedFit", ParameterError)
bad(
    "no `posterior.nc`",
    lambda folder: _saved(folder, lambda path: (path / "posterior.nc").unlink(), "model"),
    "out: posterior.nc is missing. Give the output folder of a finished `tflens fit`",
)
bad(
    "a configuration without the model",
    lambda folder: _saved(folder, lambda path: None, "model"),
    "out/config.json: the model is not recorded",
)

bad = _case("Folder of a fit", "read_runs", ParameterError)
bad(
    "no such folder",
    lambda folder: read_runs([folder / "no"]),
    "no: the folder of the run does not exist. Check the path",
)
bad(
    "a folder without a run",
    lambda folder: read_runs([folder]),
    "has no run: neither summary.json of a fit nor history.json of a training is in it",
)
bad(
    "a summary that lacks its figures",
    lambda folder: read_runs([run_folder(folder)]),
    "out/summary.json: is not what a run of tflens writes",
    "chi2",
)
bad(
    "an empty history of a training",
    lambda folder: (folder / "history.json").write_text("[]") and read_runs([folder]),
    "history.json: is not what a run of tflens writes",
)


@contextmanager
def read_only() -> Iterator[None]:
    """As on a medium that cannot be written to: rights alone do not stop an administrator."""
    with patch.object(Path, "mkdir", side_effect=OSError(30, "Read-only file system")):
        yield


def _read_only(folder: Path) -> object:
    with read_only():
        return prepare_folder(folder / "out")


def _full(folder: Path) -> object:
    (folder / "out").mkdir()
    (folder / "out/notes.txt").write_text("mine")
    return prepare_folder(folder / "out")


def _a_file(folder: Path) -> object:
    (folder / "out").write_text("")
    return prepare_folder(folder / "out")


bad = _case("Output folder", "prepare_folder", StorageError)
bad("read-only", _read_only, "out: the output folder must be writable, but Read-only file system. Choose another place")
bad(
    "below a file",
    lambda folder: (folder / "x").write_text("") or prepare_folder(folder / "x/out"),
    "out: the output folder must be writable",
    "Choose another place",
)
bad = _case("Output folder", "prepare_folder", ParameterError)
bad("with content", _full, "out: the output folder must be empty, but it has content", "--overwrite")
bad("a file", _a_file, "out: the output folder must be a folder, but it is a file. Choose another name")

# SavedModels


def served(write: Callable[[Path], object]) -> Callable[[Path], object]:
    """Loads `models/m/1` once it is written, to serve it."""

    def give(folder: Path) -> object:
        from tflens.serving.server import load_models

        write(folder / "models")
        return load_models(folder / "models")

    return give


def exported(change: Callable[[Path], object] = lambda path: None, function: Callable | None = None) -> Callable:
    def write(models: Path) -> None:
        from tflens.serving.export import write_saved_model
        from tflens.serving.signature import Argument, Signature

        x = (Argument("x", (None,), "a number"),)
        double = Signature("double", "twice", function or (lambda given: {"x": 2 * given["x"]}), x, x, None)
        change(write_saved_model(models, "m", 1, [double], {}))

    return write


def _foreign(models: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec([None], tf.float32)])
    tf.saved_model.save(module, str(models / "m/1"), signatures={"f": module.f})


def _reads_a_file(given: dict) -> dict:
    import tensorflow as tf

    return {"x": given["x"] + tf.cast(tf.strings.length(tf.io.read_file("secret")), tf.float32)}


def _writes_in_a_branch(given: dict) -> dict:
    import tensorflow as tf

    def write() -> tf.Tensor:
        with tf.control_dependencies([tf.io.write_file("harm", "x")]):
            return tf.identity(given["x"])

    return {"x": tf.cond(given["x"][0] > 0, write, lambda: given["x"])}


def _runs_python(given: dict) -> dict:
    import tensorflow as tf

    return {"x": tf.ensure_shape(tf.numpy_function(lambda x: x, [given["x"]], tf.float32), [None])}


bad = _case("SavedModel", "tflens.serving.server.load_models", SavedModelError)
bad("no such folder", served(lambda models: None), "models: the folder of models does not exist. Check the path")
bad(
    "a folder without SavedModels",
    served(lambda models: models.mkdir()),
    "models holds no SavedModel",
    "`tflens export` writes them so",
)
bad(
    "made by another program",
    served(_foreign),
    "models/m/1: a SavedModel is a program, and this one is not loaded",
    "signatures.json",
    "--trust",
)
bad(
    "changed since it was exported",
    served(exported(lambda path: (path / "saved_model.pb").write_bytes(b"\xff"))),
    "models/m/1: a SavedModel is a program, and this one is not loaded",
    "saved_model.pb is not as `tflens export` wrote it (its SHA-256 differs)",
    "--trust",
)
bad(
    "with a file that was added",
    served(exported(lambda path: (path / "assets.txt").write_text("x"))),
    "models/m/1",
    "assets.txt is not as `tflens export` wrote it",
    "--trust",
)
bad(
    "that reads a file, its digests right",
    served(exported(function=_reads_a_file)),
    "models/m/1",
    "operations that may do more than compute (ReadFile, ",
    "--trust",
)
bad(
    "that writes a file in a branch, its digests right",
    served(exported(function=_writes_in_a_branch)),
    "models/m/1",
    "operations that may do more than compute (WriteFile)",
    "--trust",
)
bad(
    "that runs Python, its digests right",
    served(exported(function=_runs_python)),
    "models/m/1",
    "operations that may do more than compute (PyFunc)",
    "--trust",
)


def _exported_as(name: str, version: int) -> Callable[[Path], object]:
    def give(folder: Path) -> object:
        from tflens.serving.export import write_saved_model

        return write_saved_model(folder, name, version, [], {})

    return give


bad = _case("SavedModel", "write_saved_model", ParameterError)
bad(
    "a name that leaves the folder", _exported_as("../m", 1), "the name of a model must be of letters, digits", "'../m'"
)
bad("version 0", _exported_as("m", 0), "the version of a model must be a whole number from 1, got 0")

# The command line: exit code 1, the input or a setting is refused; 2, the command is misused.


def files(*words: object, **parts) -> Callable[[Path], list]:
    """Arguments, in which FILE stands for a good FITS file but for the parts given, and OUT for a folder."""

    def give(folder: Path) -> list:
        places = {"FILE": str(lens(folder, **parts)), "OUT": str(folder / "out"), "HERE": str(folder)}
        return [re.sub("FILE|OUT|HERE", lambda found: places[found[0]], str(word)) for word in words]

    return give


def with_file(name: str, text: str, *words: object) -> Callable[[Path], list]:
    def give(folder: Path) -> list:
        (folder / name).write_text(text)
        return files(*words)(folder)

    return give


def after(make: Callable[[Path], object], *words: object) -> Callable[[Path], list]:
    def give(folder: Path) -> list:
        make(folder)
        return [str(word).replace("HERE", str(folder)) for word in words]

    return give


def _damaged_kept(folder: Path) -> None:
    """A catalogue whose one lens was fitted before; of that fit, the summary is damaged."""
    (folder / "many").mkdir()
    path = run_folder(folder / "many", lambda path: (path / "summary.json").write_text("{"))
    given = Input(str(lens(folder))).with_digests()
    (path / "config.json").write_text(json.dumps(RunConfig(given, "neural", many_settings()).as_dict()))
    (folder / "lenses.csv").write_text("name,file\nout,lens.fits\n")


def many_settings() -> dict:
    """The defaults of `tflens fit-many`."""
    search = {"seed": 0, "starts": 48, "start": "broad"}
    return search | {"chains": 8, "warmup": 120, "draws": 300, "rounds": 3, "sampler": "hmc"}


def _damaged_run(folder: Path) -> None:
    run_folder(folder, lambda path: _half_posterior(path / "posterior.nc"))


bad = _case("Command line", "tflens fit", 1)
bad("no such file", files("fit", "HERE/no.fits", "-o", "OUT"), "no.fits: the FITS file does not exist. Check the path")
bad(
    "NaN in the image",
    files("fit", "FILE", "-o", "OUT", SCI=at(image(), (3, 5), np.nan)),
    "lens.fits[SCI]: the image must be finite",
    "Mask such pixels",
)
bad(
    "a PSF of even size",
    files("fit", "FILE", "-o", "OUT", PSF=np.ones((4, 4))),
    "lens.fits[PSF]: the PSF must have an odd number of pixels",
)
bad(
    "an output folder with content",
    files("fit", "FILE", "-o", "HERE"),
    "the output folder must be empty",
    "--overwrite",
)
bad(
    "a noise scale in words",
    files("fit", "FILE", "-o", "OUT", "--noise-scale", "twice"),
    "noise_scale must be \"auto\" or a positive number, got 'twice'",
)
bad(
    "a noise file that is not there",
    files("fit", "FILE", "-o", "OUT", "--noise-file", "HERE/no.fits"),
    "no.fits: the FITS file does not exist",
)
bad(
    "a model with a misspelt key",
    with_file("model.toml", "lense = []", "fit", "FILE", "-o", "OUT", "--model", "HERE/model.toml"),
    "model.toml: unknown key 'lense'",
)
bad(
    "a configuration with a misspelt key",
    with_file(
        "config.json",
        '{"format": "tflens.fit", "format_version": 1, "inputs": {}}',
        "fit",
        "-o",
        "OUT",
        "--config",
        "HERE/config.json",
    ),
    "config.json: the configuration does not describe a fit",
    "the key input is missing",
)
bad(
    "a configuration that is no JSON",
    with_file("config.json", "{", "fit", "-o", "OUT", "--config", "HERE/config.json"),
    "config.json: the configuration must be readable JSON",
)

bad = _case("Command line", "tflens fit", 2)
bad("no file", lambda folder: ["fit", "-o", folder / "out"], "give the file to fit, or --config")
bad("no output folder", files("fit", "FILE"), "Missing option '--out'")
bad("no starts", files("fit", "FILE", "-o", "OUT", "--starts", 0), "--starts", "greater than or equal to 1")
bad("words for a number", files("fit", "FILE", "-o", "OUT", "--chains", "many"), "--chains", "valid integer")
bad("an option that is not there", files("fit", "FILE", "-o", "OUT", "--speed", 3), "No such option: --speed")
bad(
    "a setting beside --config",
    files("fit", "-o", "OUT", "--config", "x.json", "--seed", 1),
    "--seed cannot be given with it, for it holds them",
)

bad = _case("Command line", "other commands", 1)
bad(
    "fit-many: a catalogue without `file`",
    with_file("lenses.csv", "name\na\n", "fit-many", "HERE/lenses.csv", "-o", "OUT"),
    'lenses.csv: the catalogue must have a column "file"',
)
bad(
    "fit-many: a kept result that is damaged",
    after(_damaged_kept, "fit-many", "HERE/lenses.csv", "-o", "HERE/many"),
    "many/out/summary.json: cannot be read as the summary of a fit",
)
bad(
    "report: half a posterior",
    after(_damaged_run, "report", "HERE/out"),
    "out/posterior.nc: cannot be read as",
    "Fit again",
)
bad("compare: a folder without a run", lambda folder: ["compare", folder], "has no run")
bad(
    "convert: not the folder of a fit",
    lambda folder: ["convert", folder, "--to", "lenstronomy", "-o", folder / "x.json"],
    "config.json is missing. Give the output folder of a finished `tflens fit`",
)
bad(
    "serve: a SavedModel of another program",
    after(lambda folder: _foreign(folder / "models"), "serve", "HERE/models"),
    "a SavedModel is a program, and this one is not loaded",
    "--trust",
)
bad(
    "export galaxies: no such model",
    lambda folder: ["export", "galaxies", "no_such", "-o", folder],
    "no galaxy model 'no_such'",
)
bad(
    "simulate: a shape in words",
    lambda folder: ["simulate", "-o", folder / "out", "--shape", "big"],
    "--shape must be two numbers with a comma between them",
    "'big'",
)
bad(
    "simulate: a negative pixel scale",
    lambda folder: ["simulate", "-o", folder / "out", "--pixel-scale", -0.1],
    "pixel_scale",
    "-0.1",
)
bad(
    "data cosmos: no such catalogue",
    lambda folder: ["data", "cosmos", folder / "no.fits", "-o", folder / "out"],
    "there is no catalogue no.fits",
)
bad(
    "data cosmos: columns missing",
    after(
        lambda folder: fits.BinTableHDU.from_columns([fits.Column("RA", "D", array=[1.0])]).writeto(
            folder / "cat.fits"
        ),
        "data",
        "cosmos",
        "HERE/cat.fits",
        "-o",
        "HERE/out",
    ),
    "cat.fits is not a catalogue of real galaxies as GalSim knows it",
)
bad(
    "train galaxies: no dataset",
    lambda folder: ["train", "galaxies", "--data", folder, "--run", folder / "run"],
    "no dataset in",
    "make one with `tflens data`",
)
bad(
    "train galaxies: a misspelt key",
    with_file(
        "recipe.toml",
        'extends = "galaxies"\nepoch = 3\n',
        "train",
        "galaxies",
        "--data",
        "HERE",
        "--run",
        "OUT",
        "--config",
        "HERE/recipe.toml",
    ),
    "recipe.toml: ",
    "epoch",
)
bad(
    "train galaxies: a configuration that extends itself",
    with_file(
        "recipe.toml",
        'extends = "recipe.toml"\n',
        "train",
        "galaxies",
        "--data",
        "HERE",
        "--run",
        "OUT",
        "--config",
        "HERE/recipe.toml",
    ),
    "recipe.toml: ",
    "extends",
)
bad(
    "evaluate galaxies: no such model",
    lambda folder: ["evaluate", "galaxies", folder / "no", "--data", folder, "-o", folder / "out"],
    "no",
)
