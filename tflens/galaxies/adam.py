"""The minimum of a function of some tensors, by Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf
from numpy.typing import ArrayLike


def adam_minimum(
    loss: Callable[..., tf.Tensor], start: Sequence[ArrayLike], steps: int, learning_rate: float = 0.1
) -> list[tf.Tensor]:
    """Where a loss is lowest, by steps that shrink to nothing (a cosine schedule); all of them are one program.

    Args:
        loss: a scalar of as many tensors as there are in `start`.
        start: where to begin.
        steps: of Adam.
        learning_rate: of the first step.

    Returns:
        Tensors like those of `start`.

    Example:
        >>> x, y = adam_minimum(lambda x, y: tf.reduce_sum((x - 1) ** 2) + y**2, [tf.zeros(2), 2.0], steps=200)
        >>> bool(tf.reduce_all(abs(x - 1) < 1e-3)), bool(abs(y) < 1e-3)
        (True, True)
    """
    variables = [tf.Variable(value) for value in start]
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))
    optimizer.build(variables)

    @tf.function
    def descend() -> None:
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                value = loss(*variables)
            optimizer.apply(tape.gradient(value, variables), variables)

    descend()
    return [tf.convert_to_tensor(variable) for variable in variables]
