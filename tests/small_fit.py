"""A small synthetic lens and one tiny fit of it, shared by the tests of the faces."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.config import Input, RunConfig
from tflens.grid import PixelGrid
from tflens.inference.pipeline import Fit
from tflens.inference.progress import Status
from tflens.lens_layer import LensLayer
from tflens.light import Sersic
from tflens.mass import EPL, Shear
from tflens.observation import Observation
from tflens.run import execute, prepare

SETTINGS = {
    "seed": 5,
    "starts": 4,
    "search_steps": 24,
    "survivors": 2,
    "polish_steps": 8,
    "chains": 2,
    "warmup": 40,
    "draws": 30,
    "rounds": 1,
}
THETA_E = 1.0
BAD = (slice(2, 5), slice(30, 34))  # a block of bad pixels inside the frame of the fit


class SmallFit(NamedTuple):
    """A fit, its input file, its output folder, and what its monitor heard."""

    fit: Fit
    file: Path
    folder: Path
    heard: list[Status]


@functools.cache
def observation() -> Observation:
    """A lens on 40 x 46 pixels of 0.1 arcsec, with a block of bad pixels."""
    y, x = np.mgrid[-3:4, -4:5]
    psf = np.exp(-(x**2 + y**2) / 2)
    grid = PixelGrid((40, 46), 0.1)
    layer = LensLayer(grid, [EPL(), Shear()], [Sersic()], [Sersic()], psf=psf / psf.sum())
    round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
    values = {
        "mass": [
            {**round_center, "theta_E": THETA_E, "gamma": 2.0, "e1": 0.1},
            {"gamma1": 0.02, "gamma2": -0.03},
        ],
        "lens_light": [{**round_center, "amp": 20.0, "R_sersic": 0.5, "n_sersic": 2.0}],
        "source": [
            {**round_center, "amp": 40.0, "R_sersic": 0.15, "n_sersic": 1.0, "center_x": 0.08, "center_y": 0.05}
        ],
    }
    image = layer(tf.nest.map_structure(tf.constant, values)).numpy()
    noise = np.full(image.shape, 0.03)
    image = image + np.random.default_rng(3).normal(0, noise)
    mask = np.ones(image.shape, bool)
    mask[BAD] = False
    return Observation(image, noise, psf / psf.sum(), 0.1, mask=mask, name="small lens")


@functools.cache
def small_fit() -> SmallFit:
    """Fits `observation` with a Sersic source, through files; not converged, only complete."""
    parent = Path(tempfile.mkdtemp(prefix="tflens-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    file = parent / "small.fits"
    observation().to_fits(file)
    heard: list[Status] = []
    config = RunConfig(Input(str(file)), "sersic", SETTINGS)
    fit = execute(prepare(config, parent / "out"), monitor=heard.append)
    return SmallFit(fit, file, parent / "out", heard)
