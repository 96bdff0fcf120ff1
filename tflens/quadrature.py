"""Integrals over (0, 1) by Gauss-Legendre quadrature, for many integrands at once."""

import numpy as np
import tensorflow as tf


def nodes_and_weights(count: int, power: int, rank: int, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor]:
    """Nodes and weights for integrals over (0, 1), as a new leading axis before `rank` others.

    Gauss-Legendre in s^(1/power), which makes integrands with a cusp, a logarithm or an integrable pole at s = 0
    smooth and resolves what happens close to it.

    Returns:
        Two tensors `[count, 1, ..., 1]`.
    """
    t, w = np.polynomial.legendre.leggauss(count)
    t, w = (t + 1) / 2, w / 2
    shape = [count, *[1] * rank]
    return tuple(tf.constant(v.reshape(shape), dtype) for v in (t**power, w * power * t ** (power - 1)))


def integral(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The weighted sum over the leading axis."""
    return tf.reduce_sum(weights * values, axis=0)
