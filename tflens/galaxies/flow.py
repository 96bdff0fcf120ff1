"""Normalising flows, z = T(u) with u ~ N(0, I): the prior of the latent variables.

One interface, and the inverse autoregressive flow, the default: its forward direction, which a lens fit needs, is one
pass; its inverse, which training by exact maximum likelihood needs, is one pass for each dimension (Kingma et al.
2016, arXiv:1606.04934; Papamakarios et al. 2017, arXiv:1705.07057). The bijectors are TensorFlow Probability's; the
networks in them are Keras layers of our own. That of the autoregressive flow multiplies its masks on every call, so
that no optimiser can break its triangular form.
"""

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from tflens._tfp import tfb, tfd
from tflens.errors import ParameterError
from tflens.galaxies.training import Trainable, batch_mean


class Flow(Trainable):
    """Stages with permutations between them, then one affine map of all dimensions.

    At the start T is that affine map alone (the identity, or the full Gaussian that `adapt` has set), so that training
    can only gain on a Gaussian prior. A kind of flow gives its stages (`_stage`) and their networks.

    Args:
        latent_dim: D.
        stages: number of nonlinear maps.
        hidden: units of the hidden layers of each stage's network.
        seed: of the permutations.
        condition_dim: length of a vector that T depends on, such as (flux, size, redshift) or a class in one-hot
            form; 0 for none. It enters the networks standardised (by `adapt`).

    Raises:
        ParameterError: a conditional flow is used without its condition, or the other way round.
    """

    def __init__(
        self,
        latent_dim: int,
        stages: int,
        hidden: tuple[int, ...],
        seed: int,
        condition_dim: int,
        **kwargs: Any,
    ) -> None:
        # Densities need float32, whatever the precision of the networks around them.
        super().__init__(**{"dtype": "float32", **kwargs})
        self.latent_dim = latent_dim
        self.stages = stages
        self.hidden = tuple(hidden)
        self.seed = seed
        self.condition_dim = condition_dim
        self._permutations = self._draw_permutations(np.random.default_rng(seed))
        fixed = {"trainable": False, "dtype": "float32"}
        self.shift = self.add_weight(shape=(latent_dim,), initializer="zeros", name="shift", **fixed)
        self.scale = self.add_weight(shape=(latent_dim, latent_dim), initializer=_identity, name="scale", **fixed)
        if condition_dim:
            shape = (condition_dim,)
            self.condition_shift = self.add_weight(shape=shape, initializer="zeros", name="condition_shift", **fixed)
            self.condition_scale = self.add_weight(shape=shape, initializer="ones", name="condition_scale", **fixed)

    def adapt(self, z: ArrayLike, condition: ArrayLike | None = None) -> None:
        """Set the affine map to the mean and the covariance of draws `[N, D]`, and standardise the condition."""
        z = np.asarray(z, np.float64)
        self.shift.assign(z.mean(axis=0))
        self.scale.assign(np.linalg.cholesky(np.cov(z, rowvar=False).reshape(z.shape[1], -1)))
        self._check(condition)
        if condition is not None:
            condition = np.asarray(condition, np.float64)
            spread = condition.std(axis=0)
            self.condition_shift.assign(condition.mean(axis=0))
            self.condition_scale.assign(np.where(spread > 0, spread, 1.0))

    def forward(self, u: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """z = T(u): `[batch, D]` to `[batch, D]`; condition `[batch, condition_dim]`."""
        return self.bijector(condition).forward(u)

    def inverse(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """u with T(u) = z: `[batch, D]` to `[batch, D]`."""
        return self.bijector(condition).inverse(z)

    def forward_and_log_det(self, u: tf.Tensor, condition: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """T(u) `[batch, D]`, and log abs det dT/du `[batch]`."""
        bijector = self.bijector(condition)
        return bijector.forward(u), bijector.forward_log_det_jacobian(u, event_ndims=1)

    def inverse_and_log_det(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """u with T(u) = z `[batch, D]`, and log abs det du/dz `[batch]`."""
        bijector = self.bijector(condition)
        return bijector.inverse(z), bijector.inverse_log_det_jacobian(z, event_ndims=1)

    def log_prob(self, z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        """Log density of z `[batch, D]`, nats, `[batch]`."""
        return self._log_prob(z, self.bijector(condition))

    @cached_property
    def compiled_log_prob(self) -> Callable[..., tf.Tensor]:
        """`log_prob` by XLA, differentiable: one program for the many small steps of an autoregressive inverse."""

        def log_prob(z: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
            # What a loop keeps for its gradient cannot leave a program of XLA; what is unrolled can.
            return self._log_prob(z, self.bijector(condition, unrolled=True))

        return tf.function(log_prob, jit_compile=True, reduce_retracing=True)

    def bijector(self, condition: tf.Tensor | None = None, unrolled: bool = False) -> tfb.Bijector:
        """T, from u to z, its loops unrolled on request. Its variables are tracked by Keras, not by the bijector."""
        self._check(condition)
        if condition is not None:
            condition = (tf.cast(condition, tf.float32) - self.condition_shift) / self.condition_scale
        parts = [
            tfb.Shift(tf.convert_to_tensor(self.shift)),
            tfb.ScaleMatvecTriL(tf.convert_to_tensor(self.scale)),
        ]
        for stage in range(self.stages):
            if stage:
                parts.append(tfb.Permute(self._permutations[stage - 1]))
            parts.append(self._stage(stage, condition, unrolled))
        return tfb.Chain(parts)

    def call(self, u: tf.Tensor, condition: tf.Tensor | None = None) -> tf.Tensor:
        return self.forward(u, condition)

    def training_terms(self, batch: Any, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Negative log likelihood of draws: a batch is z, `(z,)`, or `(z, condition)`."""
        return self.validation_terms(batch)

    def validation_terms(self, batch: Any) -> dict[str, tf.Tensor]:
        inputs = batch if isinstance(batch, tuple | list) else (batch,)
        return {"loss": -batch_mean(self.log_prob(*inputs))}

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "stages", "hidden", "seed", "condition_dim")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _stage(self, stage: int, condition: tf.Tensor | None, unrolled: bool) -> tfb.Bijector:
        raise NotImplementedError

    def _log_prob(self, z: tf.Tensor, bijector: tfb.Bijector) -> tf.Tensor:
        z = tf.convert_to_tensor(z)
        u, log_det = bijector.inverse(z), bijector.inverse_log_det_jacobian(z, event_ndims=1)
        return tfd.MultivariateNormalDiag(tf.zeros(self.latent_dim, z.dtype)).log_prob(u) + log_det

    def _draw_permutations(self, rng: np.random.Generator) -> list[list[int]]:
        return [rng.permutation(self.latent_dim).tolist() for _ in range(self.stages - 1)]

    def _check(self, condition: ArrayLike | None) -> None:
        given = 0 if condition is None else np.shape(condition)[-1]
        if given != self.condition_dim:
            raise ParameterError(
                f"{type(self).__name__}: the condition must have {self.condition_dim} numbers (condition_dim), "
                f"got {given or 'none'}"
            )


def gaussian_part(flow: Flow | None) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Mean `[D]` and scale `[D, D]` of the Gaussian that a flow was adapted to; None, for N(0, I), without a flow."""
    return None if flow is None else (tf.convert_to_tensor(flow.shift), tf.convert_to_tensor(flow.scale))


@keras.saving.register_keras_serializable("tflens")
class InverseAutoregressiveFlow(Flow):
    """Stages of autoregressive affine maps: T is one pass, its inverse (and so `log_prob`) D passes a stage.

    Args: as `Flow`.

    Input shape: u `[batch, D]`, condition `[batch, condition_dim]` or None. Output shape: z `[batch, D]`.

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
        condition_dim: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(latent_dim, stages, hidden, seed, condition_dim, **kwargs)
        self.conditioners = [
            Conditioner(latent_dim, hidden, condition_dim=condition_dim, name=f"conditioner_{i}") for i in range(stages)
        ]

    def build(self, input_shape: Any = None) -> None:
        for conditioner in self.conditioners:
            conditioner.build()
        self.built = True

    def _stage(self, stage: int, condition: tf.Tensor | None, unrolled: bool) -> tfb.Bijector:
        conditioner = self.conditioners[stage]
        return tfb.Invert(tfb.MaskedAutoregressiveFlow(lambda x: conditioner(x, condition), unroll_loop=unrolled))


@keras.saving.register_keras_serializable("tflens")
class Conditioner(layers.Layer):
    """Shift and log scale of each dimension as a function of those before it (MADE, Germain et al. 2015,
    arXiv:1502.03509), and of a condition. Both are zero at the start.

    Args:
        latent_dim: D.
        hidden: units of the hidden layers.
        max_log_scale: bound on abs(log scale), approached smoothly.
        condition_dim: length of the condition, which every dimension may depend on.

    Input shape: `[batch, D]`, and `[batch, condition_dim]` or None. Output shape: `(shift, log_scale)`, each
    `[batch, D]`.
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: tuple[int, ...] = (64, 64),
        max_log_scale: float = 2.0,
        condition_dim: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.latent_dim = latent_dim
        self.hidden = tuple(hidden)
        self.max_log_scale = max_log_scale
        self.condition_dim = condition_dim
        # The condition has degree 0: it comes before every dimension, and some hidden units see nothing but it.
        outputs = np.arange(1, latent_dim + 1)
        inputs = np.concatenate([outputs, np.zeros(condition_dim, int)])
        lowest = 0 if condition_dim else 1
        cycle = max(latent_dim - lowest, 1)
        degrees = [inputs, *(lowest + np.arange(units) % cycle for units in self.hidden)]
        masks = [below[:, None] <= above[None, :] for below, above in pairwise(degrees)]
        masks.append(np.tile(degrees[-1][:, None] < outputs[None, :], (1, 2)))
        self.dense = [MaskedDense(mask, activation="silu", name=f"hidden_{i}") for i, mask in enumerate(masks[:-1])]
        self.dense.append(MaskedDense(masks[-1], kernel_initializer="zeros", name="outputs"))

    def build(self, input_shape: Any = None) -> None:
        for layer in self.dense:
            layer.build(None)
        self.built = True

    def call(self, x: tf.Tensor, condition: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        x = _joined(x, condition)
        for layer in self.dense:
            x = layer(x)
        shift, log_scale = ops.split(x, 2, axis=-1)
        return shift, self.max_log_scale * ops.tanh(log_scale / self.max_log_scale)

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "hidden", "max_log_scale", "condition_dim")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class MaskedDense(layers.Layer):
    """A dense layer whose kernel is multiplied by a fixed mask `[inputs, outputs]` on every call."""

    def __init__(
        self,
        mask: NDArray[np.bool_],
        activation: str | None = None,
        kernel_initializer: str = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self._mask = np.asarray(mask, np.float32)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = kernel_initializer

    def build(self, input_shape: Any = None) -> None:
        self.kernel = self.add_weight(shape=self._mask.shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=self._mask.shape[1:], initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.activation(ops.matmul(x, self.kernel * self._mask) + self.bias)


def _joined(x: tf.Tensor, condition: tf.Tensor | None) -> tf.Tensor:
    if condition is None:
        return x
    # A bijector that solves for u one dimension after the other may put further axes in front.
    shape = tf.concat([tf.shape(x)[:-1], [condition.shape[-1]]], 0)
    return tf.concat([x, tf.broadcast_to(condition, shape)], -1)


def _identity(shape: tuple[int, ...], dtype: str | None = None) -> tf.Tensor:
    return ops.eye(shape[0], dtype=dtype)
