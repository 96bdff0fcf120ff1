"""Light without structure."""

import tensorflow as tf

from tflens.light.base import LightProfile


class Uniform(LightProfile):
    """The same brightness everywhere: a sky, or what is left of one; its amplitude may have either sign.

    It has no parameters, so its result has the shape of the coordinates, and no total flux.

    Example:
        >>> import tensorflow as tf
        >>> Uniform().brightness(tf.constant([[0.0, 1.0, 2.0]]), tf.constant([[0.0], [1.0]])).shape
        TensorShape([2, 3])
    """

    def brightness(self, x, y):
        return tf.ones_like(x + y)
