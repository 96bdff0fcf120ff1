"""One number for each lens, spread over its pixels, with a gradient that is summed fast."""

import tensorflow as tf


def spread(value: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Broadcasts a parameter `[...batch, 1, 1]` over the pixels of `like`.

    What arithmetic does by itself, but for the gradient, a sum over the pixels: XLA on a CPU makes windows of 32 of
    TensorFlow's, which costs three times as much for a single image as the product with a vector of ones here.

    Args:
        value: `[...batch, 1, 1]`.
        like: of a shape that broadcasts against it, `[...batch, ny, nx]`; at least the two axes of pixels.

    Returns:
        `[...batch, ny, nx]` of the type of `value`.

    Example:
        >>> import tensorflow as tf
        >>> spread(tf.constant([[[1.0]], [[2.0]]]), tf.zeros([2, 3])).shape
        TensorShape([2, 2, 3])
    """
    value = tf.convert_to_tensor(value)
    lanes = tf.broadcast_dynamic_shape(tf.shape(value)[:-2], tf.shape(like)[:-2])
    value = tf.broadcast_to(value, tf.concat([lanes, [1, 1]], 0))
    return _over_pixels(value, tf.concat([lanes, tf.shape(like)[-2:]], 0))


def _over_pixels(value: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    @tf.custom_gradient
    def apply(value: tf.Tensor):
        return tf.broadcast_to(value, shape), _sum_over_pixels

    return apply(value)


def _sum_over_pixels(upstream: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(upstream)
    rows = tf.linalg.matvec(tf.reshape(upstream, [-1, shape[-1]]), tf.ones(shape[-1:], upstream.dtype))
    return tf.reduce_sum(tf.reshape(rows, shape[:-1]), -1)[..., None, None]
