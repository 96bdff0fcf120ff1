"""From surface brightness at points to its mean over each pixel."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid

Position = tuple[np.ndarray, np.ndarray]

# Nodes in [-1/2, 1/2] and weights of unit sum.
_RULES = {
    "midpoint": lambda n: ((np.arange(n) + 0.5) / n - 0.5, np.full(n, 1 / n)),
    "gauss-legendre": lambda n: tuple(v / 2 for v in np.polynomial.legendre.leggauss(n)),
}


class PixelIntegration:
    """Where in each pixel the light is sampled, and how the samples become the pixel's mean.

    A product rule of `samples` x `samples` nodes a pixel: equal midpoints (error ~ second derivative / samples^2), or
    Gauss-Legendre (exact for polynomials up to degree 2 samples - 1, so far better where the light is smooth inside a
    pixel, and no better at a cusp). Where the map `refine` is above 1 the rule is applied to each of
    `refine` x `refine` parts of the pixel instead. The map is static, hence all shapes are, and the even grid keeps
    its separate x and y: the nodes of all refined pixels are a second, flat set of positions (one, as every set makes
    compilation longer), whose means replace those of the even grid.

    Args:
        grid: the pixels.
        samples: nodes along each side of a pixel.
        quadrature: "midpoint" or "gauss-legendre".
        padding: pixels added on every side of the frame.
        refine: whole numbers from 1 `[ny, nx]`, parts along each side of a pixel; None for 1 everywhere.
        dtype: "float32" (default) or "float64".

    Attributes:
        positions: pairs (x, y), arcsec, at which the brightness is wanted: x `[1, nx * samples]` and
            y `[ny * samples, 1]` of the even grid (padding included), then, if `refine` says so, x and y
            `[1, nodes of all refined pixels]`.

    Raises:
        ParameterError: an unknown quadrature; numbers of samples or padding that are not whole; a map that does not
            hold whole numbers from 1 or has another shape than the grid.

    Example:
        >>> pixels = PixelIntegration(PixelGrid((2, 3), 1.0), samples=2, quadrature="gauss-legendre", dtype="float64")
        >>> ((x, y),) = pixels.positions
        >>> pixels.mean([tf.constant(x**2 + 0 * y)]).numpy().round(6)[0]
        array([1.083333, 0.083333, 1.083333])
    """

    def __init__(
        self,
        grid: PixelGrid,
        samples: int = 1,
        quadrature: str = "midpoint",
        padding: int = 0,
        refine: np.ndarray | None = None,
        dtype: str = "float32",
    ) -> None:
        if quadrature not in _RULES:
            raise ParameterError(f"quadrature must be one of {sorted(_RULES)}, got {quadrature!r}")
        grid.coordinates(samples, padding)  # refuses what is not whole
        self._shape = tuple(n + 2 * padding for n in grid.shape)
        self._samples = samples
        x, y = (v.ravel() for v in grid.coordinates(padding=padding))
        nodes, self._weights = _RULES[quadrature](samples)
        fine_x, fine_y = ((v[:, None] + grid.pixel_scale * nodes).ravel() for v in (x, y))
        positions = [(fine_x[None, :], fine_y[:, None])]
        refine = np.ones(self._shape, int) if refine is None else np.pad(_checked(refine, grid.shape), padding)
        self._refined = refine > 1
        # Refined pixels in the order of their nodes: one number of the map after the other.
        self._places, self._fine_weights, self._counts, fine = np.empty(0, np.int32), [], [], []
        for parts in np.unique(refine[self._refined]):
            offsets, weights = _composite(nodes, self._weights, int(parts))
            offset_x, offset_y = np.meshgrid(grid.pixel_scale * offsets, grid.pixel_scale * offsets)
            rows, columns = np.nonzero(refine == parts)
            fine.append([(offset_x.reshape(-1, 1) + x[columns]).ravel(), (offset_y.reshape(-1, 1) + y[rows]).ravel()])
            self._fine_weights.append(np.outer(weights, weights).reshape(-1, 1))
            self._counts.append(rows.size)
            self._places = np.append(self._places, np.int32(rows * self._shape[1] + columns))
        if fine:
            positions.append(tuple(np.concatenate(fine, axis=1)[:, None, :]))
        self.positions: tuple[Position, ...] = tuple((x.astype(dtype), y.astype(dtype)) for x, y in positions)

    def mean(self, brightness: Sequence[tf.Tensor]) -> tf.Tensor:
        """The pixels' means `[...batch, ny, nx]` (padding included) of brightness at each of `positions`."""
        even, *refined = brightness
        mean = self._even(even)
        if not refined:
            return mean
        means, start = [], 0
        for weights, count in zip(self._fine_weights, self._counts, strict=True):
            stop = start + weights.size * count
            nodes = tf.reshape(refined[0][..., 0, start:stop], tf.concat([tf.shape(even)[:-2], [-1, count]], 0))
            means.append(tf.reduce_sum(nodes * tf.constant(weights, nodes.dtype), -2))
            start = stop
        values = tf.concat(means, -1)
        return tf.where(self._refined, _placed(values, self._places, self._shape), mean)

    def _even(self, brightness: tf.Tensor) -> tf.Tensor:
        if self._samples == 1:
            return brightness
        (ny, nx), s = self._shape, self._samples
        # XLA would compute the light inside the sum's loop, where nothing is vectorised; what is used twice is written
        # out first. (Where its first value is not finite, no other is of use.)
        brightness = brightness + 0 * brightness[..., :1, :1]
        blocks = tf.reshape(brightness, tf.concat([tf.shape(brightness)[:-2], [ny, s, nx, s]], 0))
        if np.ptp(self._weights) < 1e-12:  # midpoints, and the two nodes of Gauss and Legendre
            return tf.reduce_mean(blocks, [-3, -1])
        weights = np.multiply.outer(self._weights, self._weights)[:, None, :]
        return tf.reduce_sum(blocks * tf.constant(weights, blocks.dtype), [-3, -1])


def _composite(nodes: np.ndarray, weights: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """The rule applied to each of `parts` equal parts of the interval."""
    middles = (np.arange(parts) + 0.5) / parts - 0.5
    return (middles[:, None] + nodes / parts).ravel(), np.tile(weights / parts, parts)


def _checked(refine: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    refine = np.asarray(refine)
    if refine.dtype.kind not in "iu" or refine.shape != shape or (refine < 1).any():
        raise ParameterError(
            f"refine must hold whole numbers >= 1 in the shape of the grid, {shape}; "
            f"got {refine.dtype} of shape {refine.shape}" + (f" from {refine.min()}" if refine.size else "")
        )
    return refine


def _placed(values: tf.Tensor, places: np.ndarray, shape: tuple[int, int]) -> tf.Tensor:
    """Values `[...batch, n]` at n places of the flat image `[ny, nx]`, anything elsewhere."""
    index = np.zeros(shape, np.int32)
    index.flat[places] = np.arange(places.size)

    # TensorFlow's own gradient of a gather is a scatter, serial on a CPU; here it is a gather again.
    @tf.custom_gradient
    def place(values: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.gather(tf.reshape(upstream, tf.concat([tf.shape(upstream)[:-2], [-1]], 0)), places, axis=-1)

        return tf.gather(values, index, axis=-1), gradient

    return place(values)
