"""The encoder: from a noisy galaxy to the posterior of its latent variables."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tflens.errors import ParameterError
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.posterior import FlowPosterior, GaussianPosterior, Posterior

POSTERIORS = ("full", "diagonal", "iaf")


@keras.saving.register_keras_serializable("tflens")
class Encoder(keras.Model):
    """q(z | image, sigma), by strided convolutions in the DCGAN manner.

    Radford et al. 2016 (arXiv:1511.06434), without batch normalisation: the noise of a stamp is told to the network
    by its sigma, and must not be mixed with that of its neighbours in the batch.

    Args:
        latent_dim: D.
        stamp_size: pixels on a side, a multiple of 2^(number of layers).
        filters: channels of each strided convolution.
        hidden: units of the dense layer that joins image and noise level.
        posterior: "full", a Gaussian with full covariance; "diagonal", without correlations; or "iaf", the diagonal
            one carried by an inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934).
        context: length of the vector that the network tells the flow of "iaf".
        flow_stages, flow_hidden: of the flow of "iaf".

    Raises:
        ParameterError: an unknown posterior.

    Input shape: image `[batch, n, n]` of unit flux, sigma `[batch]` its noise per pixel.

    Output shape: mean `[batch, D]` of the posterior, and scale `[batch, D, D]`, the lower triangular Cholesky factor
    of its covariance. `posterior` gives the distribution itself.

    Example:
        >>> encoder = Encoder(latent_dim=3, stamp_size=16, filters=(4, 8), hidden=8)
        >>> mean, scale = encoder(tf.zeros((5, 16, 16)), tf.ones(5))
        >>> mean.shape, scale.shape
        (TensorShape([5, 3]), TensorShape([5, 3, 3]))
    """

    def __init__(
        self,
        latent_dim: int = 32,
        stamp_size: int = 64,
        filters: tuple[int, ...] = (24, 48, 96, 128),
        hidden: int = 192,
        posterior: str = "full",
        context: int = 32,
        flow_stages: int = 2,
        flow_hidden: tuple[int, ...] = (64,),
        **kwargs: Any,
    ) -> None:
        if posterior not in POSTERIORS:
            raise ParameterError(f"Encoder: posterior must be one of {', '.join(POSTERIORS)}, got {posterior!r}")
        # Images and noise of unit flux are too small for half precision: they are cast once they are whitened.
        super().__init__(autocast=False, **kwargs)
        self.latent_dim = latent_dim
        self.stamp_size = stamp_size
        self.filters = tuple(filters)
        self.hidden = hidden
        self.posterior_kind = posterior
        self.context_dim = context
        self.flow_stages = flow_stages
        self.flow_hidden = tuple(flow_hidden)
        self.convolutions = [
            layers.Conv2D(
                channels, 4, strides=2, padding="same", activation="silu", kernel_initializer=_keep_variance()
            )
            for channels in self.filters
        ]
        self.flatten = layers.Flatten()
        self.join = layers.Dense(hidden, activation="silu", kernel_initializer=_keep_variance())
        self.mean = layers.Dense(latent_dim, dtype="float32")
        # Starts narrow and without correlation, so that the means can be learned before their noise is.
        narrow = {"kernel_initializer": "zeros", "bias_initializer": keras.initializers.Constant(-1.0)}
        self.diagonal = layers.Dense(latent_dim, dtype="float32", **narrow)
        self.lower = self.context = self.flow = None
        if posterior == "full":
            self.lower = layers.Dense(latent_dim * (latent_dim - 1) // 2, kernel_initializer="zeros", dtype="float32")
            # Row-major places of the entries below the diagonal.
            self._places = [[i, j] for i in range(latent_dim) for j in range(i)]
        if posterior == "iaf":
            self.context = layers.Dense(context, activation="silu", dtype="float32")
            self.flow = InverseAutoregressiveFlow(latent_dim, flow_stages, flow_hidden, condition_dim=context)

    def build(self, input_shape: Any = None) -> None:
        side = self.stamp_size
        channels = 1
        for layer, filters in zip(self.convolutions, self.filters, strict=True):
            layer.build((None, side, side, channels))
            side, channels = side // 2, filters
        self.join.build((None, side * side * channels + 1))
        for layer in (self.mean, self.diagonal, self.lower, self.context):
            if layer is not None:
                layer.build((None, self.hidden))
        if self.flow is not None:
            self.flow.build()
        self.built = True

    def call(self, image: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.posterior(image, sigma).moments()

    def posterior(self, image: tf.Tensor, sigma: tf.Tensor) -> Posterior:
        """The distribution of z; arguments as the input of the network."""
        x = self._features(image, sigma)
        mean, diagonal = self.mean(x), ops.softplus(self.diagonal(x)) + 1e-4
        scale = tf.linalg.diag(diagonal) if self.lower is None else self._triangle(diagonal, self.lower(x))
        gaussian = GaussianPosterior(mean, scale)
        return gaussian if self.flow is None else FlowPosterior(gaussian, self.flow, self.context(x))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "stamp_size": self.stamp_size,
            "filters": self.filters,
            "hidden": self.hidden,
            "posterior": self.posterior_kind,
            "context": self.context_dim,
            "flow_stages": self.flow_stages,
            "flow_hidden": self.flow_hidden,
        }

    def _features(self, image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        sigma = ops.convert_to_tensor(sigma)
        # In units of the noise, compressed: linear where noise rules, logarithmic at the peaks of bright stamps.
        x = ops.arcsinh(image / sigma[:, None, None])[..., None]
        for layer in self.convolutions:
            x = layer(x)
        level = ops.log(sigma * self.stamp_size)[:, None]
        x = self.flatten(x)
        return self.join(ops.concatenate([x, ops.cast(level, x.dtype)], axis=-1))

    def _triangle(self, diagonal: tf.Tensor, lower: tf.Tensor) -> tf.Tensor:
        if self._places:
            scattered = tf.scatter_nd(
                self._places, tf.transpose(lower), [self.latent_dim, self.latent_dim, tf.shape(lower)[0]]
            )
            return tf.linalg.set_diag(tf.transpose(scattered, [2, 0, 1]), diagonal)
        return tf.linalg.diag(diagonal)


def _keep_variance() -> keras.Initializer:
    return keras.initializers.VarianceScaling(2.8, "fan_in")  # silu keeps 0.36 of the variance of N(0, 1)
