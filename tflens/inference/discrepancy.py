"""What the source's network cannot draw: a random field beside it, marginalised in closed form.

Real galaxies have knots and arms that a decoder smooths away. Left alone, the lens bends to make up for them, and its
errors are too small. So the source is taken for what the network draws plus a Gaussian random field of its own, whose
standard deviation follows the brightness (Kennedy & O'Hagan 2001, J. R. Stat. Soc. B 63, 425, on the discrepancy of
models). Seen through the lens of the optimum, the field is a set of correlated patterns in the image, the same in all
images of one spot; to the likelihood they are more noise, of known covariance (`LensTarget.forgive`). How strong the
field is, and how smooth, the data say: what maximises the evidence, in Laplace's approximation, nothing at all if the
network can draw the galaxy.

Approximate are: the lens through which the field is seen stays that of the optimum; and of the field's patterns in the
source only the strongest `MODES` count. All of these are forgiven: what the evidence takes for part of a field and the
likelihood does not, the latents strain to explain, in several ways that no chain connects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import linalg, ndimage

from tflens.galaxies import NeuralSource
from tflens.inference.optimize import linearized
from tflens.model import LensModel, LensTarget

MODES = 192
"""Patterns of the field that are marginalised, the strongest of its covariance."""

_LENGTHS = (1.0, 2.0)  # of its correlation, stamp pixels
_STRENGTHS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 1.0)
_SMOOTHING = 1.5  # of the brightness that it follows, stamp pixels
_FLOOR, _EDGE = 0.02, 0.04  # of the brightest pixel: what it is where there is no light, and where it ends
_LEAST_GAIN = 1.0  # of the log evidence: a field that explains no more is not worth having


@dataclass(frozen=True)
class Discrepancy:
    """A random field beside a source, as it was found at an optimum.

    Attributes:
        strength: its standard deviation relative to the brightness of the source.
        length: of its correlation, in pixels of the source's stamp.
        gain: of the log evidence over a source without it.
        stamps: `[n, ny, nx]`, patterns of unit-normal coefficients in the source, counts/s per stamp pixel.
        images: `[n, ny, nx]`, the same through the lens, counts/s per pixel.
        white: `[n, pixels]`, whitened.
    """

    strength: float
    length: float
    gain: float
    stamps: NDArray[np.floating]
    images: NDArray[np.floating]
    white: NDArray[np.floating]

    @property
    def modes(self) -> NDArray[np.floating]:
        """What `LensTarget.forgive` takes: `[n, pixels]`."""
        variance, vectors = np.linalg.eigh(self.white @ self.white.T)
        kept = variance > 1e-6 * variance[-1]
        patterns = (vectors[:, kept] / np.sqrt(variance[kept])).T @ self.white
        return np.sqrt(1 - 1 / np.sqrt(1 + variance[kept]))[:, None] * patterns

    def coefficients(
        self, residual: NDArray[np.floating], rng: np.random.Generator | None = None
    ) -> NDArray[np.floating]:
        """Coefficients of the patterns `[..., n]` given whitened residuals `[..., pixels]` of all else: their mean, or,
        with a generator, a draw."""
        precision = np.eye(len(self.white)) + self.white @ self.white.T
        mean = linalg.solve(precision, self.white @ np.moveaxis(np.atleast_2d(residual), -1, 0), assume_a="pos").T
        if rng is not None:
            factor = np.linalg.cholesky(precision)
            mean = mean + linalg.solve_triangular(factor.T, rng.standard_normal(mean.shape[::-1]), lower=False).T
        return mean.reshape(*residual.shape[:-1], -1)


def applies_to(model: LensModel) -> bool:
    """Whether a model's only source is drawn by a network, and may need a field beside it."""
    return len(model.sources) == 1 and isinstance(model.sources[0], NeuralSource)


def find_discrepancy(target: LensTarget, u: NDArray[np.floating]) -> Discrepancy | None:
    """The field of largest evidence at an optimum `[dim]`; None if there had better be none.

    Args:
        target: with `MODES` modes; what it forgives is reset.
        u: the optimum.
    """
    target.forgive(None)
    point = tf.constant(u)
    near = target.program(linearized)(point)
    residual, jacobian = (each.numpy().astype(np.float64) for each in near.image)
    amplitude = float(near.amplitudes[target.model.source_amplitudes[0]])
    if not amplitude > 0:
        return None
    stamp = target.model.source_images(point[None])[0].numpy()[0].astype(np.float64)
    unfitted = residual - jacobian.T @ u
    without = _log_evidence(unfitted, jacobian)
    best: Discrepancy | None = None
    for length in _LENGTHS:
        patterns = _patterns(stamp, length)
        images = amplitude * seen_through(target, u, patterns)
        white = target.whitened(images).astype(np.float64)
        for strength in _STRENGTHS:
            gain = _log_evidence(unfitted, np.concatenate([jacobian, strength * white])) - without
            if gain > max(_LEAST_GAIN, best.gain if best else 0.0):
                scaled = (strength * each for each in (amplitude * patterns, images, white))
                best = Discrepancy(strength, length, float(gain), *scaled)
    return best


def seen_through(target: LensTarget, u: NDArray[np.floating], patterns: NDArray[np.floating]) -> NDArray[np.floating]:
    """Images `[n, ny, nx]` of small changes `[n, ny, nx]` of the source's pixels, through the lens at one point
    `[dim]`, for a source of unit amplitude."""
    see = target.program(LensTarget.respond)
    at_once = target.model.latent_dim
    pieces: Sequence[NDArray[np.floating]] = np.split(patterns, range(at_once, len(patterns), at_once))
    padded = [np.pad(piece, ((0, at_once - len(piece)), (0, 0), (0, 0))).astype(u.dtype) for piece in pieces]
    found = np.concatenate([see(tf.constant(u), tf.constant(piece)).numpy() for piece in padded])
    return found[: len(patterns)].astype(np.float64)


class _Places(NamedTuple):
    """Pixels of a stamp that have light."""

    row: NDArray[np.integer]
    column: NDArray[np.integer]


def _patterns(stamp: NDArray[np.floating], length: float) -> NDArray[np.floating]:
    """The field's strongest patterns `[n, ny, nx]`, each times its standard deviation."""
    brightness = ndimage.gaussian_filter(stamp, _SMOOTHING)
    brightness = brightness + _FLOOR * brightness.max()
    places = _Places(*np.nonzero(brightness > _EDGE * brightness.max()))
    width = brightness[places]
    square = sum((axis[:, None] - axis) ** 2 for axis in places)
    covariance = width[:, None] * width * np.exp(-square / (2 * length**2))
    first = max(0, len(width) - MODES)
    variance, vectors = linalg.eigh(covariance, subset_by_index=(first, len(width) - 1))
    patterns = np.zeros((len(variance), *stamp.shape))
    patterns[:, places.row, places.column] = (vectors * np.sqrt(np.maximum(variance, 0))).T
    return patterns


def _log_evidence(unfitted: NDArray[np.floating], patterns: NDArray[np.floating]) -> float:
    """Log density of an image `[pixels]` of unit noise and of patterns `[n, pixels]` with unit-normal coefficients."""
    precision = np.eye(len(patterns)) + patterns @ patterns.T
    factor = np.linalg.cholesky(precision)
    explained = linalg.solve_triangular(factor, patterns @ unfitted, lower=True)
    return float(-0.5 * (unfitted @ unfitted - explained @ explained) - np.log(np.diag(factor)).sum())
