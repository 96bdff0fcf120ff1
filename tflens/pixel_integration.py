"""From surface brightness at points to its mean over each pixel."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid

Position = tuple[np.ndarray | tf.Variable, np.ndarray | tf.Variable]

# Nodes in [-1/2, 1/2] and weights of unit sum.
_RULES = {
    "midpoint": lambda n: ((np.arange(n) + 0.5) / n - 0.5, np.full(n, 1 / n)),
    "gauss-legendre": lambda n: tuple(v / 2 for v in np.polynomial.legendre.leggauss(n)),
}


class _Refined(NamedTuple):
    """Pixels that are divided into parts, constants or variables.

    Attributes:
        x, y: of their nodes, `[1, nodes]`.
        slots: the number of each pixel of the image among them, `[ny, nx]`, -1 for those that are not.
        places: of each in the flat image, `[slots]`.
        used: whether a slot is, `[slots]`.
    """

    x: np.ndarray | tf.Variable
    y: np.ndarray | tf.Variable
    slots: np.ndarray | tf.Variable
    places: np.ndarray | tf.Variable
    used: np.ndarray | tf.Variable


class PixelIntegration:
    """Where in each pixel the light is sampled, and how the samples become the pixel's mean.

    A product rule of `samples` x `samples` nodes a pixel: equal midpoints (error ~ second derivative / samples^2), or
    Gauss-Legendre (exact for polynomials up to degree 2 samples - 1, so far better where the light is smooth inside a
    pixel, and no better at a cusp). Where the map `refine` is above 1 the rule is applied to each of
    `refine` x `refine` parts of the pixel instead. The even grid keeps its separate x and y: the nodes of all refined
    pixels are a second, flat set of positions (one, as every set makes compilation longer), whose means replace those
    of the even grid. How many they are is static, hence all shapes are; with `room`, which pixels they are is not.

    Args:
        grid: the pixels.
        samples: nodes along each side of a pixel.
        quadrature: "midpoint" or "gauss-legendre".
        padding: pixels added on every side of the frame.
        refine: whole numbers from 1 `[ny, nx]`, parts along each side of a pixel; None for 1 everywhere.
        room: for how many pixels of each number of parts there is to be room, whatever the map: it can be exchanged
            (`refine_by`), and nothing is compiled again. Room costs as much as it is large, used or not. None for a map
            that stays what it is.
        dtype: "float32" (default) or "float64".

    Attributes:
        grid, padding: as they were given.
        positions: pairs (x, y), arcsec, at which the brightness is wanted: x `[1, nx * samples]` and
            y `[ny * samples, 1]` of the even grid (padding included), then, if `refine` or `room` says so, x and y
            `[1, nodes of all refined pixels]`.

    Raises:
        ParameterError: an unknown quadrature; numbers of samples or padding that are not whole; a map that does not
            hold whole numbers from 1, has another shape than the grid, or for which there is no room; a room that is
            none.

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
        room: Mapping[int, int] | None = None,
        dtype: str = "float32",
    ) -> None:
        if quadrature not in _RULES:
            raise ParameterError(f"quadrature must be one of {sorted(_RULES)}, got {quadrature!r}")
        grid.coordinates(samples, padding)  # refuses what is not whole
        self.grid, self.padding, self._samples, self._dtype = grid, padding, samples, dtype
        self._shape = tuple(n + 2 * padding for n in grid.shape)
        self._x, self._y = (v.ravel() for v in grid.coordinates(padding=padding))
        nodes, self._weights = _RULES[quadrature](samples)
        even = [(v[:, None] + grid.pixel_scale * nodes).ravel().astype(dtype) for v in (self._x, self._y)]
        self._even_positions = even[0][None, :], even[1][:, None]
        refine = np.ones(grid.shape, int) if refine is None else _checked(refine, grid.shape)
        counts = refined_pixels(refine) if room is None else _checked_room(room)
        self._counts = {parts: count for parts, count in sorted(counts.items()) if count}
        rules = {parts: _composite(nodes, self._weights, parts) for parts in self._counts}
        self._offsets = {parts: grid.pixel_scale * offsets for parts, (offsets, _) in rules.items()}
        self._fine_weights = {parts: np.outer(w, w).reshape(-1, 1) for parts, (_, w) in rules.items()}
        self._fine = self._refined(refine)
        self._is_fixed = room is None
        if not self._is_fixed:
            self._fine = _Refined(*(tf.Variable(value, trainable=False) for value in self._fine))

    @property
    def positions(self) -> list[Position]:
        fine = [(self._fine.x, self._fine.y)] if self._counts else []
        return [self._even_positions, *fine]

    @property
    def size(self) -> int:
        """How many positions there are."""
        nodes = sum(self._fine_weights[parts].size * count for parts, count in self._counts.items())
        return self._even_positions[0].size * self._even_positions[1].size + nodes

    def refine_by(self, refine: np.ndarray) -> None:
        """Exchanges the map of an integration with `room`.

        Raises:
            ParameterError: it is not a map of this grid, or there is no room for it.
        """
        if self._is_fixed:
            raise ParameterError("refine_by: the map was given without `room`, so it cannot be exchanged; give `room`")
        for variable, value in zip(self._fine, self._refined(_checked(refine, self.grid.shape)), strict=True):
            variable.assign(value)

    def mean(self, brightness: Sequence[tf.Tensor]) -> tf.Tensor:
        """The pixels' means `[...batch, ny, nx]` (padding included) of brightness at each of `positions`."""
        even, *refined = brightness
        mean = self._even(even)
        if not refined:
            return mean
        means, start = [], 0
        for parts, count in self._counts.items():
            weights = self._fine_weights[parts]
            stop = start + weights.size * count
            nodes = tf.reshape(refined[0][..., 0, start:stop], tf.concat([tf.shape(even)[:-2], [-1, count]], 0))
            means.append(tf.reduce_sum(nodes * tf.constant(weights, nodes.dtype), -2))
            start = stop
        return tf.where(self._fine.slots >= 0, _placed(tf.concat(means, -1), self._fine), mean)

    def _refined(self, refine: np.ndarray) -> "_Refined":
        """Refined pixels in the order of their nodes, one number of parts after the other. Room that is left over is
        spent on the first pixel, and nobody looks at it."""
        wanted = refined_pixels(refine)
        for parts, count in wanted.items():
            if count > self._counts.get(parts, 0):
                raise ParameterError(
                    f"refine has {count} pixels of {parts} x {parts} parts, but there is room for "
                    f"{self._counts.get(parts, 0)}: give more `room`"
                )
        refine = np.pad(refine, self.padding, constant_values=1)
        slots = np.full(refine.shape, -1, np.int32)
        x, y, places, used = [], [], [], []
        for parts, room in self._counts.items():
            rows, columns = np.nonzero(refine == parts)
            slots[rows, columns] = len(places) + np.arange(rows.size)
            left = room - rows.size
            rows, columns = np.pad(rows, (0, left)), np.pad(columns, (0, left))
            offset_x, offset_y = np.meshgrid(self._offsets[parts], self._offsets[parts])
            x.append((offset_x.reshape(-1, 1) + self._x[columns]).ravel())
            y.append((offset_y.reshape(-1, 1) + self._y[rows]).ravel())
            places += (rows * refine.shape[1] + columns).tolist()
            used += [True] * (room - left) + [False] * left
        x, y = (np.concatenate([np.empty(0), *each])[None].astype(self._dtype) for each in (x, y))
        return _Refined(x, y, slots, np.array(places, np.int32), np.array(used, bool))

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


def refined_pixels(refine: np.ndarray) -> dict[int, int]:
    """How many pixels of a map are divided into how many parts along each side, those that are not apart.

    Example:
        >>> refined_pixels(np.array([[1, 4, 4], [16, 1, 1]]))
        {4: 2, 16: 1}
    """
    parts, counts = np.unique(refine[refine > 1], return_counts=True)
    return dict(zip(parts.tolist(), counts.tolist(), strict=True))


def _checked(refine: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    refine = np.asarray(refine)
    if refine.dtype.kind not in "iu" or refine.shape != shape or (refine < 1).any():
        raise ParameterError(
            f"refine must hold whole numbers >= 1 in the shape of the grid, {shape}; "
            f"got {refine.dtype} of shape {refine.shape}" + (f" from {refine.min()}" if refine.size else "")
        )
    return refine


def _checked_room(room: Mapping[int, int]) -> Mapping[int, int]:
    for parts, count in room.items():
        if not isinstance(parts, int | np.integer) or not isinstance(count, int | np.integer) or parts < 2 or count < 0:
            raise ParameterError(
                "room must tell for whole numbers of parts from 2 how many pixels, from 0, there is room for; got "
                f"{parts!r}: {count!r}"
            )
    return room


def _placed(values: tf.Tensor, fine: "_Refined") -> tf.Tensor:
    """Means `[...batch, slots]` at their pixels of the image `[...batch, ny, nx]`, anything elsewhere."""

    # TensorFlow's own gradient of a gather is a scatter, serial on a CPU; here it is a gather again.
    @tf.custom_gradient
    def place(values: tf.Tensor):
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(upstream, tf.concat([tf.shape(upstream)[:-2], [-1]], 0))
            return tf.where(fine.used, tf.gather(flat, fine.places, axis=-1), tf.zeros([], upstream.dtype))

        return tf.gather(values, tf.maximum(fine.slots, 0), axis=-1), gradient

    return place(values)
