"""The prior of the latent variables: an inverse autoregressive flow, z = T(u) with u ~ N(0, I).

The forward direction, which a lens fit needs, is one pass; the inverse, which training by exact maximum likelihood
needs, is one pass for each dimension (Kingma et al. 2016, arXiv:1606.04934; Papamakarios et al. 2017,
arXiv:1705.07057). The bijectors are TensorFlow Probability's; the autoregressive network is a Keras layer of our own
that multiplies its masks on every call, so that no optimiser can break its triangular form.
"""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import NDArray

from tflens._tfp import tfb, tfd


@keras.saving.register_keras_serializable("tflens")
class InverseAutoregressiveFlow(keras.Model):
    """Stages of autoregressive affine maps with permutations between them, then one affine map of all dimensions.

    At the start T is that affine map alone (the identity, or the full Gaussian that `adapt` has set), so that
    training can only gain on a Gaussian prior.

    Args:
        latent_dim: D.
        stages: number of autoregressive maps.
        hidden: units of the hidden layers of each conditioner.
        seed: of the permutations.

    Input shape: u `[batch, D]`. Output shape: z `[batch, D]`.

    Example:
        >>> flow = InverseAutoregressiveFlow(latent_dim=3, stages=2, hidden=(8,))
        >>> flow(tf.zeros((5, 3))).shape, flow.log_prob(tf.zeros((5, 3))).shape
        (TensorShape([5, 3]), TensorShape([5]))
    """

    def __init__(
        self,
        latent_dim: int = 32,
        stages: int = 3,
        hidden: tuple[int, ...] = (64, 64),
        seed: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        self.stages = stages
        self.hidden = tuple(hidden)
        self.seed = seed
        self.conditioners = [Conditioner(latent_dim, hidden, name=f"conditioner_{i}") for i in range(stages)]
        rng = np.random.default_rng(seed)
        self._permutations = [rng.permutation(latent_dim).tolist() for _ in range(stages - 1)]
        self.shift = self.add_weight(shape=(latent_dim,), initializer="zeros", trainable=False, name="shift")
        self.scale = self.add_weight(
            shape=(latent_dim, latent_dim), initializer=_identity, trainable=False, name="scale"
        )

    def build(self, input_shape: Any = None) -> None:
        for conditioner in self.conditioners:
            conditioner.build((None, self.latent_dim))
        self.built = True

    def adapt(self, z: NDArray[np.float32]) -> None:
        """Set the affine map to the mean and the covariance of draws `[N, D]`."""
        z = np.asarray(z, np.float64)
        self.shift.assign(z.mean(axis=0))
        self.scale.assign(np.linalg.cholesky(np.cov(z, rowvar=False)))

    def bijector(self) -> tfb.Bijector:
        """T, from u to z. Its variables are tracked here, by Keras, not by the bijector."""
        parts = [
            tfb.Shift(tf.convert_to_tensor(self.shift)),
            tfb.ScaleMatvecTriL(tf.convert_to_tensor(self.scale)),
        ]
        for stage, conditioner in enumerate(self.conditioners):
            if stage:
                parts.append(tfb.Permute(self._permutations[stage - 1]))
            parts.append(tfb.Invert(tfb.MaskedAutoregressiveFlow(conditioner)))
        return tfb.Chain(parts)

    def call(self, u: tf.Tensor) -> tf.Tensor:
        return self.bijector().forward(u)

    def log_prob(self, z: tf.Tensor) -> tf.Tensor:
        """Log density of z `[batch, D]`, nats, `[batch]`; D passes through each stage."""
        base = tfd.MultivariateNormalDiag(tf.zeros(self.latent_dim, z.dtype))
        return tfd.TransformedDistribution(base, self.bijector()).log_prob(z)

    def train_step(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.log_prob(batch))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}

    def test_step(self, batch: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"loss": -tf.reduce_mean(self.log_prob(batch))}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "stages": self.stages,
            "hidden": self.hidden,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("tflens")
class Conditioner(layers.Layer):
    """Shift and log scale of each dimension as a function of those before it (MADE, Germain et al. 2015,
    arXiv:1502.03509). Both are zero at the start.

    Args:
        latent_dim: D.
        hidden: units of the hidden layers.
        max_log_scale: bound on abs(log scale), approached smoothly.

    Input shape: `[batch, D]`. Output shape: `(shift, log_scale)`, each `[batch, D]`.
    """

    def __init__(
        self, latent_dim: int, hidden: tuple[int, ...] = (64, 64), max_log_scale: float = 2.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        self.hidden = tuple(hidden)
        self.max_log_scale = max_log_scale
        inputs = np.arange(1, latent_dim + 1)
        degrees = [inputs, *(1 + np.arange(units) % max(latent_dim - 1, 1) for units in self.hidden)]
        masks = [below[:, None] <= above[None, :] for below, above in pairwise(degrees)]
        masks.append(np.tile(degrees[-1][:, None] < inputs[None, :], (1, 2)))
        self.dense = [MaskedDense(mask, activation="silu", name=f"hidden_{i}") for i, mask in enumerate(masks[:-1])]
        self.dense.append(MaskedDense(masks[-1], kernel_initializer="zeros", name="outputs"))

    def build(self, input_shape: Any = None) -> None:
        for layer in self.dense:
            layer.build(None)
        self.built = True

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in self.dense:
            x = layer(x)
        shift, log_scale = ops.split(x, 2, axis=-1)
        return shift, self.max_log_scale * ops.tanh(log_scale / self.max_log_scale)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "hidden": self.hidden,
            "max_log_scale": self.max_log_scale,
        }


class MaskedDense(layers.Layer):
    """A dense layer whose kernel is multiplied by a fixed mask `[inputs, outputs]` on every call."""

    def __init__(
        self,
        mask: NDArray[np.bool_],
        activation: str | None = None,
        kernel_initializer: str = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._mask = np.asarray(mask, np.float32)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = kernel_initializer

    def build(self, input_shape: Any = None) -> None:
        self.kernel = self.add_weight(shape=self._mask.shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=self._mask.shape[1:], initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.activation(ops.matmul(x, self.kernel * self._mask) + self.bias)


def _identity(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
    return ops.eye(shape[0], dtype=dtype)
