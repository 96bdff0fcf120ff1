"""What the source's network cannot draw: a random field beside it, marginalised in closed form.

Real galaxies have knots and arms that a decoder smooths away. Left alone, the lens bends to make up for them, and its
errors are too small. So the source is taken for what the network draws plus a Gaussian random field of its own, whose
standard deviation follows the brightness (Kennedy & O'Hagan 2001, J. R. Stat. Soc. B 63, 425, on the discrepancy of
models). Seen through a lens, the field is a set of correlated patterns in the image, the same in all images of one
spot; to the likelihood they are more noise, of known covariance, and what the data expect of them is a part of the
source, which goes with the lens (`tflens.seen.Beside`). How strong the field is, and how smooth, the data say: what
maximises the evidence, in Laplace's approximation, nothing at all if the network can draw the galaxy.

Approximate are: the field is marginalised as each lens shows it to second order around one lens, that of the optimum;
its strength is the best one instead of being sampled; and of its patterns in the source only the strongest `MODES`
count. All of these are forgiven: what the evidence takes for part of a field and the likelihood does not, the latents
strain to explain, in several ways that no chain connects.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy import linalg, ndimage

from tflens.galaxies import NeuralSource
from tflens.inference.map import Optimum, polish
from tflens.inference.optimize import linearized
from tflens.inference.progress import Progress
from tflens.model import LensModel, LensTarget

MODES = 192
"""Patterns of the field that are marginalised, the strongest of its covariance."""

STAYS = 30.0
"""The largest variance in the image, in units of the noise's, with which a pattern stays as it was seen at first."""

_LENGTHS = (1.0, 2.0)  # of its correlation, stamp pixels
_STRENGTHS = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.65, 1.0)
_TINY = 1e-12  # a variance
_SMOOTHING = 1.5  # of the brightness that it follows, stamp pixels
_FLOOR, _EDGE = 0.02, 0.04  # of the brightest pixel: what it is where there is no light, and where it ends
_ROUNDS, _SETTLED = 3, 1.0  # at the most, and what one must gain of the log evidence for another to follow
_LEAST_GAIN = 1.0  # of the log evidence: a field that explains no more is not worth having


@dataclass(frozen=True)
class Discrepancy:
    """A random field beside a source, as it was found at an optimum.

    Attributes:
        strength: its standard deviation relative to the brightness of the source.
        length: of its correlation, in pixels of the source's stamp.
        log_evidence: of a source with it, in Laplace's approximation.
        gain: of the log evidence over a source without it.
        amplitude: of the source where it was found, counts/s.
        stamps: `[n, ny, nx]`, patterns of unit-normal coefficients in the source, counts/s per stamp pixel.
        images: `[n, ny, nx]`, the same through the lens, counts/s per pixel.
        white: `[n, pixels]`, whitened; they do not overlap.
        mean, slope, volume, point: how the field goes with the lens, see `tflens.seen.Forgiven`.
        most: the largest variance in the image, in units of the noise's, with which a pattern stays.
    """

    strength: float
    length: float
    log_evidence: float
    gain: float
    amplitude: float
    stamps: NDArray[np.floating]
    images: NDArray[np.floating]
    white: NDArray[np.floating]
    mean: NDArray[np.floating]
    slope: NDArray[np.floating]
    volume: NDArray[np.floating]
    point: NDArray[np.floating]
    most: float = np.inf

    def at_rest(self) -> "Discrepancy":
        """The same without what goes with the lens: all of it stays as it is seen now, and leaves the lens free."""
        nothing = {name: np.zeros_like(getattr(self, name)) for name in ("mean", "slope", "volume")}
        return replace(self, **nothing, most=np.inf)

    @property
    def variance(self) -> NDArray[np.floating]:
        """Of the patterns' images beside unit noise, `[n]`."""
        return np.sum(self.white**2, -1)

    @property
    def stays(self) -> NDArray[np.floating]:
        """Share of each pattern's variance that stays as the lens of the optimum shows it, `[n]`."""
        return np.minimum(1.0, self.most / np.maximum(self.variance, _TINY))

    @property
    def told(self) -> float:
        """Half of the number of coefficients that the data tell."""
        return float(np.sum(self.variance / (1 + self.variance)) / 2)

    @property
    def modes(self) -> NDArray[np.floating]:
        """What `LensTarget.forgive` takes: `[n, pixels]`."""
        kept = self.variance > 1e-6 * self.variance.max()
        variance = self.variance[kept]
        return np.sqrt((1 - 1 / np.sqrt(1 + self.stays[kept] * variance)) / variance)[:, None] * self.white[kept]

    def coefficients(
        self, residual: NDArray[np.floating], rng: np.random.Generator | None = None
    ) -> NDArray[np.floating]:
        """Coefficients of what stays of the patterns, `[..., n]`, given whitened residuals `[..., pixels]` of all else:
        their mean, or, with a generator, a draw."""
        variance = self.stays / (1 + self.stays * self.variance)
        mean = variance * (residual @ self.white.T)
        return mean if rng is None else mean + np.sqrt(variance) * rng.standard_normal(mean.shape)


def applies_to(model: LensModel) -> bool:
    """Whether a model's only source is drawn by a network, and may need a field beside it."""
    return len(model.sources) == 1 and isinstance(model.sources[0], NeuralSource)


def allow_for_discrepancy(target: LensTarget, optimum: Optimum, steps: int, progress: Progress) -> Optimum:
    """Finds the field beside a source together with the optimum that it belongs to; the target forgives it then.

    Without a field the lens has bent to make up for what the network cannot draw. So the first field that is found
    leaves it free; the next ones go with it, each sought from where the last one led, until the evidence grows no more.

    Args:
        target: with `MODES` modes; what it forgives is reset.
        optimum: without a field.
        steps: of Levenberg-Marquardt after each find.
        progress: told of them.
    """
    target.forgive(None)
    found = find_discrepancy(target, optimum.u[0])
    if found is None:
        return optimum
    target.forgive(found.at_rest())
    optimum = polish(target, optimum, steps, progress)
    evidence = -np.inf
    for _ in range(_ROUNDS):
        before, found = target.discrepancy, find_discrepancy(target, optimum.u[0])
        if found is None or found.log_evidence < evidence + _SETTLED:
            target.forgive(before)
            break
        target.forgive(found)
        optimum, evidence = polish(target, optimum, steps, progress), found.log_evidence
    return optimum


def find_discrepancy(target: LensTarget, u: NDArray[np.floating]) -> Discrepancy | None:
    """The field of largest evidence at an optimum `[dim]`; None if there had better be none.

    Args:
        target: with `MODES` modes; what it forgives is reset. A field that it has forgiven so far, and seen the source
            with, is where the new one is sought from.
        u: the optimum.
    """
    field = _field_at(target, u)
    target.forgive(None)
    unfitted, jacobian, residual, amplitude = _near(target, u)
    without = _log_evidence(unfitted, jacobian)
    if field is not None:
        target.forgive(_held(target, field))
        unfitted, jacobian, residual, amplitude = _near(target, u)
    if not amplitude > 0:
        target.forgive(None)
        return None
    if field is not None:
        # The field is held where the data have it, but expected to be nothing.
        seen = target.whitened(amplitude * seen_through(target, u, field[None])).astype(np.float64)[0]
        unfitted, residual = unfitted + seen, residual + seen
    stamp = target.model.source_images(tf.constant(u[None]))[0].numpy()[0].astype(np.float64)
    best: _Candidate | None = None
    for length in _LENGTHS:
        patterns = _patterns(stamp, length)
        images = amplitude * seen_through(target, u, patterns)
        white = target.whitened(images).astype(np.float64)
        for strength in _STRENGTHS:
            gain = float(_log_evidence(unfitted, np.concatenate([jacobian, strength * white])) - without)
            if gain > max(_LEAST_GAIN, best.gain if best else 0.0):
                best = _Candidate(gain, strength, length, amplitude * patterns, images, white)
    if best is None:
        target.forgive(None)
        return None
    gain, strength, length, *patterns = best
    turn = np.linalg.eigh(best.white @ best.white.T)[1].T
    stamps, images, white = (strength * np.tensordot(turn, each, 1) for each in patterns)
    expecting = white / (1 + np.sum(white**2, -1, keepdims=True))
    slope = -amplitude * seen_back(target, u, expecting)
    volume = -volume_slope(target, u, stamps, expecting)
    found = Discrepancy(
        strength=strength,
        length=length,
        log_evidence=without + gain,
        gain=gain,
        amplitude=amplitude,
        stamps=stamps,
        images=images,
        white=white,
        mean=expecting @ residual,
        slope=np.zeros_like(slope),
        volume=volume,
        point=u[: target.model.physical_dim],
    )
    # Where all of a field is forgiven, amplitudes are others than where it is held.
    target.forgive(found)
    mean, given = _expected_at(target, u)
    target.forgive(None)
    if not given > 0:
        return None
    slope = slope * given / amplitude
    return replace(found, amplitude=given, mean=mean - np.tensordot(slope, stamp, 2), slope=slope, most=STAYS)


def seen_through(target: LensTarget, u: NDArray[np.floating], patterns: NDArray[np.floating]) -> NDArray[np.floating]:
    """Images `[n, ny, nx]` of small changes `[n, ny, nx]` of the source's pixels, through the lens at one point
    `[dim]`, for a source of unit amplitude."""
    return np.concatenate(_in_pieces(target, LensTarget.respond, u, patterns))[: len(patterns)]


def seen_back(target: LensTarget, u: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """How weighted sums over the whitened image, `[n, pixels]`, change with the source's pixels, `[n, ny, nx]`: the
    transpose of `seen_through` and of the whitening."""
    return np.concatenate(_in_pieces(target, LensTarget.respond_back, u, weights))[: len(weights)]


def volume_slope(
    target: LensTarget, u: NDArray[np.floating], patterns: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.floating]:
    """How the sum over `seen_through` of patterns, whitened and weighted `[n, pixels]`, moves with the physical part of
    u, `[physical_dim]`."""
    return np.sum(_in_pieces(target, LensTarget.respond_volume, u, patterns, weights), 0)


def _in_pieces(
    target: LensTarget, method: Callable[..., Any], u: NDArray[np.floating], *rows: NDArray[np.floating]
) -> list[NDArray[np.floating]]:
    """What a method makes of rows, as many at once as it was compiled for, and of zeros after the last."""
    program, at_once = target.program(method), target.model.latent_dim
    found = []
    for first in range(0, len(rows[0]), at_once):
        some = [each[first : first + at_once] for each in rows]
        padded = [np.pad(each, ((0, at_once - len(each)), *[(0, 0)] * (each.ndim - 1))) for each in some]
        found.append(program(tf.constant(u), *(tf.constant(each, u.dtype) for each in padded)))
    return [each.numpy().astype(np.float64) for each in found]


class _Candidate(NamedTuple):
    """A field of unit strength, and what it would gain at another."""

    gain: float
    strength: float
    length: float
    stamps: NDArray[np.floating]
    images: NDArray[np.floating]
    white: NDArray[np.floating]


def _held(target: LensTarget, field: NDArray[np.floating]) -> Discrepancy:
    """A field `[ny, nx]` in a source of unit amplitude that is what it is: nothing of it is seen to be uncertain."""
    nothing, dim = np.zeros((1, *target.image.shape)), target.model.physical_dim
    return Discrepancy(
        strength=0.0,
        length=0.0,
        log_evidence=-np.inf,
        gain=0.0,
        amplitude=1.0,
        stamps=field[None],
        images=nothing,
        white=nothing.reshape(1, -1),
        mean=np.ones(1),
        slope=np.zeros_like(field[None]),
        volume=np.zeros(dim),
        point=np.zeros(dim),
    )


def _field_at(target: LensTarget, u: NDArray[np.floating]) -> NDArray[np.floating] | None:
    """What the data expect of the field that a target forgives at a point, in a source of unit amplitude."""
    if target.discrepancy is None:
        return None
    coefficients, amplitude = _expected_at(target, u)
    return np.tensordot(coefficients, target.discrepancy.stamps, 1) / amplitude if amplitude > 0 else None


def _expected_at(target: LensTarget, u: NDArray[np.floating]) -> tuple[NDArray[np.floating], float]:
    """What the data expect at a point of the coefficients of what a target forgives, and the source's amplitude."""
    point = tf.constant(u[None])
    amplitudes = target.linear(point).mean
    left = target.image - target.component_images(point, amplitudes).numpy()[0].sum(0)
    found = target.discrepancy.coefficients(target.white(left)) + target.moved(point, amplitudes)[0]
    return found, float(amplitudes[0, target.model.source_amplitudes[0]])


def _near(target: LensTarget, u: NDArray[np.floating]) -> tuple[NDArray, NDArray, NDArray, float]:
    """Whitened residuals `[pixels]` as they would be at u = 0 if the model were linear, their derivatives
    `[dim, pixels]` and themselves at a point; and the amplitude of the source there."""
    near = target.program(linearized)(tf.constant(u))
    residual, jacobian = (each.numpy().astype(np.float64) for each in near.image)
    # After the pixels comes the prior of what moves, which there is nothing of.
    residual, jacobian = residual[: target.image.size], jacobian[:, : target.image.size]
    amplitude = float(near.amplitudes[target.model.source_amplitudes[0]])
    return residual - jacobian.T @ u, jacobian, residual, amplitude


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
