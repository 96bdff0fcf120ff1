"""Critical curves, caustics, magnification, and the Einstein radius by area, of any lens."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import require_window
from tflens.mass.derivatives import Deflection, hessian

_NEWTON_STEPS = 12


class Curves(NamedTuple):
    """Closed curves `[n, 2]` of (x, y), arcsec, last point = first; the largest of a kind first.

    Tangential: the eigenvalue 1 - kappa - gamma of the Jacobian vanishes; radial: 1 - kappa + gamma.
    """

    tangential: list[np.ndarray]
    radial: list[np.ndarray]


def magnification(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Signed magnification 1 / det(d beta / d theta) of a point image; infinite on critical curves.

    Args:
        deflection: deflection angle (alpha_x, alpha_y), arcsec, as a function of tensors x, y.
        x, y: positions, arcsec: what the deflection takes, such as `[1, nx]` and `[ny, 1]` for a map.

    Returns:
        `[...batch, ny, nx]`.

    Example:
        >>> def sis(x, y):
        ...     r = tf.sqrt(x**2 + y**2)
        ...     return x / r, y / r
        >>> round(float(magnification(sis, tf.constant([[2.0]]), tf.constant([[0.0]]))[0, 0]), 5)
        2.0
    """
    return 1 / _determinant(deflection, x, y)


def critical_curves(
    deflection: Deflection,
    extent: tuple[float, float, float, float],
    *,
    step: float = 0.02,
    accuracy: float = 1e-9,
    dtype: str = "float64",
) -> Curves:
    """Critical curves of one lens inside a window.

    The two eigenvalues of the Jacobian are contoured on a grid, the contours sampled evenly (at most `step` apart, at
    least 64 points each) and every point moved onto det = 0 by Newton's method along the gradient.

    Exact: each point lies within `accuracy` of its curve (in float64; float32 reaches about 1e-5). Can be missed: a
    curve less than about two steps across, and two curves of one kind less than a step apart count as one. A singular
    profile of slope gamma >= 2 (SIE) has no radial critical curve; what bounds its region of two images in the source
    plane is its `cut`. Through several planes the Jacobian is not symmetric: kinds are then told apart by the sign of
    half its trace on the curve, which is what the eigenvalues say in a single plane.

    Runs eagerly and returns NumPy arrays; nothing here is differentiable, see `einstein_radius` for what is.

    Args:
        deflection: deflection angle (alpha_x, alpha_y), arcsec, of one lens (no batch), as a function of x, y.
        extent: window `(left, right, bottom, top)`, arcsec; curves must close inside it.
        step: grid step, arcsec.
        accuracy: largest distance of a point from its curve, arcsec.
        dtype: of the coordinates; that of the lens parameters which the deflection closes over.

    Raises:
        ParameterError: the window is empty, `step` or `accuracy` is not positive, the deflection is that of a batch of
            lenses, or a critical curve leaves the window.

    Example:
        >>> def sis_with_shear(x, y):
        ...     r = tf.sqrt(x**2 + y**2)
        ...     return x / r + 0.1 * x, y / r - 0.1 * y
        >>> curves = critical_curves(sis_with_shear, (-2.1, 2.0, -1.6, 1.5), step=0.1)
        >>> len(curves.tangential), len(curves.radial)
        (1, 0)
        >>> x, y = caustics(sis_with_shear, curves).tangential[0].T
        >>> round(float(y.max()), 2)  # the cusp at 2 gamma / (1 - gamma)
        0.22
    """
    _check(extent, step, accuracy)
    left, right, bottom, top = extent
    x = np.linspace(left, right, math.ceil((right - left) / step) + 1)
    y = np.linspace(bottom, top, math.ceil((top - bottom) / step) + 1)
    tangential, radial = _eigenvalues(deflection, tf.constant(x[None, :], dtype), tf.constant(y[:, None], dtype))
    if tangential.ndim != 2:
        raise ParameterError(
            "critical_curves takes one lens at a time, but the deflection has the batch shape "
            f"{tangential.shape[:-2]}: call it for each lens"
        )
    kinds = []
    for name, eigenvalue in (("tangential", tangential), ("radial", radial)):
        contours = (_resample(contour, step) for contour in _contours(name, x, y, eigenvalue, extent))
        curves = (_refine(deflection, contour, step, accuracy, dtype) for contour in contours)
        kinds.append(sorted((curve for curve in curves if len(curve)), key=lambda curve: -_polygon_area(curve)))
    return Curves(*kinds)


def caustics(deflection: Deflection, curves: Curves) -> Curves:
    """The critical curves' images in the source plane, point by point: beta = theta - alpha(theta).

    The order of the curves is kept. Points bunch up at cusps, where the map stands still.

    Args:
        deflection: as for `critical_curves`.
        curves: what `critical_curves` returned.
    """
    return Curves(*([_to_source(deflection, curve) for curve in kind] for kind in curves))


def cut(
    deflection: Deflection, center: tuple[float, float], *, points: int = 360, dtype: str = "float64"
) -> np.ndarray:
    """The cut (pseudo-caustic) of a singular centre: where a tiny circle round it maps to.

    A source inside has one image more than outside, and no critical curve goes with it. Only an isothermal centre
    (gamma = 2) has one: the deflection of a steeper one grows without limit, so that every source has that image, and
    that of a shallower or cored one vanishes at its centre, so that it has a radial caustic instead.

    Args:
        deflection: deflection angle of one lens as a function of x, y, arcsec.
        center: the singular point (x, y), arcsec.
        points: points along the curve.
        dtype: of the coordinates.

    Returns:
        Closed curve `[points + 1, 2]`, arcsec, the limit of radius zero (extrapolated from radii of 1e-5 and 2e-5
        arcsec: exact to about 1e-9 for an isothermal centre in float64).

    Raises:
        ParameterError: `points` is below 3.

    Example:
        >>> def sis(x, y):
        ...     r = tf.sqrt(x**2 + y**2)
        ...     return x / r, y / r
        >>> circle = cut(sis, (0.0, 0.0), points=4)
        >>> np.round(np.hypot(*circle.T), 6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if points < 3:
        raise ParameterError(f"points must be at least 3, got {points!r}")
    phi = 2 * np.pi * np.arange(points) / points
    circle = 1e-5 * np.stack([np.cos(phi), np.sin(phi)], -1)
    near, far = (_to_source(deflection, (np.asarray(center) + k * circle).astype(dtype)) for k in (1, 2))
    curve = 2 * near - far
    return np.concatenate([curve, curve[:1]])


def einstein_radius(
    deflection: Deflection, extent: tuple[float, float, float, float], *, step: float = 0.02, dtype: str = "float64"
) -> tf.Tensor:
    """Einstein radius by area, sqrt(area inside the largest tangential critical curve / pi), arcsec.

    Equal to theta_E for the SIE (whose critical curve is R = theta_E in the intermediate-axis convention); shear and
    other slopes change it. The curve is splined through points `step` apart; for smooth lenses the relative error is
    below 1e-8 when `step` is a fiftieth of the radius.

    Differentiable in reverse mode with respect to whatever the deflection closes over, by the implicit function
    theorem on the level set det = 0: d(area) = - integral of d(det) / |grad det| along the curve. First derivatives
    only. Runs eagerly (the contour has no static shape).

    Args:
        deflection, extent, step, dtype: as for `critical_curves`.

    Returns:
        A scalar.

    Raises:
        ParameterError: as `critical_curves`, or there is no tangential critical curve inside the window.

    Example:
        >>> theta_E = tf.Variable(1.3, dtype=tf.float64)
        >>> def sis(x, y):
        ...     r = tf.sqrt(x**2 + y**2)
        ...     return theta_E * x / r, theta_E * y / r
        >>> with tf.GradientTape() as tape:
        ...     radius = einstein_radius(sis, (-2.1, 2.5, -2.1, 2.0), step=0.05)
        >>> round(float(radius), 6), round(float(tape.gradient(radius, theta_E)), 5)
        (1.3, 1.0)
    """
    tangential = critical_curves(deflection, extent, step=step, dtype=dtype).tangential
    if not tangential:
        raise ParameterError(
            f"no tangential critical curve inside extent={extent!r} on a grid of step={step!r}: the lens is too weak "
            "there, or the step too coarse"
        )
    area, points, outward, weights = _splined(tangential[0])
    # The zero of det lies -det / (outward slope) farther out: this corrects the splined area, and is all its gradient.
    _, slopes = _level(deflection, points, dtype)
    slope = np.sum(slopes * outward, -1)
    determinant = _determinant(deflection, *(tf.constant(points[None, :, i], dtype) for i in (0, 1)))
    area = tf.constant(area, dtype) - tf.reduce_sum(tf.constant(weights / slope, dtype) * determinant)
    return tf.sqrt(area / math.pi)


def _jacobian(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """d beta / d theta: (xx, xy, yx, yy)."""
    xx, xy, yx, yy = hessian(deflection, x, y)
    return 1 - xx, -xy, -yx, 1 - yy


def _determinant(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    xx, xy, yx, yy = _jacobian(deflection, x, y)
    return xx * yy - xy * yx


def _eigenvalues(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    xx, xy, yx, yy = (a.numpy() for a in _jacobian(deflection, x, y))
    mean = (xx + yy) / 2
    # Shear squared less rotation squared; where rotation wins, det > 0 and no curve is near.
    spread = np.sqrt(np.maximum(((xx - yy) / 2) ** 2 + xy * yx, 0))
    return mean - spread, mean + spread


def _contours(
    kind: str, x: np.ndarray, y: np.ndarray, eigenvalue: np.ndarray, extent: tuple[float, float, float, float]
) -> list[np.ndarray]:
    import contourpy

    # Eigenvalues run to minus infinity at a singular centre; squeezed into (-1, 1) they interpolate better.
    squeezed = np.ma.masked_invalid(eigenvalue / (1 + np.abs(eigenvalue)))
    lines = [np.asarray(line) for line in contourpy.contour_generator(x, y, squeezed).lines(0.0)]
    if any(not np.array_equal(line[0], line[-1]) for line in lines):
        raise ParameterError(f"a {kind} critical curve leaves the window extent={extent!r}: enlarge it")
    return lines


def _resample(curve: np.ndarray, step: float) -> np.ndarray:
    """Evenly spaced points along a closed polygon, without the repeated last one."""
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    n = max(64, math.ceil(length[-1] / step))
    along = np.linspace(0, length[-1], n, endpoint=False)
    return np.stack([np.interp(along, length, curve[:, i]) for i in (0, 1)], -1)


def _refine(deflection: Deflection, start: np.ndarray, step: float, accuracy: float, dtype: str) -> np.ndarray:
    """Moves points onto det = 0 and closes the curve; empty where there was none.

    At a singular centre on a grid point the contour encircles nothing: its points run off by more than a cell.
    """
    points = start
    for _ in range(_NEWTON_STEPS):
        determinant, slopes = _level(deflection, points, dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            delta = -(determinant / np.sum(slopes**2, -1))[:, None] * slopes
        moved = np.hypot(*delta.T)
        # A step is never more than a cell: what is farther is another curve.
        points = points + delta * (step / np.maximum(moved, step))[:, None]
        strayed = ~(np.hypot(*(points - start).T) < 2 * step)
        if np.all((moved < accuracy) | strayed):
            break
    floor = 64 * np.finfo(dtype).eps * max(1.0, float(np.abs(start).max()))
    points = points[(moved < max(accuracy, floor)) & ~strayed]
    return np.concatenate([points, points[:1]]) if len(points) >= 16 else points[:0]


def _level(deflection: Deflection, points: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """det at points `[n, 2]`, and its slopes `[n, 2]`.

    Central differences do for the slopes: Newton's method takes its accuracy from det itself, and a derivative more by
    differentiation would cost several times as much, twice over when someone differentiates this.
    """
    delta = np.finfo(dtype).eps ** (1 / 3)
    shifts = delta * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    x, y = (tf.constant(points[None, :, i] + shifts[:, None, i], dtype) for i in (0, 1))
    middle, east, west, north, south = _determinant(deflection, x, y).numpy().astype(np.float64)
    return middle, np.stack([east - west, north - south], -1) / (2 * delta)


def _splined(curve: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Area inside a closed curve by a periodic cubic spline; Gauss points on it, their outward normals and weights."""
    from scipy.interpolate import CubicSpline

    curve = curve.astype(np.float64)
    if _signed_area(curve) < 0:
        curve = curve[::-1]
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    spline = CubicSpline(along, curve, bc_type="periodic")
    # Three points integrate the fifth-degree pieces of x dy - y dx exactly.
    node, weight = np.polynomial.legendre.leggauss(3)
    half = np.diff(along)[:, None] / 2
    at = (along[:-1, None] + half * (1 + node)).ravel()
    weight = (half * weight).ravel()
    point, tangent = spline(at), spline(at, 1)
    area = float(np.sum(weight * (point[:, 0] * tangent[:, 1] - point[:, 1] * tangent[:, 0])) / 2)
    speed = np.hypot(*tangent.T)
    # Counter-clockwise: the outward normal is the tangent turned clockwise.
    outward = np.stack([tangent[:, 1], -tangent[:, 0]], -1) / speed[:, None]
    return area, point, outward, weight * speed


def _to_source(deflection: Deflection, points: np.ndarray) -> np.ndarray:
    x, y = (tf.constant(points[None, :, i]) for i in (0, 1))
    alpha_x, alpha_y = deflection(x, y)
    return np.stack([(x - alpha_x)[0].numpy(), (y - alpha_y)[0].numpy()], -1)


def _polygon_area(curve: np.ndarray) -> float:
    return abs(_signed_area(curve))


def _signed_area(curve: np.ndarray) -> float:
    (x, y), (next_x, next_y) = curve[:-1].T, curve[1:].T
    return float(np.sum(x * next_y - next_x * y) / 2)


def _check(extent: tuple[float, float, float, float], step: float, accuracy: float) -> None:
    require_window(extent, step)
    if not accuracy > 0:
        raise ParameterError(f"accuracy must be positive (arcsec), got {accuracy!r}")
