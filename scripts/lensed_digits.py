"""Digits behind lenses: the mocks that `demo_mnist.py` shows and `calibrate_mnist.py` counts, and their fits.

The truth of a system follows from `(seed, index)` alone: a digit that no part of the model was trained on, and
parameters drawn from the prior of the fit. It is ray-shot with 8 x 8 samples a pixel in float64; nothing of the fit's
networks takes part.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from tflens.datasets.mnist import PIXEL_SCALE, load_digits
from tflens.datasets.pipeline import hst_psf
from tflens.galaxies import NeuralSource
from tflens.galaxies.digit_reader import DigitReader
from tflens.grid import PixelGrid
from tflens.inference.mock_lenses import lens_model
from tflens.inference.mocks import Mock, Survey
from tflens.inference.pipeline import Fit, Fitter
from tflens.inference.posterior import Row
from tflens.inference.progress import Monitor, unwatched
from tflens.inference.settings import FitSettings
from tflens.light import Pixelated

GRID = PixelGrid((72, 80), 0.08)


@dataclass(frozen=True)
class System(Mock):
    """A lensed digit: `Mock`, and which digit it is."""

    label: int


@dataclass(frozen=True)
class Reading:
    """What the classifier reads in a fit: probabilities `[10]` of the digits, averaged over draws of the posterior,
    and the mean of the reconstructed stamps, `[n, n]`."""

    probabilities: np.ndarray
    stamp: np.ndarray

    @property
    def digit(self) -> int:
        return int(self.probabilities.argmax())


def draw_system(seed: int, index: int) -> System:
    """System `index` of the sample `seed`; each has a digit of its own."""
    stamps, labels = _held_out()
    chosen = np.random.default_rng(seed).permutation(len(stamps))[index]
    name = f"digit {labels[chosen]}, system {index} of seed {seed}"
    model = lens_model(Pixelated(PIXEL_SCALE))
    mock = Survey(GRID, hst_psf(GRID.pixel_scale)).draw(model, stamps[chosen], [seed, index], name)
    return System(**vars(mock), label=int(labels[chosen]))


# With half of the usual effort, which is enough for the lens and to read the digit.
SETTINGS = FitSettings(starts=24, survivors=4, warmup=80, draws=100)


def fit_blind(system: System, seed: int = 0, monitor: Monitor = unwatched) -> tuple[Fit, list[str]]:
    """The fit of a system, and what it warned of."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        result = fitter().fit(system.observation, monitor, seed)
    return result, [str(warning.message) for warning in heard if warning.category is UserWarning]


def read(fit: Fit, reader: DigitReader, draws: int = 256) -> Reading:
    """Reads the reconstructed source in draws that are spread evenly over the chains."""
    u = fit.posterior.data.posterior["u"].to_numpy()
    u = u.reshape(-1, u.shape[-1])[:: max(1, u.shape[0] * u.shape[1] // draws)]
    stamps = fit.model.source_images(tf.constant(u))[0].numpy()
    return Reading(reader.read(stamps).numpy().mean(0), stamps.mean(0))


def compare(system: System, fit: Fit, reading: Reading) -> dict[str, Any]:
    """Truth and fit of one system in plain values."""
    rows: dict[str, Row] = {row.name: row for row in fit.posterior.table()}
    theta_E, truth = rows["lens.theta_E"], system.parameters["lens.theta_E"]
    deviation = float(fit.posterior.draws("lens.theta_E").std())
    diagnostics = fit.diagnostics()
    return {
        "label": system.label,
        "read": reading.digit,
        "probability": float(reading.probabilities[reading.digit]),
        "probability_of_truth": float(reading.probabilities[system.label]),
        "theta_E_truth": truth,
        "theta_E": theta_E.median,
        "theta_E_error": theta_E.median / truth - 1,
        "theta_E_z": (theta_E.median - truth) / deviation,
        "inside_68": bool(theta_E.low <= truth <= theta_E.high),
        "inside_95": bool(theta_E.low95 <= truth <= theta_E.high95),
        "r_hat": theta_E.r_hat,
        **{
            name: diagnostics[name]
            for name in ("max_r_hat", "min_ess", "chi2", "chi2_arcs", "arc_pixels", "starts_agreeing", "latent_norm")
        },
        "peak_snr": float((system.arcs / system.observation.noise).max()),
        "arcs_snr": float(np.sqrt(((system.arcs / system.observation.noise) ** 2).sum())),
        "magnification": system.magnification,
        "truth": system.parameters,
        "medians": {name: rows[name].median for name in system.parameters},
        "seconds": sum(fit.seconds.values()),
    }


@cache
def _held_out() -> tuple[np.ndarray, np.ndarray]:
    return load_digits("test")


@cache
def fitter() -> Fitter:
    """Of all systems: their images are alike, so what one fit has compiled serves the next."""
    return Fitter(lens_model(NeuralSource("mnist")), SETTINGS, crop=False)
