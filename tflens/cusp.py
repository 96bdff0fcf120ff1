"""Pixels around the centre of a galaxy, where no even grid of samples is fine enough.

Let I be a brightness that is constant on similar ellipses around a centre, r the position relative to it, and <I> the
mean of I within the ellipse through r. The field r <I> / 2 has the divergence I, so that the light in a pixel is the
flux of that field through its four edges (Green's theorem). On an edge the field is smooth, but for its foot, the
point nearest to the centre; and neighbours share edges. A few nodes on each, graded towards the foot, do what thousands
in the pixel would not.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf

from tflens.grid import PixelGrid
from tflens.profile import on_pixels
from tflens.quadrature import nodes_and_weights


@runtime_checkable
class Cuspy(Protocol):
    """A light profile that is constant on ellipses (e1, e2) around a centre (center_x, center_y), and cuspy there."""

    def mean_within(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Mean surface brightness within the ellipse through each position, per arcsec^2 for unit amplitude; takes what
        `brightness` takes, and gives the same shape."""


REACH = 2
"""Pixels on every side of that with the centre."""

_NODES = 8  # on either side of an edge's foot


def integrate_around_center(
    image: tf.Tensor, profile: Cuspy, values: dict[str, tf.Tensor], grid: PixelGrid, padding: int = 0
) -> tf.Tensor:
    """Replaces a profile's means over pixels near its centre by better ones, wherever the centre is.

    Args:
        image: means over all pixels, `[...batch, ny, nx]` (padding included), brightness per arcsec^2.
        profile: of the light.
        values: of its parameters, `[...batch]`.
        grid: the pixels.
        padding: pixels around them.

    Returns:
        The image with `2 REACH + 1` pixels along each side around the centre integrated, to 2e-4 of the brightest of
        them (1e-3 for axis ratios below 0.3 and R_sersic of half a pixel).

    Example:
        >>> from tflens.light import DeVaucouleurs
        >>> values = {"R_sersic": 0.5, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> exact = integrate_around_center(tf.zeros([7, 7]), DeVaucouleurs(), values, PixelGrid((7, 7), 0.1))
        >>> [round(float(each), 2) for each in exact[3]]
        [0.0, 4.9, 13.31, 46.23, 13.31, 4.9, 0.0]
    """
    center_x, center_y = on_pixels(values["center_x"], values["center_y"], like=image)
    x, y = (v.ravel() for v in grid.coordinates(padding=padding))
    side = grid.pixel_scale
    first_x, first_y = (_first(c, v[0], side) for c, v in ((center_x, x), (center_y, y)))
    # Edges relative to the centre, `[...batch, 1, edges]` those along x.
    edges = np.arange(2 * REACH + 2)
    left = x[0] - side / 2 + side * (first_x + tf.constant(edges, image.dtype)) - center_x
    lower = y[0] - side / 2 + side * (first_y + tf.constant(edges, image.dtype)) - center_y

    e1, e2 = on_pixels(values["e1"], values["e2"], like=image)

    def through_vertical(dx: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        return 0.5 * dx * profile.mean_within(center_x + dx, center_y + dy, **values)

    def through_horizontal(dy: tf.Tensor, dx: tf.Tensor) -> tf.Tensor:
        return 0.5 * dy * profile.mean_within(center_x + dx, center_y + dy, **values)

    # Where the ellipses touch a line: the smallest |w - e conj(w)| (`tflens.profile.elliptical`) along it.
    to_right = _flux(left, lower, 2 * e2 / ((1 + e1) ** 2 + e2**2), through_vertical)
    upwards = _flux(lower, left, 2 * e2 / ((1 - e1) ** 2 + e2**2), through_horizontal)
    light = tf.linalg.matrix_transpose(_between(to_right)) + _between(upwards)
    rows, columns = _places(first_y, len(y), image.dtype), _places(first_x, len(x), image.dtype)
    exact = tf.matmul(rows, tf.matmul(light / side**2, columns, transpose_b=True))
    near = tf.reduce_sum(rows, -1)[..., :, None] * tf.reduce_sum(columns, -1)[..., None, :]
    return tf.where(near > 0.5, exact, image)


def _first(center: tf.Tensor, first_pixel: float, side: float) -> tf.Tensor:
    """Number of the first pixel of those around the centre, a whole number `[...batch, 1, 1]`."""
    return tf.stop_gradient(tf.floor((center - first_pixel) / side + 0.5)) - REACH


def _places(first: tf.Tensor, pixels: int, dtype: tf.DType) -> tf.Tensor:
    """1 where pixel `i` of the image is pixel `j` of those around the centre, `[...batch, i, j]`; none is where that
    lies beyond the image."""
    wanted = first + tf.constant(np.arange(2 * REACH + 1), dtype)
    return tf.cast(tf.constant(np.arange(pixels)[:, None], dtype) == wanted, dtype)


def _flux(
    across: tf.Tensor, ends: tf.Tensor, lean: tf.Tensor, field: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Fluxes `[...batch, lines, edges]` of a field through the edges of lines at `across`, between neighbours of
    `ends`, both `[...batch, 1, n]`; the foot of a line lies at `lean` times where the line is."""
    across = tf.linalg.matrix_transpose(across)
    low, high = ends[..., :-1], ends[..., 1:]
    foot = tf.minimum(tf.maximum(lean * across, low), high)
    nodes, weights = nodes_and_weights(_NODES, 3, 0, foot.dtype)
    # From the foot to either end, `[...batch, lines, edges, nodes]`.
    spans = [(end - foot)[..., None] for end in (low, high)]
    along = tf.concat([foot[..., None] + span * nodes for span in spans], -1)
    weight = tf.concat([tf.abs(span) * weights for span in spans], -1)
    flat = tf.concat([tf.shape(along)[:-2], [-1]], 0)
    flux = tf.reshape(weight, flat) * field(across, tf.reshape(along, flat))
    return tf.reduce_sum(tf.reshape(flux, tf.shape(along)), -1)


def _between(flux: tf.Tensor) -> tf.Tensor:
    """What leaves each pixel through a pair of its edges, `[...batch, pixels, edges]`."""
    return flux[..., 1:, :] - flux[..., :-1, :]
