"""Readers that are fed with damaged files, good files to damage, and the one rule: refuse by a `TflensError` or read.

`scripts/fuzz.py` finds its way through them for as many executions as it is given; `test_fuzz.py` does a few hundred.
"""

import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from sentence import SENTENCE

from tflens.config import Input, RunConfig
from tflens.errors import TflensError
from tflens.observation import Observation


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        seeds: makes good files.
        read: reads a file at a path as the package does.
        binary: whether its files are FITS, not text.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    binary: bool = False

    def __call__(self, content: bytes) -> bool:
        """Reads a file of this content: True if it is accepted, False if the package refuses it.

        Raises:
            Exception: any other, as it came: a finding.
        """
        path = _file_of(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.read(path)
            except TflensError:
                return False
        return True


@cache
def fits_files() -> list[bytes]:
    """One that has all there can be; one that is bare; a tile-compressed one; one of scaled integers with BLANK."""
    rng = np.random.default_rng(0)
    image, psf = rng.normal(size=(5, 7)), np.outer([1, 2, 1], [1, 2, 1]) / 16
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), (-1e-5, 1e-5), (150.0, 2.0)
    whole = Observation(
        image, np.ones((5, 7)), psf, 0.05, np.arange(35).reshape(5, 7) > 3, wcs, "toy", {"FILTER": "F814W"}, {},
        np.array([[0.2, 1.0, 0.2]]),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.fits"
        whole.to_fits(path)
        contents = [path.read_bytes()]
    scale = fits.Header({"PIXSCALE": 0.1})
    others = [np.full((5, 7), 0.5, np.float32), psf]
    for first in (
        [fits.PrimaryHDU(image.astype(np.float32), scale)],
        [fits.PrimaryHDU(), fits.CompImageHDU((100 * image).astype(np.int16), scale, "SCI")],
        [fits.PrimaryHDU(), fits.ImageHDU((100 * image).astype(np.int16), scale, "SCI")],
    ):
        first[-1].header["BLANK" if first[-1].header["BITPIX"] == 16 else "BUNIT"] = 0
        file = io.BytesIO()
        named = [fits.ImageHDU(data, name=name) for data, name in zip(others, ("ERR", "PSF"), strict=True)]
        fits.HDUList([*first, *named]).writeto(file)
        contents.append(file.getvalue())
    return contents


@cache
def configurations() -> list[bytes]:
    """A short `config.json`, and one with everything in it."""
    tables = {"source": {"profile": "Sersic"}, "priors": {"lens.gamma": 2.0}}
    rows = [[0.2, 1.0, 0.2]]
    full = Input("no.fits", "1", "2", "3", None, "n.fits[ERR]", "p.fits", None, 0.05, {"file": "0" * 64}, rows, 0.9)
    shared = {"center": [0.0, 0.02], "refine": ["1 2", "2 1"]}
    settings = {"seed": 1, "starts": 8, "sampler": "hmc"}
    recorded = {"model": {"sky": True}, "versions": {"tflens": "0.1"}, "commit": None}
    configs = [
        RunConfig(Input("no.fits"), "sersic", {"seed": 3}),
        RunConfig(full, "neural", settings, recorded, tables, shared),
    ]
    return [json.dumps(config.as_dict()).encode() for config in configs]


MODELS = [
    SENTENCE.encode(),
    b"""dtype = "float64"
psf_error = true
lens = [{ profile = "SIE" }]
lens_light = []
source = [{ profile = "Shapelets", n_max = 2 }, { profile = "Exponential" }]
priors = { "lens.theta_E" = { bounded_normal = [0.1, 3.0, 1.0, 0.3] }, "psf.e2" = 0.0 }
""",
]


def _read_config(path: Path) -> None:
    """As `tflens fit --config` does before it loads TensorFlow; no FITS file is there."""
    RunConfig.load(path).input.read()


def _read_model(path: Path) -> None:
    from tflens.model_file import read_model  # TensorFlow, which the others do without

    read_model(path)


TARGETS = {
    "fits": Target(fits_files, Observation.from_fits, binary=True),
    "config": Target(configurations, _read_config),
    "model": Target(lambda: MODELS, _read_model),
}


def _file_of(content: bytes) -> Path:
    """A file in memory where the system has such; it is the same one each time."""
    handle, path = _memory()
    os.ftruncate(handle, 0)
    os.pwrite(handle, content, 0)
    return path


@cache
def _memory() -> tuple[int, Path]:
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("fuzz")
        return handle, Path(f"/proc/self/fd/{handle}")
    handle, name = tempfile.mkstemp()
    return handle, Path(name)
