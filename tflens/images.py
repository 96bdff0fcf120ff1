"""Image positions of a point source behind any lens: all of them inside a window, differentiable."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import require_window
from tflens.mass.derivatives import Deflection, hessian

_SAFETY = 2.0  # times the second-order remainder: room for the orders beyond it
_LEAF = 1e-4  # arcsec: subdivision stops at cells of this side, from where Newton's method takes over
_COARSEST = 1 / 16  # of a cell of the first tiling: where subdivision must have got for the search to be complete
_NEWTON_STEPS = 40


class Images(NamedTuple):
    """Images of point sources, padded to `max_images`, the brightest first.

    Where `found` is False, `x`, `y` and `magnification` are zero. The signed magnification is positive for minima and
    maxima of the arrival time and negative for saddle points. `complete` is False for a source whose search ran out of
    room, or that has more images than places, so that images are missing or may be.
    """

    x: tf.Tensor
    y: tf.Tensor
    magnification: tf.Tensor
    found: tf.Tensor
    complete: tf.Tensor


def image_positions(
    deflection: Deflection,
    beta_x: tf.Tensor,
    beta_y: tf.Tensor,
    extent: tuple[float, float, float, float],
    *,
    step: float = 0.1,
    max_images: int = 8,
    min_magnification: float = 1e-5,
    max_cells: int = 128,
) -> Images:
    """All images inside a window of point sources at (`beta_x`, `beta_y`).

    Cells of side `step` tile the window. A cell is kept as long as its image in the source plane, widened by twice the
    second-order remainder of the lens equation over it, holds the source; kept cells are quartered down to a side of
    1e-4 arcsec, or, along the critical curve at a cusp, until there are `max_cells` of them. A cell astride a fold is
    kept from both sides, so a close pair needs no cell small enough to part it. From every cell that is left Newton's
    method with a trust region goes on to the rounding of the dtype.

    What is found, and what can be missed:

    - Positions solve the lens equation to 256 roundings of the window's size: 1e-13 arcsec in float64 for a window of
      a few arcsec, 1e-4 in float32. Use float64 unless that is enough.
    - Two images of equal parity (around a cusp) nearer to each other than about 1e-6 arcsec in float64, 1e-2 in
      float32, count as one. Pairs of opposite parity (at a fold) are told apart by their parity, and can be lost only
      where the source lies within that rounding of the caustic.
    - Structure in the lens (a subhalo) much smaller than `step` between the samples of the first tiling, which stand
      `step` / 2 apart, can go unseen with the images that it makes: choose `step` below the smallest Einstein radius.
    - Images outside the window, and those fainter than `min_magnification` (the demagnified one in a steep core), are
      left out. A singular lens of slope gamma >= 2 has no central image; its centre is never reported.
    - A source behind the middle of a round lens has a ring for an image; there `complete` is False.

    The search passes no gradient. The returned positions carry those of the implicit function theorem,
    d theta = A^-1 (d beta + d alpha), by one more Newton step from the position found: first derivatives with respect
    to the source and to all that `deflection` closes over are exact, in reverse and in forward mode; second derivatives
    are not. The gradient of an image that is not found is zero. The order of images by brightness can change with the
    parameters, and the number of images does at caustics.

    Works eagerly, slowly; for speed put it into a `tf.function`, with or without `jit_compile=True`: shapes are static.
    `autograph=False` makes the tracing several times faster.

    Args:
        deflection: deflection angle (alpha_x, alpha_y), arcsec, as a function of tensors x, y `[...batch, 1, n]` and
            of the first tiling's x `[1, nx]` and y `[ny, 1]`; for lenses `[...batch]` results `[...batch, ny, nx]`. An
            effective deflection through several planes does as well.
        beta_x, beta_y: source positions `[...batch]`, arcsec; they broadcast against the batch of lenses.
        extent: window `(left, right, bottom, top)`, arcsec.
        step: side of the first tiling's cells, arcsec.
        max_images: room for images in the result.
        min_magnification: images whose absolute magnification is below it are left out; 0 keeps all.
        max_cells: room for cells in the search; where they run out before their side is `step` / 16, `complete` is
            False.

    Returns:
        Images `[...batch, max_images]`, and `complete` `[...batch]`.

    Raises:
        ParameterError: the window is empty, `step` is not positive or leaves fewer than 2 cells a side, or a number is
            out of its range.

    Example:
        >>> import tensorflow as tf
        >>> def sis(x, y):  # of Einstein radius 1; `tflens.mass.total.total` makes such functions of profiles
        ...     r = tf.sqrt(x**2 + y**2 + 1e-30)
        ...     return x / r, y / r
        >>> beta_x, beta_y = tf.constant([0.3, 1.5], tf.float64), tf.constant([0.0, 0.0], tf.float64)
        >>> images = image_positions(sis, beta_x, beta_y, extent=(-3.0, 3.0, -2.0, 2.0), max_images=3)
        >>> images.found.numpy().tolist()
        [[True, True, False], [True, False, False]]
        >>> images.x.numpy().round(6).tolist()
        [[1.3, -0.7, 0.0], [2.5, 0.0, 0.0]]
    """
    _check(extent, step, max_images, min_magnification, max_cells)
    beta_x = tf.convert_to_tensor(beta_x)
    beta_y = tf.convert_to_tensor(beta_y, dtype=beta_x.dtype)
    if not beta_x.dtype.is_floating:
        raise ParameterError(f"beta_x and beta_y must be floating-point numbers (arcsec), got {beta_x.dtype.name}")
    # Two axes behind the batch, as deflections want them: [...batch, 1, n].
    beta_x, beta_y = beta_x[..., None, None], beta_y[..., None, None]
    size = max(map(abs, extent))
    rounding = 256 * float(np.finfo(beta_x.dtype.as_numpy_dtype).eps) * size

    source = tf.stop_gradient(beta_x), tf.stop_gradient(beta_y)
    x, y, live, complete, side = _search(deflection, *source, extent, step, max_cells, rounding)
    x, y, jacobian, solved = _newton(deflection, *source, x, y, live, 8 * side, rounding)
    determinant = _determinant(*jacobian)
    left, right, bottom, top = extent
    keep = (
        solved
        & ((x >= left) & (x <= right) & (y >= bottom) & (y <= top))
        & (tf.abs(determinant) * tf.constant(min_magnification, x.dtype) <= 1)
    )
    keep &= ~_repeats(x, y, determinant, keep, 3 * math.sqrt(rounding * size))
    complete &= (tf.reduce_sum(tf.cast(keep, tf.int32), -1) <= max_images)[..., 0]
    brightest = tf.math.top_k(tf.where(keep, -tf.abs(determinant), tf.constant(-math.inf, x.dtype)), max_images).indices
    x, y, found, *jacobian = (tf.gather(a, brightest, batch_dims=a.shape.rank - 1) for a in (x, y, keep, *jacobian))
    x, y, magnification = _differentiable(deflection, beta_x, beta_y, x, y, jacobian, found, (right, top))
    return Images(*(tensor[..., 0, :] for tensor in (x, y, magnification, found)), complete)


def _search(
    deflection: Deflection,
    beta_x: tf.Tensor,
    beta_y: tf.Tensor,
    extent: tuple[float, float, float, float],
    step: float,
    max_cells: int,
    rounding: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Centres `[...batch, 1, max_cells]` of the smallest cells that may hold an image, and which of them are in use.

    Also whether they are small enough for a complete search, `[...batch]`, and their side, `[...batch, 1, 1]`.
    """
    dtype = beta_x.dtype
    left, right, bottom, top = extent
    nx, ny = math.ceil((right - left) / step), math.ceil((top - bottom) / step)
    half_x, half_y = (right - left) / (2 * nx), (top - bottom) / (2 * ny)
    side = 2 * max(half_x, half_y)
    # Below ten roundings cells can no longer be told apart.
    levels = max(0, math.ceil(math.log2(side / max(_LEAF, 10 * rounding))))

    x = tf.constant(left + half_x * np.arange(2 * nx + 1), dtype)[None, :]
    y = tf.constant(bottom + half_y * np.arange(2 * ny + 1), dtype)[:, None]
    may = _may_hold(*_source_plane(deflection, x, y), beta_x, beta_y, rounding)
    batch = tf.shape(may)[:-2]
    may = tf.reshape(may, tf.concat([batch, [ny * nx]], 0))
    may = tf.pad(may, [[0, 0]] * (may.shape.rank - 1) + [[0, max(0, max_cells - ny * nx)]])
    index, live, complete = _choose(may, max_cells)
    x = left + half_x * tf.cast(2 * (index % nx) + 1, dtype)
    y = bottom + half_y * tf.cast(2 * (index // nx) + 1, dtype)

    # A parent's 5 x 5 samples hold the 3 x 3 samples of each of its four children.
    samples_y, samples_x = (tf.reshape(a, [-1]) for a in tf.meshgrid(*[tf.linspace(-1.0, 1.0, 5)] * 2, indexing="ij"))
    samples_x, samples_y = tf.cast(samples_x, dtype), tf.cast(samples_y, dtype)
    children_x, children_y = tf.constant([-0.5, 0.5, -0.5, 0.5], dtype), tf.constant([-0.5, -0.5, 0.5, 0.5], dtype)

    def quarter(scale, x, y, live):
        hx, hy = half_x * scale, half_y * scale
        lattice_x = tf.reshape(x[..., None] + hx[..., None] * samples_x, tf.concat([batch, [1, max_cells * 25]], 0))
        lattice_y = tf.reshape(y[..., None] + hy[..., None] * samples_y, tf.concat([batch, [1, max_cells * 25]], 0))
        lattice = (
            tf.reshape(b, tf.concat([batch, [max_cells, 5, 5]], 0))
            for b in _source_plane(deflection, lattice_x, lattice_y)
        )
        may = _may_hold(*lattice, beta_x[..., None], beta_y[..., None], rounding) & live[..., None, None]
        index, live_next, fits = _choose(tf.reshape(may, tf.concat([batch, [max_cells * 4]], 0)), max_cells)
        parent, child = index // 4, index % 4
        x_next = tf.gather(x, parent, batch_dims=parent.shape.rank - 1) + hx * tf.gather(children_x, child)
        y_next = tf.gather(y, parent, batch_dims=parent.shape.rank - 1) + hy * tf.gather(children_y, child)
        # Where the children are too many (along a cusp's critical curve) their parents stay as they are.
        fits = fits[..., None]
        new = ((scale / 2, scale), (x_next, x), (y_next, y), (live_next, live))
        return tuple(tf.where(fits, a, b) for a, b in new)

    scale = tf.ones_like(x[..., :1])
    scale, x, y, live = tf.while_loop(lambda *_: True, quarter, (scale, x, y, live), maximum_iterations=levels)
    complete &= scale[..., 0] <= max(_COARSEST, 0.5**levels)
    return x[..., None, :], y[..., None, :], live[..., None, :], complete, side * scale[..., None]


def _may_hold(
    lattice_x: tf.Tensor, lattice_y: tf.Tensor, beta_x: tf.Tensor, beta_y: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Which cells `[..., m, n]` may hold an image, from the source plane at their corners, edges and middles.

    To first order a cell maps to a parallelogram; it is kept unless the source lies outside that, widened by the
    remainder, along x, y or across one of its sides.
    """

    def cells(b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        middle = b[..., 1::2, 1::2]
        west, east = b[..., 1::2, :-1:2], b[..., 1::2, 2::2]
        south, north = b[..., :-1:2, 1::2], b[..., 2::2, 1::2]
        twist = b[..., 2::2, 2::2] + b[..., :-1:2, :-1:2] - b[..., 2::2, :-1:2] - b[..., :-1:2, 2::2]
        curved = tf.abs(east + west - 2 * middle) / 2 + tf.abs(north + south - 2 * middle) / 2 + tf.abs(twist) / 4
        return middle, (east - west) / 2, (north - south) / 2, curved

    middle_x, east_x, north_x, curved_x = cells(lattice_x)
    middle_y, east_y, north_y, curved_y = cells(lattice_y)
    # The remainder in full along every axis: at an inflection along one of them its own second order vanishes.
    margin = _SAFETY * (curved_x + curved_y) + rounding
    off_x, off_y = beta_x - middle_x, beta_y - middle_y
    area = tf.abs(east_x * north_y - east_y * north_x)
    # "Not outside" and not "inside", so that a cell with a NaN in it stays.
    outside = (
        (tf.abs(off_x) > tf.abs(east_x) + tf.abs(north_x) + margin)
        | (tf.abs(off_y) > tf.abs(east_y) + tf.abs(north_y) + margin)
        | (tf.abs(east_x * off_y - east_y * off_x) > area + margin * _length(east_x, east_y))
        | (tf.abs(north_x * off_y - north_y * off_x) > area + margin * _length(north_x, north_y))
    )
    return ~outside


def _newton(
    deflection: Deflection,
    beta_x: tf.Tensor,
    beta_y: tf.Tensor,
    x: tf.Tensor,
    y: tf.Tensor,
    live: tf.Tensor,
    radius: tf.Tensor,
    rounding: float,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor], tf.Tensor]:
    """Solves the lens equation from every start by Newton's method within a trust region.

    Returns the solutions, the Jacobian there, and which of the starts led to one.
    """

    # A start that has arrived can do no better, nor can one where there is no image: their regions shrink.
    settled = radius * 1e-4

    def unsettled(best, radius):
        return tf.reduce_any(live & (radius > settled))

    def iterate(best, radius):
        x, y, rx, ry, *jacobian = best
        dx, dy = _solve(*jacobian, rx, ry)
        # On a critical curve the step has no length: stay, and let another start find the image.
        finite = tf.math.is_finite(dx) & tf.math.is_finite(dy)
        dx, dy = tf.where(finite, dx, zero), tf.where(finite, dy, zero)
        length = _length(dx, dy)
        shrink = tf.where(length > radius, radius / length, tf.ones_like(length))
        try_x, try_y = x + shrink * dx, y + shrink * dy
        source_x, source_y = _source_plane(deflection, try_x, try_y)
        try_rx, try_ry = beta_x - source_x, beta_y - source_y
        trial = (try_x, try_y, try_rx, try_ry, *_jacobian(deflection, try_x, try_y))
        # Residuals are compared in the image plane, by the same Jacobian (Deuflhard's natural monotonicity): in the
        # source plane those along the critical curve at a cusp are lost beside those across it.
        better = _length(*_solve(*jacobian, try_rx, try_ry)) < length
        better |= tf.math.is_inf(rx) & tf.math.is_finite(try_rx + try_ry)
        best = tuple(tf.where(better, new, old) for new, old in zip(trial, best, strict=True))
        return best, tf.where(better, 2 * radius, tf.minimum(radius, length) / 4)

    zero = tf.zeros_like(x)
    unknown = zero + math.inf  # the first iteration goes nowhere, and evaluates the start
    best = (x, y, unknown, unknown, zero, zero, zero, zero)
    best, _ = tf.while_loop(unsettled, iterate, (best, zero + radius), maximum_iterations=_NEWTON_STEPS)
    x, y, rx, ry, *jacobian = best
    return x, y, jacobian, live & (_length(rx, ry) <= rounding)


def _repeats(x: tf.Tensor, y: tf.Tensor, determinant: tf.Tensor, keep: tf.Tensor, nearest: float) -> tf.Tensor:
    """Which solutions `[..., n]` repeat an earlier one of the same parity."""
    near = (tf.abs(x[..., :, None] - x[..., None, :]) < nearest) & (tf.abs(y[..., :, None] - y[..., None, :]) < nearest)
    same = (determinant[..., :, None] > 0) == (determinant[..., None, :] > 0)
    n = x.shape[-1]
    earlier = tf.constant(np.tri(n, k=-1, dtype=bool))
    return tf.reduce_any(near & same & earlier & keep[..., None, :], -1)


def _differentiable(
    deflection: Deflection,
    beta_x: tf.Tensor,
    beta_y: tf.Tensor,
    x: tf.Tensor,
    y: tf.Tensor,
    jacobian: list[tf.Tensor],
    found: tf.Tensor,
    elsewhere: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Positions with the gradient of the implicit function theorem, and magnifications; zero where not found."""
    # Empty places are sent to a harmless point, for a gradient that is multiplied by zero must be finite all the same.
    x = tf.stop_gradient(tf.where(found, x, tf.constant(elsewhere[0], x.dtype)))
    y = tf.stop_gradient(tf.where(found, y, tf.constant(elsewhere[1], y.dtype)))
    source_x, source_y = _source_plane(deflection, x, y)
    zero = tf.zeros_like(x)
    identity = (1 + zero, zero, zero, 1 + zero)
    jacobian = [tf.stop_gradient(tf.where(found, a, one)) for a, one in zip(jacobian, identity, strict=True)]
    dx, dy = _solve(*jacobian, beta_x - source_x, beta_y - source_y)
    # The step lends its gradient only: its value is rounding, which a nearly singular Jacobian would blow up.
    dx, dy = (tf.where(found, d - tf.stop_gradient(d), zero) for d in (dx, dy))
    x, y = x + dx, y + dy
    magnification = 1 / _determinant(*_jacobian(deflection, x, y))
    return tuple(tf.where(found, tensor, zero) for tensor in (x, y, magnification))


def _choose(may: tf.Tensor, number: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Indices of up to `number` true entries along the last axis, which of them are true, and whether all had room."""
    value, index = tf.math.top_k(tf.cast(may, tf.float32), number)
    return index, value > 0, tf.reduce_sum(tf.cast(may, tf.int32), -1) <= number


def _source_plane(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    alpha_x, alpha_y = deflection(x, y)
    return x - alpha_x, y - alpha_y


def _jacobian(deflection: Deflection, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """d beta / d theta: (xx, xy, yx, yy)."""
    xx, xy, yx, yy = hessian(deflection, x, y)
    return 1 - xx, -xy, -yx, 1 - yy


def _determinant(xx: tf.Tensor, xy: tf.Tensor, yx: tf.Tensor, yy: tf.Tensor) -> tf.Tensor:
    return xx * yy - xy * yx


def _solve(
    xx: tf.Tensor, xy: tf.Tensor, yx: tf.Tensor, yy: tf.Tensor, rx: tf.Tensor, ry: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    determinant = _determinant(xx, xy, yx, yy)
    return (yy * rx - xy * ry) / determinant, (xx * ry - yx * rx) / determinant


def _length(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(x**2 + y**2)


def _check(
    extent: tuple[float, float, float, float], step: float, max_images: int, min_magnification: float, max_cells: int
) -> None:
    require_window(extent, step)
    if not 1 <= max_images <= max_cells:
        raise ParameterError(
            f"need 1 <= max_images <= max_cells, got max_images={max_images!r} and max_cells={max_cells!r}"
        )
    if not min_magnification >= 0:
        raise ParameterError(f"min_magnification must not be negative, got {min_magnification!r}")
