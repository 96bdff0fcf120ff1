"""What the likelihood sees of an observation, in tensors of fixed shapes that are exchanged from lens to lens."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

_LEAST_TOLD, _FURTHEST = 1e-6, 20.0  # within which the exponential of a volume is finite


class Forgiven(Protocol):
    """What the model of a source may miss: a field beside it, whose patterns `LensTarget.forgive` takes for noise.

    Attributes:
        amplitude: of the source, counts/s, with which the field was found.
        stamps: `[n, ny, nx]`, the patterns in the source, counts/s per pixel of its stamp.
        images: `[n, ny, nx]`, seen through the lens with which it was found, counts/s per pixel.
        mean: `[n]`, what the data expect of the patterns' coefficients where the network draws nothing.
        slope: `[n, ny, nx]`, how that changes with what it draws, per pixel of unit flux.
        stays: `[n]`, the share of each pattern's variance that is marginalised, from 0 to 1.
        volume: `[physical_dim]`, the derivative of -1/2 log det(1 + P P^T) by the physical part of u, where P are the
            whitened patterns as the lens at u shows them.
        point: `[physical_dim]`, where the field was found.
        told: half of the number of coefficients that the data tell, sum v / (1 + v) / 2 for patterns of variance v
            beside unit noise.
    """

    amplitude: float
    stamps: np.ndarray
    images: np.ndarray
    mean: np.ndarray
    slope: np.ndarray
    volume: np.ndarray
    point: np.ndarray

    @property
    def stays(self) -> np.ndarray: ...

    @property
    def told(self) -> float: ...

    @property
    def modes(self) -> np.ndarray:
        """`[n, pixels]` of whitened images, orthogonal, of length sqrt(1 - 1 / sqrt(1 + v)) where the variance of what
        stays is v beside the noise's 1: what `tflens.whitening.deflate` takes."""

    def coefficients(self, residual: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Mean coefficients of what stays given whitened residuals `[..., pixels]`, or a draw of them."""


class Beside(NamedTuple):
    """What a lens is seen to have beside the image of its only source: the expected part of a field.

    A field S c, in patterns S, is the sum of two. One, with a share k of the variance, is marginalised as it is seen
    through one lens, A_0, and stays as that shows it. The other is what the data expect, and moves with the lens A. If
    the data expect c* of both, the image is A (t + S c*) - A_0 S k c*, beside which the first has its covariance and a
    mean of 0; and the other has the prior (1 - k) |c*|^2 / 2. What the network draws, t, and the field add up to what
    is seen, so c* changes with t. Where A is A_0 all of this is the field marginalised, whatever k is. Elsewhere what
    stays must be too weak to explain the image by itself, for the lens would then be free.

    The more a lens magnifies, the better the data tell c, and the less of it they allow: the volume, exp(-1/2 log det),
    of the marginalised field changes with the lens. Without it a fit would be drawn to lenses that magnify more, which
    need less of a field to explain as much light. Its logarithm is taken for T (1 - exp(-x / T)), where x is linear in
    u, and T half of the number of coefficients that the data tell: so it goes if all patterns grow alike, and so it
    cannot grow without bound.

    Both together have the value and the slope by u that a field seen through each lens has where it was found, and
    nearly its curvature (variable projection: Golub & Pereyra 2003, Inverse Problems 19, R1).

    Attributes:
        stamps: `[n, ny, nx]`, the patterns, as parts of a source of unit amplitude.
        mean: `[n]`, c* where the network draws nothing.
        slope: `[n, ny, nx]`, by which it changes.
        images: `[n, ny, nx]`, what stays of the patterns, seen through the lens with which the field was found.
        moves: `[n]`, roots of the shares that move, for a source of unit amplitude.
        volume, point: slope of the log volume, and where it is 0, `[physical_dim]`.
        told: T, a number.

    Example:
        >>> one, zero = tf.ones([1, 1, 1]), tf.zeros([1])
        >>> beside = Beside(one, tf.constant([3.0]), -one, one, zero, zero, zero, tf.ones([]))
        >>> (whole,), expected = beside.add([tf.constant([[[2.0]]])])
        >>> float(expected[0, 0]), float(whole[0, 0, 0])
        (1.0, 3.0)
    """

    stamps: tf.Tensor
    mean: tf.Tensor
    slope: tf.Tensor
    images: tf.Tensor
    moves: tf.Tensor
    volume: tf.Tensor
    point: tf.Tensor
    told: tf.Tensor

    @classmethod
    def none(
        cls, dtype: str, patterns: int = 0, stamp: Sequence[int] = (0, 0), image: Sequence[int] = (0, 0), dim: int = 0
    ) -> "Beside":
        """Nothing, with room for patterns in stamps and images of given shapes and `dim` physical parameters."""
        n = [patterns]
        shapes = ([*n, *stamp], n, [*n, *stamp], [*n, *image], n, [dim], [dim], [])
        return cls(*(tf.zeros(shape, dtype) for shape in shapes))

    @property
    def room(self) -> int:
        """For how many patterns."""
        return int(self.mean.shape[-1])

    def take(self, found: Forgiven | None) -> None:
        """Takes over a field, into variables."""
        if not self.room:
            return
        for each in self:
            each.assign(tf.zeros_like(each))
        if found is None:
            return
        unit = Beside(
            stamps=found.stamps / found.amplitude,
            mean=found.mean,
            slope=found.slope,
            images=found.stays[:, None, None] * found.images / found.amplitude,
            moves=np.sqrt(1 - found.stays) / found.amplitude,
            volume=found.volume,
            point=found.point,
            told=np.asarray(found.told),
        )
        for mine, theirs in zip(self, unit, strict=True):
            theirs = tf.cast(theirs, mine.dtype)
            if theirs.shape.rank:
                mine[: len(theirs)].assign(theirs)
            else:
                mine.assign(theirs)

    def add(self, images: Sequence[tf.Tensor]) -> tuple[Sequence[tf.Tensor], tf.Tensor]:
        """The sources' images `[batch, ny, nx]` with what is beside the only one, and the patterns' coefficients
        `[batch, n]`."""
        if not self.room:
            return images, self.mean
        (image,) = images
        flat = tf.reshape(image, [-1, image.shape[-2] * image.shape[-1]])
        coefficients = self.mean + _products(flat, _rows(self.slope), transpose=True)
        return [image + tf.reshape(_products(coefficients, _rows(self.stamps)), [-1, *image.shape[-2:]])], coefficients

    def drawn(self, images: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """What a design is made of: the sources' images with what is beside the only one, `[batch, ny, nx]`; and, if
        there is room for that, its `expected` residuals and what is `staying`.

        Apart from the design, since products with all patterns are cheap only for a whole batch at once.
        """
        whole, coefficients = self.add(images)
        return [*whole, *([self.expected(coefficients), self.staying(coefficients)] if self.room else [])]

    def staying(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Images `[batch, ny, nx]` of what stays of given coefficients `[batch, n]`."""
        return tf.reshape(_products(coefficients, _rows(self.images)), [-1, *self.images.shape[-2:]])

    def expected(self, coefficients: tf.Tensor) -> tf.Tensor:
        """Residuals `[batch, n]` for a source of unit amplitude, whose squares are the prior of what moves."""
        return -self.moves * coefficients

    def log_volume(self, physical: tf.Tensor) -> tf.Tensor:
        """The log volume `[batch]` for the physical part of u `[batch, dim]`."""
        if not self.room:
            return tf.zeros_like(physical[..., 0])
        return self.told * (1 - self._shrinking(physical))

    def volume_slope(self, physical: tf.Tensor) -> tf.Tensor:
        """Its derivative `[batch, dim]`."""
        if not self.room:
            return tf.zeros_like(physical)
        return self.volume * self._shrinking(physical)[..., None]

    def _shrinking(self, physical: tf.Tensor) -> tf.Tensor:
        change = tf.reduce_sum(self.volume * (physical - self.point), -1)
        return tf.exp(tf.minimum(-change / tf.maximum(self.told, _LEAST_TOLD), _FURTHEST))


class Seen(NamedTuple):
    """An observation as the likelihood takes it; or several, with a first axis of lenses.

    Attributes:
        taps, modes: what images are whitened with (`tflens.whitening`), `[taps, ny, nx]` and `[modes, pixels]`.
        data: the whitened image, `[pixels]`, and zeros for the prior of what is beside the source.
        prior_scale: of the amplitudes (`tflens.linear.marginalize`), a number.
        beside: the source's image.
    """

    taps: tf.Tensor
    modes: tf.Tensor
    data: tf.Tensor
    prior_scale: tf.Tensor
    beside: Beside

    def of(self, lens: tf.Tensor) -> "Seen":
        """One of several, or some `[n]` of them."""
        return tf.nest.map_structure(lambda each: tf.gather(each, lens), self)


def _rows(images: tf.Tensor) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    return tf.reshape(images, [*images.shape[:-2], images.shape[-2] * images.shape[-1]])


def _products(rows: tf.Tensor, matrix: tf.Tensor, transpose: bool = False) -> tf.Tensor:
    """Each of rows `[batch, k]` times a matrix; or times one of its own of as many, `[batch, k, m]`."""
    if matrix.shape.rank == 2:
        return tf.matmul(rows, matrix, transpose_b=transpose)
    return tf.matmul(rows[:, None], matrix, transpose_b=transpose)[:, 0]
