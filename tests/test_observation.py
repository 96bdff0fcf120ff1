"""Observation: what is read is what was written, and whatever cannot be right is refused by name, rule and value."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import tflens.fits_io
from tflens.errors import ObservationError
from tflens.grid import PixelGrid
from tflens.observation import LARGEST, NO_DATA_NOISE, SMALLEST, Observation

NY, NX = 24, 31


def arrays() -> dict[str, np.ndarray]:
    """A noisy blob, off-centre on a non-square frame, with one dead pixel in the corner."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:NY, :NX]
    image = np.exp(-((x - 18) ** 2 + (y - 9) ** 2) / 20) + 0.01 * rng.normal(size=(NY, NX))
    mask = np.ones((NY, NX), dtype=bool)
    mask[2, 28] = False
    return {"image": image, "noise": np.full((NY, NX), 0.01), "psf": gaussian_psf(7, 5), "mask": mask}


def gaussian_psf(ky: int, kx: int) -> np.ndarray:
    y, x = np.mgrid[:ky, :kx]
    psf = np.exp(-((x - kx // 2) ** 2 + (y - ky // 2) ** 2) / 3)
    return psf / psf.sum()


def celestial(cd: tuple[tuple[float, float], tuple[float, float]] = ((-1, 0), (0, 1)), arcsec: float = 0.05) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [43.2101, 0.6543]
    wcs.wcs.crpix = [16, 12.5]
    wcs.wcs.cd = np.array(cd) * arcsec / 3600
    return wcs


def write(path: Path, primary: dict | None = None, sci: fits.Header | dict | None = None, **planes: np.ndarray) -> Path:
    """A lens file; a plane given as None is left out. MASK is written as on disk: non-zero = bad."""
    good = arrays()
    content = {"SCI": good["image"], "ERR": good["noise"], "PSF": good["psf"], "MASK": (~good["mask"]).astype(np.uint8)}
    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus[0].header.update({"PIXSCALE": 0.05} if primary is None else primary)
    for name, plane in (content | planes).items():
        if plane is not None:
            hdus.append(plane if isinstance(plane, fits.hdu.base.ExtensionHDU) else fits.ImageHDU(plane, name=name))
    if sci is not None:
        hdus["SCI"].header.update(sci)
    hdus.writeto(path)
    return path


def with_value(role: str, value: float, at: tuple[int, int] = (5, 7)) -> np.ndarray:
    plane = arrays()[role].astype(type(value) if isinstance(value, complex) else float)
    plane[at] = value
    return plane


def refusal(path: Path, *needles: str, **options: object) -> ObservationError:
    """The error of reading a file, which must be a whole sentence with the file and these words in it."""
    with pytest.raises(ObservationError) as caught:
        Observation.from_fits(path, **options)
    message = str(caught.value)
    for needle in (str(path), *needles):
        assert needle in message
    assert message.endswith((".", "?"))
    assert "\n" not in message
    return caught.value


# What is read


def test_file_arrives_as_written(tmp_path):
    observation = Observation.from_fits(write(tmp_path / "lens.fits", {"PIXSCALE": 0.05, "OBJECT": "J1", "ZLENS": 0.3}))
    for role, expected in arrays().items():
        if role != "psf":
            np.testing.assert_array_equal(getattr(observation, role), expected)
    np.testing.assert_allclose(observation.psf, arrays()["psf"], rtol=1e-15)
    assert observation.grid == PixelGrid((NY, NX), 0.05)
    assert (observation.name, observation.metadata) == ("J1", {"OBJECT": "J1", "ZLENS": 0.3})
    assert observation.wcs is None
    assert repr(observation) == "Observation('J1': 24 x 31 pixels of 0.05 arcsec, 743 used, PSF 7 x 5)"


def test_pixel_00_is_bottom_left_and_nothing_is_flipped(tmp_path):
    # CD1_1 < 0 (east to the left), as in real headers, must leave the array alone.
    marked = with_value("image", 77.0, at=(0, 0))
    marked[0, 1] = 55.0
    observation = Observation.from_fits(write(tmp_path / "a.fits", {}, celestial().to_header(), SCI=marked))
    assert observation.image[0, 0] == 77
    assert observation.image[0, 1] == 55
    x, y = observation.grid.coordinates()
    assert x[0, 0] == x.min() < 0
    assert y[0, 0] == y.min() < 0
    east, west = (observation.wcs.pixel_to_world(column, 0).ra.deg for column in (0, 1))
    assert east > west


def test_arrays_are_native_float64_copies_that_cannot_be_changed():
    given = arrays()
    given["image"] = given["image"].astype(">f4")
    given["noise"] = np.full((NY, NX), 2, dtype=">i2")
    observation = Observation(**given, pixel_scale=0.05)
    for plane in (observation.image, observation.noise, observation.psf):
        assert plane.dtype == np.float64
        assert plane.dtype.isnative
        with pytest.raises(ValueError, match="read-only"):
            plane[0, 0] = 1
    given["image"][:] = 0
    assert observation.image.max() > 0.9
    np.testing.assert_array_equal(observation.noise, 2)


@pytest.mark.parametrize("bad_value", [1, 4, 255])
def test_any_mask_value_but_zero_is_bad(tmp_path, bad_value):
    plane = np.zeros((NY, NX), dtype=np.uint8)
    plane[3, 20] = bad_value
    observation = Observation.from_fits(write(tmp_path / "a.fits", MASK=plane))
    assert np.argwhere(~observation.mask).tolist() == [[3, 20]]


def test_float_mask_and_missing_mask(tmp_path):
    plane = np.zeros((NY, NX), dtype=np.float32)
    plane[3, 20] = -1
    assert not Observation.from_fits(write(tmp_path / "a.fits", MASK=plane)).mask[3, 20]
    assert Observation.from_fits(write(tmp_path / "b.fits", MASK=None)).mask.all()
    assert Observation.from_fits(tmp_path / "a.fits", mask=None).mask.all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_masked_pixels_without_data_are_made_safe(value):
    given = arrays()
    given["image"][2, 28] = value
    given["noise"][2, 28] = value
    observation = Observation(**given, pixel_scale=0.05)
    assert (observation.image[2, 28], observation.noise[2, 28]) == (0, NO_DATA_NOISE)
    assert np.isfinite((observation.image / observation.noise).astype(np.float32) ** 2).all()


def test_masked_pixels_with_data_are_kept():
    given = arrays()
    given["image"][2, 28] = 3.5
    given["noise"][2, 28] = 1e8
    observation = Observation(**given, pixel_scale=0.05)
    assert (observation.image[2, 28], observation.noise[2, 28]) == (3.5, 1e8)


@pytest.mark.parametrize(("role", "value"), [("noise", 0), ("noise", 1e30), ("image", 1e30), ("image", np.nan)])
def test_one_unusable_value_makes_the_whole_masked_pixel_safe(role, value):
    given = arrays()
    given[role][2, 28] = value
    observation = Observation(**given, pixel_scale=0.05)
    assert (observation.image[2, 28], observation.noise[2, 28]) == (0, NO_DATA_NOISE)


def test_signal_to_noise():
    given = arrays()
    observation = Observation(**given, pixel_scale=0.05)
    expected = given["image"] / given["noise"]
    expected[2, 28] = 0
    np.testing.assert_array_equal(observation.signal_to_noise, expected)


def test_with_mask():
    given = arrays()
    given["image"][2, 28] = np.nan
    observation = Observation(**given, pixel_scale=0.05, name="J1")
    smaller = given["mask"].copy()
    smaller[0] = False
    changed = observation.with_mask(smaller)
    np.testing.assert_array_equal(changed.mask, smaller)
    np.testing.assert_array_equal(changed.image, observation.image)
    assert (changed.name, changed.pixel_scale) == ("J1", 0.05)
    np.testing.assert_array_equal(observation.mask, given["mask"])
    with pytest.raises(ObservationError, match=r"a used pixel must have data, but pixel \[2, 28\].*Leave it masked"):
        observation.with_mask(np.ones((NY, NX), dtype=bool))


@pytest.mark.parametrize("names", [{"image": "flux", "noise": "sigma"}, {"image": 1, "noise": 2}, {"image": "1"}])
def test_extensions_by_other_name_case_and_number(tmp_path, names):
    good = arrays()
    hdus = [fits.PrimaryHDU()] + [
        fits.ImageHDU(plane, name=name)
        for name, plane in (("FLUX", good["image"]), ("SIGMA", good["noise"]), ("PSF", good["psf"]))
    ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    observation = Observation.from_fits(tmp_path / "a.fits", **{"noise": "SIGMA"} | names, pixel_scale=0.05)
    np.testing.assert_array_equal(observation.image, good["image"])
    np.testing.assert_array_equal(observation.noise, 0.01)


def test_image_in_the_primary_hdu(tmp_path):
    good = arrays()
    hdus = [fits.PrimaryHDU(good["image"]), fits.ImageHDU(good["noise"], name="ERR")]
    hdus[0].header["PIXSCALE"] = 0.08
    fits.HDUList([*hdus, fits.ImageHDU(good["psf"], name="PSF")]).writeto(tmp_path / "a.fits")
    observation = Observation.from_fits(tmp_path / "a.fits")
    np.testing.assert_array_equal(observation.image, good["image"])
    assert observation.pixel_scale == 0.08
    assert observation.name == "a"


def test_scaled_integers_with_blank(tmp_path):
    stored = np.arange(NY * NX, dtype=np.int16).reshape(NY, NX)
    stored[2, 28] = -999  # the masked pixel
    sci = fits.ImageHDU(stored, name="SCI", do_not_scale_image_data=True)
    sci.header.update({"BSCALE": 0.5, "BZERO": 10.0, "BLANK": -999})
    observation = Observation.from_fits(write(tmp_path / "a.fits", SCI=sci))
    expected = 0.5 * stored + 10
    expected[2, 28] = 0
    np.testing.assert_array_equal(observation.image, expected)


def test_tile_compressed_and_gzipped(tmp_path):
    image = arrays()["image"].astype(np.float32)
    sci = fits.CompImageHDU(image, name="SCI", compression_type="GZIP_2", quantize_level=0)
    observation = Observation.from_fits(write(tmp_path / "a.fits.gz", SCI=sci))
    np.testing.assert_array_equal(observation.image, image)
    assert observation.name == "a"


def test_separate_files(tmp_path):
    good = arrays()
    fits.PrimaryHDU(good["image"], fits.Header({"PIXSCALE": 0.05, "OBJECT": "J2"})).writeto(tmp_path / "image.fits")
    fits.PrimaryHDU(good["noise"]).writeto(tmp_path / "noise [deep].fits")
    write(tmp_path / "all.fits")
    observation = Observation.from_files(
        image=tmp_path / "image.fits",
        noise=str(tmp_path / "noise [deep].fits"),
        psf=f"{tmp_path}/all.fits[psf]",
        mask=f"{tmp_path}/all.fits[4]",
    )
    np.testing.assert_array_equal(observation.image, good["image"])
    np.testing.assert_array_equal(observation.mask, good["mask"])
    assert observation.psf.shape == (7, 5)
    assert (observation.name, observation.pixel_scale) == ("J2", 0.05)


def test_separate_file_with_several_images_must_name_one(tmp_path):
    path = write(tmp_path / "all.fits")
    with pytest.raises(ObservationError, match=r"4 images: 0 PRIMARY \(no data\), 1 SCI \(24 x 31\).*all.fits\[1\]'"):
        Observation.from_files(image=path, noise=path, psf=path)
    with pytest.raises(ObservationError, match=r"the file for the PSF lacks the extension KERNEL. It has 0 PRIMARY"):
        Observation.from_files(image=f"{path}[SCI]", noise=f"{path}[ERR]", psf=f"{path}[KERNEL]")
    with pytest.raises(ObservationError, match=r"all.fits\[ERR\].*shape of the image.*all.fits\[PSF\] is 7 x 5"):
        Observation.from_files(image=f"{path}[PSF]", noise=f"{path}[ERR]", psf=f"{path}[PSF]")


# The pixel scale


@pytest.mark.parametrize(
    ("primary", "sci", "argument", "expected"),
    [
        ({"PIXSCALE": 0.04}, None, None, 0.04),
        ({}, {"PIXSCALE": 0.06}, None, 0.06),
        ({"PIXSCALE": 0.04}, {"PIXSCALE": 0.06}, None, 0.06),
        ({"PIXSCALE": 0.04}, None, 0.1, 0.1),
        ({"PIXSCALE": "0.04"}, None, None, 0.04),
    ],
)
def test_scale_from_argument_or_keyword(tmp_path, primary, sci, argument, expected):
    path = write(tmp_path / "a.fits", primary, sci)
    assert Observation.from_fits(path, pixel_scale=argument).pixel_scale == expected


ROTATED = ((-np.cos(0.7), np.sin(0.7)), (np.sin(0.7), np.cos(0.7)))


@pytest.mark.parametrize("cd", [((-1, 0), (0, 1)), ROTATED, ((-1.004, 0), (0, 0.996))])
def test_scale_from_cd_matrix(tmp_path, cd):
    path = write(tmp_path / "a.fits", {}, celestial(cd).to_header())
    assert Observation.from_fits(path).pixel_scale == pytest.approx(0.05, rel=1e-4)


def test_scale_from_cdelt_and_from_the_primary_wcs(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.1 / 3600, "CDELT2": 0.1 / 3600}
    assert Observation.from_fits(write(tmp_path / "a.fits", {}, cards)).pixel_scale == pytest.approx(0.1, rel=1e-12)
    in_primary = Observation.from_fits(write(tmp_path / "b.fits", cards))
    assert in_primary.pixel_scale == pytest.approx(0.1, rel=1e-12)
    assert in_primary.wcs.has_celestial


def test_wcs_with_a_spectral_axis_keeps_the_two_of_the_sky(tmp_path):
    header = celestial().to_header()
    header.update({"WCSAXES": 3, "CTYPE3": "WAVE", "CUNIT3": "m", "CRVAL3": 8e-7, "CDELT3": 1e-9, "CRPIX3": 1.0})
    observation = Observation.from_fits(write(tmp_path / "a.fits", {}, header))
    assert observation.pixel_scale == pytest.approx(0.05, rel=1e-12)
    assert observation.wcs.pixel_to_world(15, 11.5).ra.deg == pytest.approx(43.2101, abs=1e-9)


@pytest.mark.parametrize(
    "cards",
    [{}, {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}, {"CTYPE1": "WAVE", "CDELT1": 1e-9}, {"CDELT1": 0.05}],
    ids=["nothing", "directions without scale", "spectral", "linear"],
)
def test_missing_scale_is_refused(tmp_path, cards):
    refusal(write(tmp_path / "a.fits", {}, cards), "a.fits[SCI]", "pixel scale is missing", "PIXSCALE", "WCS")


@pytest.mark.parametrize(
    ("cd", "sizes"),
    [(((-1, 0), (0, 1.02)), "0.05 (x) by 0.051 (y)"), (((-1, 0.02), (0, 1)), "sides at 88.85 degrees")],
)
def test_pixels_that_are_not_square_are_refused(tmp_path, cd, sizes):
    path = write(tmp_path / "a.fits", {}, celestial(cd).to_header())
    refusal(path, "a.fits[SCI]", "square within 1%", sizes, "give pixel_scale")
    assert Observation.from_fits(path, pixel_scale=0.05).pixel_scale == 0.05


@pytest.mark.parametrize("scale", [0.0, -0.05])
def test_scale_that_is_not_positive_is_refused(tmp_path, scale):
    path = write(tmp_path / "a.fits", {"PIXSCALE": scale})
    refusal(path, "a.fits[PRIMARY], keyword PIXSCALE", "positive number", repr(scale))
    refusal(path, "argument pixel_scale", "positive number", repr(scale), pixel_scale=scale)


@pytest.mark.parametrize("scale", [np.nan, np.inf, None, "wide"])
def test_scale_that_is_no_number_is_refused(tmp_path, scale):
    with pytest.raises(ObservationError, match=r"Observation.pixel_scale: the pixel scale must be a positive number"):
        Observation(**arrays(), pixel_scale=scale)
    if scale == "wide":
        refusal(
            write(tmp_path / "a.fits", {"PIXSCALE": scale}),
            "a.fits[PRIMARY]: keyword PIXSCALE must be a number",
            "'wide'",
        )


def test_keyword_against_wcs_warns(tmp_path):
    path = write(tmp_path / "a.fits", {"PIXSCALE": 0.04}, celestial().to_header())
    with pytest.warns(UserWarning, match=r"a.fits\[PRIMARY\]: keyword PIXSCALE = 0.04 arcsec is used.* WCS says 0.05"):
        assert Observation.from_fits(path).pixel_scale == 0.04


def test_unreadable_wcs_is_dropped_with_a_warning(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--QQQ", "CD1_1": -1e-5, "CD2_2": 1e-5}
    path = write(tmp_path / "a.fits", None, cards)
    with pytest.warns(UserWarning, match=r"a.fits\[SCI\]: the WCS is dropped"):
        assert Observation.from_fits(path).wcs is None


# Files that cannot be read


def test_missing_file_and_directory(tmp_path):
    refusal(tmp_path / "none.fits", "does not exist")
    refusal(tmp_path, "is a directory")


@pytest.mark.parametrize("content", [b"", b"not FITS at all\n" * 400, b"\x89PNG\r\n" + bytes(6000)])
def test_not_fits(tmp_path, content):
    (tmp_path / "a.fits").write_bytes(content)
    error = refusal(tmp_path / "a.fits", "cannot be read as FITS")
    assert isinstance(error.__cause__, OSError)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.4, 0.6, 0.8, 0.99, 0.9999])
def test_truncated_file_is_refused_wherever_it_ends(tmp_path, fraction):
    for suffix in (".fits", ".fits.gz"):
        whole = write(tmp_path / f"whole{suffix}").read_bytes()
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[: int(fraction * len(whole))])
        refusal(path, "truncated")


def test_file_cut_between_two_extensions_lacks_the_rest(tmp_path):
    with fits.open(write(tmp_path / "whole.fits")) as hdus:
        end_of_noise = hdus["PSF"].fileinfo()["hdrLoc"]
    path = tmp_path / "cut.fits"
    path.write_bytes((tmp_path / "whole.fits").read_bytes()[:end_of_noise])
    refusal(path, "the extension PSF for the PSF is missing", "0 PRIMARY (no data), 1 SCI (24 x 31), 2 ERR (24 x 31).")


def test_text_behind_the_last_extension_is_refused(tmp_path):
    path = write(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes() + b"rubbish" * 100)
    refusal(path, "extra bytes behind its last extension")


WORDS = {"image": "image", "noise": "noise", "psf": "PSF", "mask": "mask"}


@pytest.mark.parametrize(("role", "name"), [("image", "SCI"), ("noise", "ERR"), ("psf", "PSF")])
def test_missing_extension_lists_those_present(tmp_path, role, name):
    path = write(tmp_path / "a.fits", **{name: None})
    refusal(
        path,
        f"the extension {name} for the {WORDS[role]} is missing",
        "3 MASK (24 x 31)",
        f"as the argument {role}.",
    )


@pytest.mark.parametrize("options", [{"noise": 9}, {"noise": -1}, {"psf": "KERNEL"}, {"mask": "DQ"}])
def test_extension_asked_for_must_exist(tmp_path, options):
    ((role, name),) = options.items()
    refusal(
        write(tmp_path / "a.fits"),
        f"the extension {name} for the {WORDS[role]} is missing",
        "2 ERR",
        **options,
    )


def test_extension_name_used_twice_is_refused(tmp_path):
    path = write(tmp_path / "a.fits", EXTRA=fits.ImageHDU(np.ones((NY, NX)), name="ERR"))
    refusal(path, "2 extensions named ERR", "2 ERR (24 x 31)", "5 ERR (24 x 31)", "by its number")
    np.testing.assert_array_equal(Observation.from_fits(path, noise=5).noise, 1)


def test_table_and_empty_extension_are_refused(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column("flux", "E", array=np.ones(3))], name="SCI")
    refusal(
        write(tmp_path / "a.fits", SCI=table), "a.fits[SCI]", "must be an image, but it is a table", "1 SCI (table)"
    )
    refusal(write(tmp_path / "b.fits", ERR=fits.ImageHDU(name="ERR")), "b.fits[ERR]", "it has no data")


# Arrays that cannot be right


@pytest.mark.parametrize(("name", "what"), [("SCI", "image"), ("ERR", "noise map"), ("PSF", "PSF")])
@pytest.mark.parametrize("shape", [(9,), (2, NY, NX), (1, NY, NX)])
def test_wrong_number_of_dimensions(tmp_path, name, what, shape):
    path = write(tmp_path / "a.fits", **{name: np.ones(shape)})
    refusal(path, f"a.fits[{name}]: the {what} must be two-dimensional", f"shape is {shape}", "one plane of a cube")


@pytest.mark.parametrize("role", ["image", "noise", "psf"])
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (np.ones((5, 7), dtype=complex), "must hold real numbers, but its type is complex128"),
        (np.full((5, 7), "bright"), "must hold real numbers, but its type is <U6"),
        (np.ones((5, 7), dtype=bool), "must hold real numbers, but its type is bool"),
        (np.ones((0, 7)), "not empty, but its shape is (0, 7)"),
        (1.0, "two-dimensional [y, x] and not empty, but its shape is ()"),
        (np.ma.masked_less(np.ones((5, 7)), 0), "it is a masked array"),
    ],
    ids=["complex", "text", "boolean", "empty", "scalar", "masked array"],
)
def test_wrong_kind_of_array(role, value, rule):
    with pytest.raises(ObservationError) as caught:
        Observation(**arrays() | {role: value}, pixel_scale=0.05)
    assert f"Observation.{role}: " in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize(("name", "what"), [("ERR", "noise map"), ("MASK", "mask")])
def test_shapes_that_disagree(tmp_path, name, what):
    path = write(tmp_path / "a.fits", **{name: np.ones((NX, NY), dtype=np.int16)})
    refusal(path, f"a.fits[{name}]: the {what} must have the shape", "31 x 24", f"{path}[SCI] is 24 x 31")


@pytest.mark.parametrize(
    ("name", "role", "value", "rule"),
    [
        ("SCI", "image", np.nan, "the image must be finite"),
        ("SCI", "image", -np.inf, "the image must be finite"),
        ("SCI", "image", -1e20, "the image must be within +-1e+18"),
        ("ERR", "noise", np.nan, "the noise must be finite"),
        ("ERR", "noise", np.inf, "the noise must be finite"),
        ("ERR", "noise", 0.0, "the noise must be positive"),
        ("ERR", "noise", -0.5, "the noise must be positive"),
        ("ERR", "noise", 1e-20, "the noise must be above 1e-18"),
        ("ERR", "noise", 1e20, "the noise must be below 1e+18"),
    ],
)
def test_used_pixel_without_sense_is_refused_and_a_masked_one_is_not(tmp_path, name, role, value, rule):
    path = write(tmp_path / "a.fits", **{name: with_value(role, value)})
    place = f"in every used pixel, but pixel [5, 7] ([y, x], from 0) has {value:g}"
    refusal(path, f"a.fits[{name}]: {rule}", place, "ask such pixels")

    bad = np.zeros((NY, NX), dtype=np.uint8)
    bad[5, 7] = 1
    masked = Observation.from_fits(write(tmp_path / "b.fits", **{name: with_value(role, value), "MASK": bad}))
    assert np.isfinite(masked.image).all()
    assert np.isfinite(masked.noise).all()
    assert (masked.noise > 0).all()


def test_count_of_wrong_pixels(tmp_path):
    noise = arrays()["noise"]
    noise[4:6, 10:13] = -2
    refusal(write(tmp_path / "a.fits", ERR=noise), "pixel [4, 10] ([y, x], from 0), the first of 6, has -2")


def test_limits_leave_squares_in_float32():
    single = np.finfo(np.float32)
    assert np.float32(SMALLEST) ** 2 > single.tiny
    assert np.float32(LARGEST) ** 2 < single.max
    assert LARGEST > 1e8 == NO_DATA_NOISE


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_blank_image_is_refused(tmp_path, value):
    image = np.full((NY, NX), value)
    image[2, 28] = 9  # differs in the masked pixel only
    refusal(write(tmp_path / "a.fits", SCI=image), "a.fits[SCI]", "blank", f"all 743 used pixels hold {value:g}")


def test_mask_without_a_used_pixel_is_refused(tmp_path):
    path = write(tmp_path / "a.fits", MASK=np.ones((NY, NX), dtype=np.uint8))
    refusal(path, "a.fits[MASK]", "leave some pixel to use", "discards all 744", "inverted?")


def test_nan_in_a_mask_is_refused(tmp_path):
    plane = np.zeros((NY, NX), dtype=np.float32)
    plane[6, 1] = np.nan
    refusal(write(tmp_path / "a.fits", MASK=plane), "a.fits[MASK]", "pixel [6, 1] ([y, x], from 0) is NaN")


def test_mask_in_memory_must_be_boolean():
    with pytest.raises(ObservationError, match=r"Observation.mask: .* True = used, but its type is int64.*plane == 0"):
        Observation(**arrays() | {"mask": np.ones((NY, NX), dtype=int)}, pixel_scale=0.05)


def test_inverted_mask_warns(tmp_path):
    good = arrays()
    path = write(tmp_path / "a.fits", MASK=(good["image"] > 0.03).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"a.fits\[MASK\]: the mask discards (\d+) of the \d+ pixels .*inverted\?"):
        Observation.from_fits(path)


# The PSF


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (4, 4)])
def test_even_psf_is_refused(tmp_path, shape):
    path = write(tmp_path / "a.fits", PSF=np.ones(shape))
    refusal(path, "a.fits[PSF]", "odd number of pixels along both axes", f"{shape[0]} x {shape[1]}", "Resample")


@pytest.mark.parametrize("shape", [(25, 5), (5, 33), (25, 33)])
def test_psf_larger_than_the_image_is_refused(tmp_path, shape):
    path = write(tmp_path / "a.fits", PSF=gaussian_psf(*shape))
    refusal(path, "a.fits[PSF]", "not be larger", f"{shape[0]} x {shape[1]}", "is 24 x 31", "Cut the PSF")


@pytest.mark.parametrize(
    ("psf", "rule"),
    [
        (np.zeros((5, 5)), "sum of the PSF must be positive, but it is 0"),
        (-gaussian_psf(5, 5), "sum of the PSF must be positive, but it is -1"),
        (
            with_value("psf", np.nan, (1, 2)),
            "PSF must be finite in every pixel, but pixel [1, 2] ([y, x], from 0) has nan",
        ),
        (with_value("psf", np.inf, (1, 2)), "has inf"),
    ],
)
def test_psf_without_sense_is_refused(tmp_path, psf, rule):
    refusal(write(tmp_path / "a.fits", PSF=psf), "a.fits[PSF]", rule)


@pytest.mark.parametrize("total", [0.98, 1.0011, 250.0])
def test_psf_is_normalised_with_a_warning(tmp_path, total):
    path = write(tmp_path / "a.fits", PSF=total * gaussian_psf(7, 5))
    with pytest.warns(UserWarning, match=rf"a.fits\[PSF\]: the sum of the PSF is {total:g}, not 1; it is normalised"):
        observation = Observation.from_fits(path)
    np.testing.assert_allclose(observation.psf, gaussian_psf(7, 5), rtol=1e-14)


@pytest.mark.parametrize("total", [0.9991, 1.0009])
def test_psf_within_tolerance_is_normalised_silently(total):
    observation = Observation(**arrays() | {"psf": total * gaussian_psf(7, 5)}, pixel_scale=0.05)
    assert observation.psf.sum() == pytest.approx(1, abs=1e-15)


def test_normalising_again_changes_no_bit():
    rng = np.random.default_rng(3)
    for _ in range(50):
        once = Observation(
            **arrays() | {"psf": gaussian_psf(7, 5) * rng.uniform(0.9995, 1.0005, (7, 5))}, pixel_scale=1
        )
        twice = Observation(**arrays() | {"psf": once.psf}, pixel_scale=1)
        np.testing.assert_array_equal(twice.psf, once.psf)


def test_psf_with_its_peak_off_centre_warns():
    given = arrays() | {"psf": np.roll(gaussian_psf(7, 5), 2, axis=0)}
    with pytest.warns(UserWarning, match=r"Observation.psf: the peak of the PSF, pixel \[5, 2\].* the middle \[3, 2\]"):
        Observation(**given, pixel_scale=0.05)
    Observation(**given | {"psf": np.roll(gaussian_psf(7, 5), 1, axis=0)}, pixel_scale=0.05)  # one pixel: no warning


def test_negative_psf_warns_beyond_one_percent():
    def given(corner: float) -> dict[str, np.ndarray]:
        psf = with_value("psf", corner * gaussian_psf(7, 5).max(), (0, 0))
        return arrays() | {"psf": psf / psf.sum()}

    with pytest.warns(UserWarning, match=r"Observation.psf: the PSF falls to -0.02 of its peak.*over-subtracted"):
        Observation(**given(-0.02), pixel_scale=0.05)
    Observation(**given(-0.005), pixel_scale=0.05)


@pytest.mark.parametrize("psf", [np.ones((1, 1)), np.full((3, 3), 1 / 9), np.full((1, 5), 0.2)])
def test_small_and_flat_psfs_are_fine(psf):
    np.testing.assert_array_equal(Observation(**arrays() | {"psf": psf}, pixel_scale=0.05).psf, psf)


# Out and in again


def test_round_trip_is_exact(tmp_path):
    given = arrays()
    given["psf"] = 0.9995 * gaussian_psf(7, 5)
    metadata = {"OBJECT": "J1", "THETA_E": 1.04, "ZLENS": 0.28, "BLIND": True, "RINGS": 2, "LENS_SURVEY": "SLACS"}
    wcs = celestial(ROTATED)
    first = Observation(**given, pixel_scale=0.1 / 3, wcs=wcs, name="J1", metadata=metadata)
    first.to_fits(tmp_path / "a.fits")
    second = Observation.from_fits(tmp_path / "a.fits", pixel_scale=0.1 / 3)
    for role in ("image", "noise", "psf", "mask"):
        np.testing.assert_array_equal(getattr(second, role), getattr(first, role))
    assert (second.name, second.metadata) == (first.name, first.metadata)
    sky, again = (o.wcs.pixel_to_world([0, 30, 5], [0, 23, 20]) for o in (first, second))
    assert sky.separation(again).arcsec.max() < 1e-6

    first.with_mask(given["mask"]).to_fits(tmp_path / "b.fits")
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_round_trip_of_the_scale(tmp_path):
    Observation(**arrays(), pixel_scale=0.1 / 3).to_fits(tmp_path / "a.fits")
    assert Observation.from_fits(tmp_path / "a.fits").pixel_scale == 0.1 / 3


def test_single_precision_data_stay_small_on_disk(tmp_path):
    given = arrays()
    given["image"] = given["image"].astype(np.float32)
    Observation(**given, pixel_scale=0.05).to_fits(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [hdus[name].header["BITPIX"] for name in ("SCI", "ERR", "PSF", "MASK")] == [-32, -64, -64, 8]


def test_nothing_is_overwritten_unasked(tmp_path):
    observation = Observation(**arrays(), pixel_scale=0.05)
    path = tmp_path / "a.fits"
    path.write_text("precious")
    with pytest.raises(ObservationError, match=r"a.fits: the file exists and is not overwritten.*overwrite=True"):
        observation.to_fits(path)
    assert path.read_text() == "precious"
    observation.to_fits(path, overwrite=True)
    np.testing.assert_array_equal(Observation.from_fits(path).image, observation.image)


def test_failed_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    observation = Observation(**arrays(), pixel_scale=0.05)
    path = tmp_path / "a.fits"
    path.write_text("precious")

    def disk_full(self, name, **options):
        Path(name).write_text("half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr(tflens.fits_io.fits.HDUList, "writeto", disk_full)
    with pytest.raises(ObservationError, match=r"a.fits: the file cannot be written \(No space left on device\)"):
        observation.to_fits(path, overwrite=True)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_into_no_directory(tmp_path):
    with pytest.raises(ObservationError, match=r"cannot be written .*directory exists"):
        Observation(**arrays(), pixel_scale=0.05).to_fits(tmp_path / "none" / "a.fits")


@pytest.mark.parametrize("metadata", [{"ZLENS": np.nan}, {"COLOURS": [1, 2]}, {"OBJECT": "λ"}])
def test_metadata_that_fit_no_header(tmp_path, metadata):
    observation = Observation(**arrays(), pixel_scale=0.05, metadata=metadata)
    with pytest.raises(ObservationError, match=r"a.fits: the metadata must fit into a FITS header"):
        observation.to_fits(tmp_path / "a.fits")
    assert list(tmp_path.iterdir()) == []


# Real data


@pytest.mark.parametrize(
    ("file", "shape", "scale", "theta_E", "bad"),
    [
        ("SLACSJ0252+0039", (201, 201), 0.05, 1.04, 1),
        ("SLACSJ0728+3835", (201, 201), 0.05, 1.25, 0),
        ("SL2SJ0219-0829_F475X", (130, 130), 0.04, 1.30, 0),
        ("SL2SJ0219-0829_F600LP", (130, 130), 0.04, 1.30, 0),
        ("EuclidQ1_102018665_NEG570040238507752998", (101, 101), 0.10, 0.815, 57),
    ],
)
def test_real_lenses(shared_data, tmp_path, file, shape, scale, theta_E, bad):
    observation = Observation.from_fits(shared_data / "lenses" / f"{file}.fits")
    assert observation.name == file
    assert observation.image.shape == shape
    assert observation.pixel_scale == scale
    assert observation.metadata["THETA_E"] == theta_E
    assert np.count_nonzero(~observation.mask) == bad
    assert observation.psf.sum() == pytest.approx(1, abs=1e-14)
    # The lens is the brightest thing in the middle, far above the noise; at the border little is left of it.
    middle = tuple(slice(n // 2 - 3, n // 2 + 4) for n in shape)
    assert observation.signal_to_noise[middle].max() > 15
    assert abs(np.median(observation.signal_to_noise[:8])) < 3

    observation.to_fits(tmp_path / "again.fits")
    again = Observation.from_fits(tmp_path / "again.fits")
    for role in ("image", "noise", "psf", "mask"):
        np.testing.assert_array_equal(getattr(again, role), getattr(observation, role))
    assert again.metadata == observation.metadata


def test_import_stays_light():
    code = "import sys, tflens.observation; sys.exit('tensorflow' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
