"""The decoder: from latent variables to a galaxy before the PSF."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


@keras.saving.register_keras_serializable("tflens")
class Decoder(keras.Model):
    """A galaxy of unit flux from its latent variables; transposed convolutions in the DCGAN manner.

    Radford et al. 2016 (arXiv:1511.06434), with smooth activations and without batch normalisation, so that the
    image is a smooth and deterministic function of z. A softmax over the pixels makes it positive and of unit sum.

    Args:
        latent_dim: D.
        stamp_size: pixels on a side, a multiple of 2^(number of layers).
        filters: channels of the coarsest image, then of each image of twice its size.
        smoothing: weight of either neighbour in a filter along x and y on the logits; 0.25 removes the shortest
            wavelength, two pixels, altogether.

    Input shape: `[batch, D]`; `xla=True` chooses the form of the same function that is fast inside
    `tf.function(jit_compile=True)`.

    Output shape: `[batch, stamp_size, stamp_size]`.

    Example:
        >>> decoder = Decoder(latent_dim=3, stamp_size=16, filters=(8, 8, 4))
        >>> image = decoder(tf.zeros((2, 3)))
        >>> image.shape, abs(float(tf.reduce_sum(image[0])) - 1) < 1e-5
        (TensorShape([2, 16, 16]), True)
    """

    def __init__(
        self,
        latent_dim: int = 32,
        stamp_size: int = 64,
        filters: tuple[int, ...] = (192, 128, 64, 32, 16),
        smoothing: float = 0.25,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latent_dim = latent_dim
        self.stamp_size = stamp_size
        self.filters = tuple(filters)
        self.smoothing = smoothing
        self.side = stamp_size // 2 ** (len(self.filters) - 1)
        self.dense = layers.Dense(
            self.side**2 * self.filters[0],
            activation="silu",
            kernel_initializer=keras.initializers.VarianceScaling(2.8, "fan_in"),
        )
        self.upsampling = [Upsampling(channels) for channels in self.filters[1:]]
        # Fluxes span many decades, so their logarithms are float32 also in mixed precision.
        self.logits = layers.Conv2D(1, 3, padding="same", dtype="float32")
        taps = [smoothing, 1 - 2 * smoothing, smoothing]
        self._filter = np.outer(taps, taps).astype(np.float32)[:, :, None, None]

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, self.latent_dim))
        side = self.side
        for layer, channels in zip(self.upsampling, self.filters, strict=False):
            layer.build((None, side, side, channels))
            side *= 2
        self.logits.build((None, side, side, self.filters[-1]))
        self.built = True

    def call(self, z: tf.Tensor, xla: bool = False) -> tf.Tensor:
        x = ops.reshape(self.dense(z), (-1, self.side, self.side, self.filters[0]))
        for layer in self.upsampling:
            x = ops.silu(layer(x, xla=xla))
        # Transposed convolutions leave a checkerboard, which the PSF hides in training but a lens would magnify.
        logits = tf.nn.conv2d(self.logits(x), self._filter, 1, "SAME")
        logits = ops.reshape(logits, (-1, self.stamp_size**2))
        return ops.reshape(ops.softmax(logits), (-1, self.stamp_size, self.stamp_size))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "stamp_size": self.stamp_size,
            "filters": self.filters,
            "smoothing": self.smoothing,
        }


@keras.saving.register_keras_serializable("tflens")
class Upsampling(layers.Layer):
    """Transposed convolution with a kernel of 4 and a stride of 2, in two forms that agree.

    oneDNN's transposed convolution is the fastest in graph mode; XLA on a CPU runs it twice as slowly as the same sum
    written as a 2 x 2 convolution whose channels are the four sub-pixels.

    Args:
        filters: channels of the output.

    Input shape: `[batch, ny, nx, channels]`. Output shape: `[batch, 2 ny, 2 nx, filters]`.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            shape=(4, 4, self.filters, input_shape[-1]), initializer=_keep_variance, name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor, xla: bool = False) -> tf.Tensor:
        kernel = ops.convert_to_tensor(self.kernel)
        return (self._subpixels(x, kernel) if xla else self._transposed(x, kernel)) + self.bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}

    def _transposed(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        shape = [tf.shape(x)[0], 2 * x.shape[1], 2 * x.shape[2], self.filters]
        result = tf.nn.conv2d_transpose(x, kernel, shape, 2)
        # Not tf.ensure_shape, through which a ForwardAccumulator cannot differentiate.
        result.set_shape([x.shape[0], *shape[1:]])
        return result

    def _subpixels(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # Output pixel 2 p - 1 + b is the sum over a = 0, 1 of input p - 1 + a times kernel tap 2 - 2 a + b.
        channels = x.shape[-1]
        taps = tf.reshape(kernel, [2, 2, 2, 2, self.filters, channels])[::-1, :, ::-1]  # [ay, by, ax, bx, out, in]
        taps = tf.reshape(tf.transpose(taps, [0, 2, 5, 1, 3, 4]), [2, 2, channels, 4 * self.filters])
        windows = tf.nn.conv2d(x, taps, 1, [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.nn.depth_to_space(windows, 2)[:, 1:-1, 1:-1]


def _keep_variance(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
    # Each output pixel sums 4 of the 16 taps of each input channel; silu keeps 0.36 of the variance of N(0, 1).
    return keras.random.normal(shape, stddev=(2.8 / (4 * shape[-1])) ** 0.5, dtype=dtype)
