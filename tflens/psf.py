"""Convolution with the point-spread function."""

import numpy as np
import scipy.fft
import tensorflow as tf

from tflens.errors import ParameterError


class PSF:
    """A measured point-spread function, ready to be applied to images of one shape.

    Convolution is linear (the frame is zero-padded, nothing wraps around) and by FFT, exact to the rounding of the
    image's dtype. The transform of the kernel is made once, here.

    Args:
        kernel: `[ky, kx]`, odd on both sides, on the image's pixel scale; normalised to unit sum here.
        image_shape: `(ny, nx)` of the images that `convolve` will be given.
        dtype: of the images, "float32" (default) or "float64".

    Raises:
        ParameterError: the kernel is not two-dimensional, is even, is not finite, or its sum is not positive; the
            image shape is not two positive integers; an unknown dtype.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> psf = PSF(np.ones([3, 3]), image_shape=(4, 5))
        >>> point = tf.scatter_nd([[1, 2]], [9.0], [4, 5])
        >>> np.round(psf.convolve(point).numpy()[1], 3) + 0.0
        array([0., 1., 1., 1., 0.], dtype=float32)
    """

    def __init__(self, kernel: np.ndarray, image_shape: tuple[int, int], dtype: str = "float32") -> None:
        kernel = np.asarray(kernel, dtype=np.float64)
        if kernel.ndim != 2 or any(n % 2 == 0 for n in kernel.shape):
            raise ParameterError(f"a PSF kernel must be two-dimensional with odd sides, got shape {kernel.shape}")
        if not np.isfinite(kernel).all() or kernel.sum() <= 0:
            raise ParameterError(f"a PSF kernel must be finite with a positive sum, got sum {kernel.sum()}")
        self.kernel = kernel / kernel.sum()
        if len(image_shape) != 2 or any(n < 1 for n in image_shape):
            raise ParameterError(f"PSF.image_shape must be two positive integers (ny, nx), got {image_shape!r}")
        if dtype not in ("float32", "float64"):
            raise ParameterError(f'PSF.dtype must be "float32" or "float64", got {dtype!r}')
        self.image_shape = tuple(int(n) for n in image_shape)
        self.dtype = dtype
        half = [n // 2 for n in kernel.shape]
        # Half a kernel of zeros is enough: what wraps around then falls outside the frame.
        self._shape = [scipy.fft.next_fast_len(n + h, real=True) for n, h in zip(self.image_shape, half, strict=True)]
        self._shape = [max(s, k) for s, k in zip(self._shape, kernel.shape, strict=True)]
        padded = np.zeros(self._shape)
        padded[: kernel.shape[0], : kernel.shape[1]] = self.kernel
        transfer = np.fft.rfft2(np.roll(padded, [-h for h in half], axis=(0, 1)))
        self._transfer = tf.constant(transfer, tf.complex64 if dtype == "float32" else tf.complex128)

    def convolve(self, image: tf.Tensor) -> tf.Tensor:
        """Convolves `[...batch, ny, nx]` images; light outside the frame does not enter.

        Raises:
            ParameterError: the images have another shape than the one this PSF was made for.
        """
        image = tf.cast(image, self.dtype)
        ny, nx = self.image_shape
        if not image.shape[-2:].is_compatible_with([ny, nx]):
            raise ParameterError(
                f"PSF.convolve: images must be [..., {ny}, {nx}], as this PSF was made for, got shape {image.shape}"
            )
        spectrum = tf.signal.rfft2d(image, fft_length=self._shape)
        return tf.signal.irfft2d(spectrum * self._transfer, fft_length=self._shape)[..., :ny, :nx]
