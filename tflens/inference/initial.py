"""What an image tells before any lens is fitted: where the lens is, how large its arcs are, and which pixels to use.

Nothing here is a measurement. It narrows the places where optimisation starts; every prior stays as wide as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tflens.inference.optimize import LMState, levenberg_marquardt_step, start_levenberg_marquardt
from tflens.light import Exponential, LightProfile, Sersic
from tflens.model import Frame, LensModel, LensTarget
from tflens.observation import Observation
from tflens.parameters import PriorFactory, normal

_ROUNDS, _STEPS = 4, 8
_LIGHTS = ("light1", "light2")
_LIGHT_ERROR = 0.05  # what two smooth profiles are trusted to describe of a real galaxy: the rest is no arc
_OUTLIER = 3.0  # residuals above this many sigma belong to something else than the lens light


@dataclass(frozen=True)
class Glance:
    """A first look at an image.

    Attributes:
        center: position (x, y) of the lens's light, arcsec.
        radii, weights: radii (arcsec), and how much light that the lens does not explain stands out there.
        mask: pixels for the fit, `[ny, nx]` of the whole image: a disc around the lens without unrelated neighbours.
        frame: rows and columns that hold the disc and a margin for the PSF.
        light: parameters of the `bulge_and_disc` found on the way, by full name (`light1.R_sersic`).
        excess: the image minus the smooth lens light, in units of the noise and a 5 % error of that light,
            `[ny, nx]` of the whole image.
    """

    center: tuple[float, float]
    radii: np.ndarray
    weights: np.ndarray
    mask: np.ndarray
    frame: Frame
    light: dict[str, float]
    excess: np.ndarray

    @property
    def arc_radius(self) -> float:
        """The radius where the excess light is most extended, arcsec."""
        return float(self.radii[np.argmax(self.weights)])


def glance(observation: Observation, target: LensTarget | None = None) -> Glance:
    """Finds the lens, subtracts a smooth model of its light, and looks for arcs in what is left.

    The light is a `bulge_and_disc` fitted with arcs and neighbours progressively masked as positive outliers.

    Args:
        observation: the image.
        target: from `light_target` for an observation of the same shape and PSF, which then is not compiled again.
    """
    center = find_center(observation)
    light, excess = _fit_light(observation, center, target or light_target(observation))
    radii, weights = arc_profile(observation, center, excess)
    mask = _fit_mask(observation, center, float(radii[np.argmax(weights)]), excess)
    return Glance(center, radii, weights, mask, _bounding_frame(observation, mask), light, excess)


def find_center(observation: Observation) -> tuple[float, float]:
    """The centroid of the brightest place near the middle of the image, arcsec.

    The place is the peak after smoothing, weighted to the middle; the centroid is over the 5 x 5 pixels around it.
    """
    smooth = np.maximum(ndimage.gaussian_filter(np.where(observation.mask, observation.image, 0.0), 1.5), 0)
    x, y = observation.grid.coordinates()
    width = min(observation.grid.shape) * observation.grid.pixel_scale / 6
    weighted = smooth * np.exp(-(x**2 + y**2) / (2 * width**2)) * observation.mask
    row, column = np.unravel_index(np.argmax(weighted), weighted.shape)
    # The weight has moved the peak towards the middle: climb back to where the light itself peaks.
    for _ in range(3):
        rows, columns = slice(max(0, row - 2), row + 3), slice(max(0, column - 2), column + 3)
        peak = np.unravel_index(np.argmax(smooth[rows, columns]), smooth[rows, columns].shape)
        row, column = rows.start + peak[0], columns.start + peak[1]
    rows, columns = slice(max(0, row - 2), row + 3), slice(max(0, column - 2), column + 3)
    core = smooth[rows, columns]
    core = core - core.min()
    if core.sum() <= 0:
        return float(x[0, column]), float(y[row, 0])
    return float((core * x[:, columns]).sum() / core.sum()), float((core * y[rows]).sum() / core.sum())


def arc_profile(
    observation: Observation, center: tuple[float, float], excess: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How much excess light there is at each radius: the length of arc on which it is significant.

    Counting pixels, not their brightness, lets no bright knot or core decide.

    Returns:
        Radii, arcsec, and weights that sum to one.
    """
    radius = _radius(observation, center)
    significant = smooth_noise(excess, observation.noise_correlation) > _OUTLIER
    step = observation.grid.pixel_scale
    inner, outer = 3 * step, min(observation.grid.shape) * step / 2
    edges = np.arange(inner, max(outer, inner + 4 * step), 2 * step)
    covered = np.zeros(len(edges))
    for i, edge in enumerate(edges):
        ring = (radius >= edge) & (radius < edge + 2 * step) & observation.mask
        covered[i] = significant[ring].mean() if ring.any() else 0.0
    weight = ndimage.gaussian_filter1d(covered * (edges + step), 1.0)
    if weight.max() <= 0:
        weight = np.ones_like(edges)
    return edges + step, weight / weight.sum()


def centered_priors(labels: Iterable[str], center: tuple[float, float], width: float) -> dict[str, PriorFactory]:
    """Normal priors that place components at `center`, with a standard deviation of `width` arcsec in x and y."""
    axes = list(zip("xy", center, strict=True))
    return {f"{label}.center_{axis}": normal(value, width) for label in labels for axis, value in axes}


def bulge_and_disc(center: tuple[float, float], width: float) -> tuple[list[LightProfile], dict[str, Any]]:
    """The lens's light, a Sersic profile and an exponential disc of one centre, and its priors.

    Two Sersic profiles with everything free would fit no better where one of them is enough, as is common, and could
    then change places, or fade and take any shape: chains do not get around in such a posterior.

    Args:
        center: (x, y), arcsec.
        width: one standard deviation of the prior on the centre, arcsec.
    """
    bulge, disc = _LIGHTS
    same_place = {f"{disc}.center_{axis}": f"{bulge}.center_{axis}" for axis in "xy"}
    return [Sersic(), Exponential()], centered_priors([bulge], center, width) | same_place


def light_target(observation: Observation) -> LensTarget:
    """A `bulge_and_disc` anywhere near the middle of the image: what `glance` fits the lens's light with."""
    width = min(observation.grid.shape) * observation.grid.pixel_scale / 6
    profiles, priors = bulge_and_disc((0.0, 0.0), width)
    return LensTarget(LensModel(lens=[], lens_light=profiles, priors=priors), observation)


def _fit_light(
    observation: Observation, center: tuple[float, float], target: LensTarget
) -> tuple[dict[str, float], np.ndarray]:
    model, descend = target.model, target.program(_descend)
    target.observe(observation)
    at_center = {f"{_LIGHTS[0]}.center_{axis}": x for axis, x in zip("xy", center, strict=True)}
    u = model.base(at_center)[None].astype(model.dtype)
    core = _radius(observation, center) < _psf_fwhm(observation)
    mask = observation.mask
    for _ in range(_ROUNDS):
        target.use(mask)
        u = descend(start_levenberg_marquardt(tf.constant(u))).u
        light = target.component_images(u, target.linear(u).mean).numpy()[0].sum(0)
        tolerance = np.hypot(observation.noise, _LIGHT_ERROR * np.maximum(light, 0))
        excess = np.where(observation.mask, (observation.image - light) / tolerance, 0.0)
        # The core stays in, or the profile would lose what it is anchored to.
        outliers = smooth_noise(excess, observation.noise_correlation) > _OUTLIER
        mask = observation.mask & (core | ~ndimage.binary_dilation(outliers))
    values = {name: float(value[0]) for name, value in model.physical(u).items()}
    return values, excess


def _descend(target: LensTarget, state: LMState) -> LMState:
    body = lambda i, state: (i + 1, levenberg_marquardt_step(target, state))  # noqa: E731
    return tf.while_loop(lambda i, _: i < _STEPS, body, (tf.constant(0), state))[1]


def smooth_noise(excess: np.ndarray, correlation: np.ndarray | None = None) -> np.ndarray:
    """Smooths a map `[ny, nx]` of unit noise over about two pixels, keeping its noise at unity.

    Args:
        excess: the map.
        correlation: of its noise, `[ky, kx]`, see `Observation`; None for white noise.
    """
    smooth = ndimage.gaussian_filter(excess, 1.0) * 2 * np.sqrt(np.pi)
    if correlation is None:
        return smooth
    ky, kx = correlation.shape
    y, x = np.arange(ky)[:, None] - ky // 2, np.arange(kx) - kx // 2
    return smooth / np.sqrt(np.sum(correlation * np.exp(-(x**2 + y**2) / 4)))


def _fit_mask(observation: Observation, center: tuple[float, float], arc: float, excess: np.ndarray) -> np.ndarray:
    radius = _radius(observation, center)
    disc = radius < 1.7 * arc + 0.4
    smooth = smooth_noise(excess, observation.noise_correlation)
    # Rising thresholds part a bright neighbour from arcs that its wings touch.
    for threshold in (4.0, 8.0, 16.0, 32.0):
        labels, count = ndimage.label(smooth > threshold)
        if not count:
            break
        # A neighbour peaks well outside the arcs and, at this threshold, is not joined to them.
        blobs = np.arange(1, count + 1)
        nearest = ndimage.minimum(radius, labels, blobs)
        peak_radius = np.array([radius[position] for position in ndimage.maximum_position(smooth, labels, blobs)])
        neighbours = np.isin(labels, blobs[(nearest > 1.15 * arc) & (peak_radius > 1.4 * arc)])
        # What is still that bright at its edge reaches further.
        disc &= ~ndimage.binary_dilation(neighbours, iterations=2 if threshold == 4.0 else 4)
    return disc & observation.mask


def _bounding_frame(observation: Observation, mask: np.ndarray) -> Frame:
    # Light scattered into the disc from beyond this margin is neglected.
    margin = int(np.ceil(2 * _psf_fwhm(observation) / observation.grid.pixel_scale))
    frame = []
    for axis, size in zip((1, 0), mask.shape, strict=True):
        used = np.flatnonzero(mask.any(axis))
        frame.append(slice(max(0, int(used[0]) - margin), min(size, int(used[-1]) + 1 + margin)))
    return frame[0], frame[1]


def _radius(observation: Observation, center: tuple[float, float]) -> np.ndarray:
    x, y = observation.grid.coordinates()
    return np.hypot(x - center[0], y - center[1])


def _psf_fwhm(observation: Observation) -> float:
    area = np.count_nonzero(observation.psf >= observation.psf.max() / 2)
    return float(2 * np.sqrt(area / np.pi) * observation.grid.pixel_scale)
