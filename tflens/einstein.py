"""Einstein radii of many lenses at once, such as the draws of a posterior."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.derivatives import Deflection

_PARTS, _DIVISIONS = 16, 2  # of a bracket, before a straight line through it is as good as the function
_DIFFERENCE = 1e-4  # of the reach: central differences in float64 are then good to about 1e-8
_INNERMOST = 1e-3  # of the reach: far below any Einstein radius, and off the singular centre


class EinsteinRadii(NamedTuple):
    """Two sizes of each lens, `[n]`, arcsec; NaN where there is none within reach.

    Attributes:
        by_area: sqrt(area inside the tangential critical curve / pi).
        by_convergence: radius of the circle around the centre in which the mean convergence is 1.
    """

    by_area: np.ndarray
    by_convergence: np.ndarray


def einstein_radii(
    deflection: Deflection,
    center_x: np.ndarray,
    center_y: np.ndarray,
    reach: float,
    *,
    rays: int = 64,
    steps: int = 64,
) -> EinsteinRadii:
    """Einstein radii of a batch of lenses, by looking outwards from their centres along rays.

    On each ray the outermost change of sign of the tangential eigenvalue 1 - kappa - gamma is bracketed, and narrowed
    down until a straight line finds it to about 1e-7 of the reach. The area is exact for a curve that every ray crosses
    once (any lens of one galaxy): the sum over the rays of a smooth closed curve converges faster than any power of
    their number. Of a curve that bends back, as around two galaxies side by side, it is the area of what is seen from
    the centre, which is too large. For one lens of any shape, and for gradients, see `tflens.critical.einstein_radius`.

    The mean convergence within a circle is the mean of the outward deflection over its radius; shear does not count.
    Both are theta_E for a round lens; the area's is theta_E for the SIE of any ellipticity.

    Args:
        deflection: deflection angle (alpha_x, alpha_y), arcsec, of `[n]` lenses, as a function of x, y `[n, ny, nx]`.
        center_x, center_y: where the rays begin, `[n]`, arcsec.
        reach: how far out to look, arcsec.
        rays, steps: how many of them, and how many points along each to find a change of sign by.

    Raises:
        ParameterError: `reach` is not positive, or there are fewer than 8 rays or steps.

    Example:
        >>> theta_E = tf.constant([1.0, 1.5], tf.float64)[:, None, None]
        >>> def sis(x, y):
        ...     r = tf.sqrt(x**2 + y**2)
        ...     return theta_E * x / r, theta_E * y / r
        >>> radii = einstein_radii(sis, np.zeros(2), np.zeros(2), 3.0)
        >>> np.round(radii.by_area, 6).tolist(), np.round(radii.by_convergence, 6).tolist()
        ([1.0, 1.5], [1.0, 1.5])
    """
    if not 0 < reach < math.inf:
        raise ParameterError(f"reach must be positive and finite (arcsec), got {reach!r}")
    if min(rays, steps) < 8:
        raise ParameterError(f"einstein_radii needs at least 8 rays and steps, got rays={rays!r}, steps={steps!r}")
    n = len(center_x)
    # Half a step off the axes, where pixels and cusps like to be.
    phi = 2 * np.pi * (np.arange(rays) + 0.5) / rays
    along = np.stack([np.cos(phi), np.sin(phi)])[:, None, :, None]
    center = np.stack([center_x, center_y]).astype(np.float64)[:, :, None, None]

    def deflect(radius: np.ndarray, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        x, y = center + along * radius + np.reshape(shift, (2, 1, 1, 1))
        return np.stack([component.numpy() for component in deflection(tf.constant(x), tf.constant(y))])

    def eigenvalue(radius: np.ndarray) -> np.ndarray:
        # Differences rather than derivatives: eagerly, those of a long series cost many times as much.
        delta = _DIFFERENCE * reach
        xx, yx = (deflect(radius, (delta, 0)) - deflect(radius, (-delta, 0))) / (2 * delta)
        xy, yy = (deflect(radius, (0, delta)) - deflect(radius, (0, -delta))) / (2 * delta)
        spread = np.sqrt(np.maximum(((xx - yy) / 2) ** 2 + xy * yx, 0))
        return 1 - (xx + yy) / 2 - spread

    def lack(radius: np.ndarray) -> np.ndarray:
        """1 - mean convergence within each radius."""
        return np.mean(
            1 - np.sum(deflect(np.broadcast_to(radius, (n, rays, radius.shape[-1]))) * along, 0) / radius,
            axis=1,
            keepdims=True,
        )

    radii = np.linspace(_INNERMOST, 1, steps) * reach
    by_ray = _outermost(eigenvalue, np.broadcast_to(radii, (n, rays, steps)))
    by_circle = _outermost(lack, np.broadcast_to(radii, (n, 1, steps)))
    return EinsteinRadii(np.sqrt(np.mean(by_ray**2, -1)), by_circle[:, 0])


def _outermost(rising: Callable[[np.ndarray], np.ndarray], radii: np.ndarray) -> np.ndarray:
    """The largest radius `[n, rays]` at which a function goes from below 0 to above, NaN where it does not.

    Args:
        rising: values `[n, rays, k]` at radii of that shape.
        radii: growing ones, `[n, rays, steps]`.
    """
    values = rising(radii)
    found = _crossings(values).any(-1)
    for _ in range(_DIVISIONS):
        (low, high), _ = _bracket(radii, values)
        radii = low + (high - low) * np.linspace(0, 1, _PARTS + 1)
        values = rising(radii)
    (low, high), (below, above) = _bracket(radii, values)
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = low - below * (high - low) / (above - below)
    return np.where(found, zero[..., 0], np.nan)


def _crossings(values: np.ndarray) -> np.ndarray:
    return (values[..., :-1] < 0) & (values[..., 1:] >= 0)


def _bracket(radii: np.ndarray, values: np.ndarray) -> list[list[np.ndarray]]:
    """Radii just inside and outside of the outermost crossing, and the values there."""
    crossing = _crossings(values)
    last = crossing.shape[-1] - 1 - np.argmax(crossing[..., ::-1], axis=-1)
    return [[np.take_along_axis(each, (last + k)[..., None], -1) for k in (0, 1)] for each in (radii, values)]
