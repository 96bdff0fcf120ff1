"""The guard at the centre of singular profiles."""

import tensorflow as tf

_TINY = 1e-12  # squared distance, arcsec^2


def away_from_center(
    x: tf.Tensor, y: tf.Tensor, core_squared: tf.Tensor | float = 0.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Moves points within 1e-6 arcsec of the origin to 1e-6 arcsec on the x axis.

    It moves the input instead of mending the output: only so does the gradient stay finite. A profile with a core
    passes its radius squared, and nothing moves unless that is tiny too.

    Returns:
        x and y, both spread over the mesh, and where points were moved.

    Example:
        >>> import tensorflow as tf
        >>> x, y, is_center = away_from_center(tf.constant([[0.0, 2.0]]), tf.constant([[0.0], [1.0]]))
        >>> is_center.numpy().tolist()
        [[True, False], [False, False]]
    """
    is_center = x**2 + y**2 + core_squared < _TINY
    x, y = x + tf.zeros_like(y), y + tf.zeros_like(x)
    return tf.where(is_center, tf.constant(_TINY**0.5, x.dtype), x), tf.where(is_center, tf.zeros_like(y), y), is_center
