"""Convolution with the point-spread function."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
import tensorflow as tf

from tflens.errors import ParameterError

METHODS = ("auto", "direct", "fft", "low-rank")

Operator = Callable[[tf.Tensor], tf.Tensor]


class PSF:
    """A measured point-spread function, ready to be applied to images of one shape.

    Convolution is linear (zero outside the frame, nothing wraps around). Three operators do it:

    - "direct": a sum of shifted images, for kernels of a few pixels; exact.
    - "low-rank": the kernel's singular value decomposition, K_r = sum of r products of a column and a row, as
      products with banded matrices, B_1 I A_1^T + ... + B_r I A_r^T. The rank is the lowest with
      sum |K - K_r| <= `tolerance` sum K, so that an image is wrong by at most `tolerance` times its highest
      (unconvolved) pixel. 1e-5 leaves a pixel of a hundred times the convolved peak, itself at S/N 50, with an error
      below 1/20 of the noise; a Gaussian has rank 1, a Moffat about 7, a noisy measured kernel nearly all its rows.
    - "fft": exact to rounding, at one price for all kernels.

    "auto" takes the one of least estimated cost. Gradients are exact: the adjoint, by the same operator.

    Args:
        kernel: `[ky, kx]`, odd on both sides, on a scale of pixel / `supersampling`; normalised to unit sum here.
        image_shape: `(ny, nx)` of the images that come out.
        method: "auto" (default), "direct", "fft" or "low-rank".
        tolerance: of "low-rank", see there; 0 for all ranks.
        supersampling: cells along each side of a pixel on which the kernel and the images to be convolved are given.
            The result is the mean over the cells of a pixel.
        padding: pixels that the images to be convolved have on every side around the frame that comes out.
        dtype: of the images, "float32" (default) or "float64".

    Attributes:
        kernel: `[ky, kx]`, of unit sum.
        method: the one in use.
        rank: of the kernel to within `tolerance`.
        error_bound: largest error in units of the highest pixel: sum |K - K_r|, or 0 (rounding) if exact.

    Raises:
        ParameterError: the kernel is not two-dimensional, is even, is not finite, or its sum is not positive; the
            image shape is not two positive integers; an unknown method or dtype; a negative tolerance;
            `supersampling` or `padding` are not whole numbers from 1 and 0.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> psf = PSF(np.ones([3, 3]), image_shape=(4, 5))
        >>> point = tf.scatter_nd([[1, 2]], [9.0], [4, 5])
        >>> np.round(psf.convolve(point).numpy()[1], 3) + 0.0
        array([0., 1., 1., 1., 0.], dtype=float32)
        >>> psf.method, psf.rank
        ('low-rank', 1)
    """

    def __init__(
        self,
        kernel: np.ndarray,
        image_shape: tuple[int, int],
        *,
        method: str = "auto",
        tolerance: float = 1e-5,
        supersampling: int = 1,
        padding: int = 0,
        dtype: str = "float32",
    ) -> None:
        kernel = np.asarray(kernel, dtype=np.float64)
        if kernel.ndim != 2 or any(n % 2 == 0 for n in kernel.shape):
            raise ParameterError(f"a PSF kernel must be two-dimensional with odd sides, got shape {kernel.shape}")
        if not np.isfinite(kernel).all() or kernel.sum() <= 0:
            raise ParameterError(f"a PSF kernel must be finite with a positive sum, got sum {kernel.sum()}")
        if len(image_shape) != 2 or any(n < 1 for n in image_shape):
            raise ParameterError(f"PSF.image_shape must be two positive integers (ny, nx), got {image_shape!r}")
        if method not in METHODS:
            raise ParameterError(f"PSF.method must be one of {list(METHODS)}, got {method!r}")
        if not 0 <= tolerance < 1:
            raise ParameterError(f"PSF.tolerance must lie in [0, 1), got {tolerance!r}")
        for name, value, least in (("supersampling", supersampling, 1), ("padding", padding, 0)):
            if not (isinstance(value, int | np.integer) and value >= least):
                raise ParameterError(f"PSF.{name} must be a whole number >= {least}, got {value!r}")
        if dtype not in ("float32", "float64"):
            raise ParameterError(f'PSF.dtype must be "float32" or "float64", got {dtype!r}')
        self.kernel = kernel / kernel.sum()
        self.image_shape = tuple(int(n) for n in image_shape)
        self.tolerance, self.supersampling, self.padding, self.dtype = tolerance, supersampling, padding, dtype
        frame = _Frame(self.image_shape, supersampling, padding, dtype)
        self._input_shape = frame.cells
        columns, rows, error = _factors(self.kernel, tolerance)
        self.rank = columns.shape[1]
        costs = _costs(frame, self.kernel.shape, self.rank)
        self.method = min(costs, key=costs.__getitem__) if method == "auto" else method
        self.error_bound = error if self.method == "low-rank" else 0.0
        self._operator = {
            "direct": lambda: _direct(frame, self.kernel),
            "fft": lambda: _fft(frame, self.kernel),
            "low-rank": lambda: _low_rank(frame, columns, rows),
        }[self.method]()

    def convolve(self, image: tf.Tensor) -> tf.Tensor:
        """Convolves images `[...batch, (ny + 2 padding) s, (nx + 2 padding) s]` to `[...batch, ny, nx]`.

        Values are per pixel, not per cell, on both sides: a constant stays what it is away from the edges. Light
        beyond the padding does not enter.

        Raises:
            ParameterError: the images have another shape than the one this PSF was made for.
        """
        image = tf.cast(image, self.dtype)
        ny, nx = self._input_shape
        if not image.shape[-2:].is_compatible_with([ny, nx]):
            raise ParameterError(
                f"PSF.convolve: images must be [..., {ny}, {nx}], as this PSF was made for, got shape {image.shape}"
            )
        return self._operator(image)


@dataclass(frozen=True)
class _Frame:
    """What goes in and what comes out: `padding` and `supersampling` as `PSF` takes them."""

    image_shape: tuple[int, int]
    supersampling: int
    padding: int
    dtype: str

    @property
    def cells(self) -> tuple[int, int]:
        return tuple((n + 2 * self.padding) * self.supersampling for n in self.image_shape)

    @property
    def cropped_cells(self) -> tuple[int, int]:
        return tuple(n * self.supersampling for n in self.image_shape)

    @property
    def margin(self) -> int:
        """Padding in cells."""
        return self.padding * self.supersampling

    def pooled(self, cells: tf.Tensor) -> tf.Tensor:
        """Mean over the cells of each pixel."""
        if self.supersampling == 1:
            return cells
        (ny, nx), s = self.image_shape, self.supersampling
        return tf.reduce_mean(tf.reshape(cells, tf.concat([tf.shape(cells)[:-2], [ny, s, nx, s]], 0)), [-3, -1])


def _costs(frame: _Frame, kernel_shape: tuple[int, int], rank: int) -> dict[str, float]:
    """Estimated cost of each operator for one image, in multiply-adds of a matrix product.

    Measured under XLA on two cores, value and gradient of 16 images of 100 x 100 pixels: 0.41 ms for each rank, 0.03
    for each pixel of a direct kernel, 1.25 by FFT (so the FFT wins from rank 3 or 4 on).
    """
    (my, mx), (ny, nx) = frame.cells, frame.image_shape
    lengths = _fft_lengths(frame, kernel_shape)
    taps = int(np.prod(kernel_shape))
    return {
        # Beyond 5 x 5 XLA takes long to compile what it would rarely win by.
        "direct": 15.0 * taps * np.prod(frame.cropped_cells) if taps <= 25 else np.inf,
        "low-rank": float(rank * my * nx * (mx + ny)),
        "fft": 36 * np.prod(lengths) * np.log2(np.prod(lengths) + 1.0),
    }


def _adjoint_pair(forward: Operator, adjoint: Operator) -> Operator:
    """The linear map `forward` with its adjoint as gradient, and the other way round for the second derivative."""

    @tf.custom_gradient
    def apply(image: tf.Tensor):
        return forward(image), _adjoint_pair(adjoint, forward)

    return apply


def _direct(frame: _Frame, kernel: np.ndarray) -> Operator:
    """Sum of shifted images. Its adjoint is the flipped kernel, from the cropped frame back to the padded one."""

    def shifts(kernel: np.ndarray, start: int, shape: tuple[int, int]) -> Operator:
        """out[i] = sum over a of kernel[a] in[i + start - a], with a counted from the kernel's middle."""

        def apply(image: tf.Tensor) -> tf.Tensor:
            half = [n // 2 for n in kernel.shape]
            low = [max(h - start, 0) for h in half]
            high = [max(start + h + n - m, 0) for h, n, m in zip(half, shape, image.shape[-2:], strict=True)]
            edges = [[0, 0]] * (len(image.shape) - 2) + [list(pair) for pair in zip(low, high, strict=True)]
            image = tf.pad(image, edges)
            y, x = (p + start + h for p, h in zip(low, half, strict=True))
            terms = [
                tf.constant(weight, image.dtype) * image[..., y - a : y - a + shape[0], x - b : x - b + shape[1]]
                for (a, b), weight in np.ndenumerate(kernel)
                if weight != 0
            ]
            return tf.add_n(terms)

        return apply

    convolve = _adjoint_pair(
        shifts(kernel, frame.margin, frame.cropped_cells), shifts(kernel[::-1, ::-1], -frame.margin, frame.cells)
    )
    return lambda image: frame.pooled(convolve(image))


def _fft_lengths(frame: _Frame, kernel_shape: tuple[int, int]) -> list[int]:
    # Zeros for the part of half a kernel that the padding does not cover: what wraps around then falls outside.
    needed = [max(n + max(k // 2 - frame.margin, 0), k) for n, k in zip(frame.cells, kernel_shape, strict=True)]
    return [scipy.fft.next_fast_len(n, real=True) for n in needed]


def _fft(frame: _Frame, kernel: np.ndarray) -> Operator:
    """Product of spectra. The crop of the padding is a shift of the kernel, so that the adjoint is the conjugate."""
    lengths = _fft_lengths(frame, kernel.shape)
    padded = np.zeros(lengths)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    spectrum = np.fft.rfft2(np.roll(padded, [-(n // 2) - frame.margin for n in kernel.shape], axis=(0, 1)))
    spectrum = spectrum.astype(np.complex64 if frame.dtype == "float32" else np.complex128)
    convolve = _spectral(spectrum, spectrum.conj(), lengths, frame.cropped_cells, frame.cells)
    return lambda image: frame.pooled(convolve(image))


def convolve_by_fft(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolution by a kernel that is itself a tensor of a program; else take `PSF`.

    Light beyond the frame does not enter, and nothing wraps around. Exact to rounding. It can be differentiated by the
    images, not by the kernel.

    Args:
        images: `[...batch, ny, nx]`, per pixel in any unit, which the result shares; their last two sides are static.
        kernel: `[ky, kx]`, static and odd on both sides, on the images' pixels; taken as it is, not normalised.

    Returns:
        Images `[...batch, ny, nx]`.

    Raises:
        ParameterError: the kernel has an even side.

    Example:
        >>> convolve_by_fft(tf.ones([3, 4]), tf.ones([3, 3]) / 9).numpy().round(3)[0]
        array([0.444, 0.667, 0.667, 0.444], dtype=float32)
    """
    if any(n % 2 == 0 for n in kernel.shape):
        raise ParameterError(f"convolve_by_fft: the kernel must have odd sides, so a middle, got shape {kernel.shape}")
    frame = _Frame(tuple(images.shape[-2:]), supersampling=1, padding=0, dtype=images.dtype.name)
    lengths = _fft_lengths(frame, tuple(kernel.shape))
    padded = tf.pad(kernel, [[0, length - n] for length, n in zip(lengths, kernel.shape, strict=True)])
    spectrum = tf.signal.rfft2d(tf.roll(padded, [-(n // 2) for n in kernel.shape], axis=(0, 1)))
    return _spectral(spectrum, tf.math.conj(spectrum), lengths, frame.cells, frame.cells)(images)


def _spectral(
    spectrum: np.ndarray | tf.Tensor,
    conjugate: np.ndarray | tf.Tensor,
    lengths: list[int],
    out: tuple[int, int],
    into: tuple[int, int],
) -> Operator:
    """Product with a spectrum, of images of shape `into` to images of shape `out`."""

    def multiply(spectrum: np.ndarray | tf.Tensor, shape: tuple[int, int]) -> Operator:
        def apply(image: tf.Tensor) -> tf.Tensor:
            # The transform pads what it is given. XLA would compute the image inside of that loop, where nothing is
            # vectorised; what is used twice is written out first. (Its first pixel is finite, or no pixel will be.)
            image = image + 0 * image[..., :1, :1]
            product = tf.signal.rfft2d(image, fft_length=lengths) * spectrum
            return tf.signal.irfft2d(product, fft_length=lengths)[..., : shape[0], : shape[1]]

        return apply

    # TensorFlow's gradient of these transforms goes through complex ones of the whole plane.
    return _adjoint_pair(multiply(spectrum, out), multiply(conjugate, into))


def _factors(kernel: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Columns `[ky, r]` and rows `[r, kx]` of the lowest rank r within the tolerance, and sum |K - K_r|."""
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    columns, rows = left * values, right
    for rank in range(1, values.size + 1):
        error = float(np.abs(kernel - columns[:, :rank] @ rows[:rank]).sum())
        if error <= tolerance:
            break
    return columns[:, :rank], rows[:rank], error


def _low_rank(frame: _Frame, columns: np.ndarray, rows: np.ndarray) -> Operator:
    """Products with banded matrices, all images of a batch in one; the pooling and the crop are part of them."""
    (my, mx), (ny, nx) = frame.cells, frame.image_shape
    rank = len(rows)
    # The index of the rank stands next to the contracted one, so that one product on each side does all ranks.
    along_x = np.stack([_banded(row, frame, nx, mx) for row in rows], -1).transpose(1, 2, 0).reshape(mx, rank * nx)
    along_y = np.stack([_banded(column, frame, ny, my) for column in columns.T], -1).reshape(ny, my * rank)

    def apply(image: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(image)[:-2]
        product = tf.matmul(tf.reshape(image, [-1, mx]), tf.constant(along_x, image.dtype))
        product = tf.matmul(tf.constant(along_y[None], image.dtype), tf.reshape(product, [-1, my * rank, nx]))
        return tf.reshape(product, tf.concat([batch, [ny, nx]], 0))

    return apply


def _banded(profile: np.ndarray, frame: _Frame, pixels: int, cells: int) -> np.ndarray:
    """Matrix `[pixels, cells]` of a one-dimensional convolution, then the crop and the mean over a pixel's cells."""
    s = frame.supersampling
    index = np.arange(pixels * s)[:, None] + frame.margin - np.arange(cells) + profile.size // 2
    inside = (index >= 0) & (index < profile.size)
    matrix = np.where(inside, profile[np.clip(index, 0, profile.size - 1)], 0.0)
    return matrix.reshape(pixels, s, cells).mean(1)
