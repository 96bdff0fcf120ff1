"""A neural spline flow: a coupling flow whose maps are monotonic rational-quadratic splines."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflens._tfp import tfb
from tflens.galaxies.coupling import CouplingFlow


@keras.saving.register_keras_serializable("tflens")
class SplineFlow(CouplingFlow):
    """Coupling by rational-quadratic splines on [-limit, limit], the identity outside (Durkan et al. 2019,
    arXiv:1906.04032). One pass in either direction.

    Args: as `CouplingFlow`, and
        bins: of each spline.
        limit: half the range of the splines, in units of u; the flow is affine beyond.

    Input shape: u `[batch, D]`, condition `[batch, condition_dim]` or None. Output shape: z `[batch, D]`.

    Example:
        >>> flow = SplineFlow(latent_dim=3, stages=2, hidden=(8,), bins=4)
        >>> flow(tf.zeros((5, 3))).shape, flow.log_prob(tf.zeros((5, 3))).shape
        (TensorShape([5, 3]), TensorShape([5]))
    """

    def __init__(
        self,
        latent_dim: int = 32,
        stages: int = 4,
        hidden: tuple[int, ...] = (64, 64),
        seed: int = 1,
        condition_dim: int = 0,
        bins: int = 8,
        limit: float = 5.0,
        **kwargs: Any,
    ) -> None:
        self._bins, self._limit = bins, limit
        super().__init__(latent_dim, stages, hidden, seed, condition_dim, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self._bins, "limit": self._limit}

    def _parameters_per_dimension(self) -> int:
        return 3 * self._bins - 1

    def _transform(self, parameters: tf.Tensor) -> tfb.Bijector:
        bins = self._bins
        widths, heights, slopes = tf.split(parameters, [bins, bins, bins - 1], axis=-1)
        return tfb.RationalQuadraticSpline(
            bin_widths=self._shares(widths),
            bin_heights=self._shares(heights),
            # 1 at the start, as outside of the range.
            knot_slopes=_LEAST_SLOPE + tf.nn.softplus(slopes + np.log(np.expm1(1 - _LEAST_SLOPE)).astype(np.float32)),
            range_min=-self._limit,
        )

    def _shares(self, logits: tf.Tensor) -> tf.Tensor:
        """Bins that fill the range, none of them less than a share of its mean."""
        least = _LEAST_BIN / self._bins
        return 2 * self._limit * (least + (1 - _LEAST_BIN) * tf.nn.softmax(logits))


_LEAST_SLOPE = 1e-2
_LEAST_BIN = 1e-2
