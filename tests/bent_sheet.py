"""A density whose stiff directions turn from place to place, as those of a galaxy's latents do: a thin, bent sheet.

y | x ~ N((x^2 - 1) / 2, 0.1^2), x ~ N(0, 1), in each of four planes (Haario et al. 1999, Comput. Stat. 14, 375).
"""

import numpy as np
import tensorflow as tf

WIDTH = 0.1
CENTER = np.repeat([0.0, -0.5], 4)


def log_prob(u: tf.Tensor) -> tf.Tensor:
    """Of points `[n, 8]`, the four x before the four y."""
    x, y = u[:, :4], u[:, 4:]
    return -0.5 * tf.reduce_sum(x**2 + ((y - (x**2 - 1) / 2) / WIDTH) ** 2, -1)


def fisher(points: np.ndarray) -> np.ndarray:
    """Curvatures `[n, 8, 8]` at points `[n, 8]`."""
    x = points[:, :4]
    result = np.zeros((len(points), 8, 8))
    for i in range(4):
        slope = np.stack([-x[:, i], np.ones(len(x))], -1) / WIDTH
        result[:, i::4, i::4] = slope[:, :, None] * slope[:, None, :]
        result[:, i, i] += 1
    return result
