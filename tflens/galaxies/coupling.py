"""A coupling flow (RealNVP): one pass in either direction."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tflens._tfp import tfb
from tflens.errors import ParameterError
from tflens.galaxies.flow import Flow, _joined


@keras.saving.register_keras_serializable("tflens")
class CouplingFlow(Flow):
    """Stages that transform one half of the dimensions by what the other half says (Dinh et al. 2017,
    arXiv:1605.08803). T and its inverse are one pass each; it takes more stages than an autoregressive flow to bend as
    far.

    Args: as `Flow`; two stages make one whole turn, in which each half was transformed once.

    Raises:
        ParameterError: fewer than two dimensions.

    Input shape: u `[batch, D]`, condition `[batch, condition_dim]` or None. Output shape: z `[batch, D]`.

    Example:
        >>> flow = CouplingFlow(latent_dim=3, stages=2, hidden=(8,))
        >>> flow(tf.zeros((5, 3))).shape, flow.log_prob(tf.zeros((5, 3))).shape
        (TensorShape([5, 3]), TensorShape([5]))
    """

    def __init__(
        self,
        latent_dim: int = 32,
        stages: int = 6,
        hidden: tuple[int, ...] = (64, 64),
        seed: int = 1,
        condition_dim: int = 0,
        **kwargs: Any,
    ) -> None:
        if latent_dim < 2:
            raise ParameterError(f"{type(self).__name__}: latent_dim must be at least 2, got {latent_dim}")
        super().__init__(latent_dim, stages, hidden, seed, condition_dim, **kwargs)
        self.kept = latent_dim // 2
        outputs = (latent_dim - self.kept) * self._parameters_per_dimension()
        self.conditioners = [
            CouplingConditioner(self.kept + condition_dim, hidden, outputs, name=f"conditioner_{i}")
            for i in range(stages)
        ]

    def build(self, input_shape: Any = None) -> None:
        for conditioner in self.conditioners:
            conditioner.build()
        self.built = True

    def _parameters_per_dimension(self) -> int:
        return 2

    def _transform(self, parameters: tf.Tensor) -> tfb.Bijector:
        """The map of the second half by parameters `[batch, dimensions, parameters per dimension]`."""
        shift, log_scale = tf.unstack(parameters, axis=-1)
        return tfb.Shift(shift)(tfb.Scale(log_scale=2 * tf.tanh(log_scale / 2)))

    def _stage(self, stage: int, condition: tf.Tensor | None, unrolled: bool) -> tfb.Bijector:
        def transform(kept: tf.Tensor, dimensions: int) -> tfb.Bijector:
            parameters = self.conditioners[stage](_joined(kept, condition))
            shape = tf.concat([tf.shape(parameters)[:-1], [dimensions, self._parameters_per_dimension()]], 0)
            return self._transform(tf.reshape(parameters, shape))

        return tfb.RealNVP(num_masked=self.kept, bijector_fn=transform)

    def _draw_permutations(self, rng: np.random.Generator) -> list[list[int]]:
        # The halves change places after one stage, and are drawn anew after two.
        exchange = np.roll(np.arange(self.latent_dim), self.latent_dim // 2).tolist()
        return [rng.permutation(self.latent_dim).tolist() if i % 2 else exchange for i in range(self.stages - 1)]


class CouplingConditioner(layers.Layer):
    """A dense network, zero at the start: `[batch, inputs]` to `[batch, outputs]`."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.widths = [inputs, *hidden]
        self.dense = [layers.Dense(units, activation="silu", dtype="float32") for units in hidden]
        self.dense.append(layers.Dense(outputs, kernel_initializer="zeros", dtype="float32"))

    def build(self, input_shape: Any = None) -> None:
        for layer, width in zip(self.dense, self.widths, strict=True):
            layer.build((None, width))
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        for layer in self.dense:
            x = layer(x)
        return x
