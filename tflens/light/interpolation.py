"""Interpolation of images between their pixels."""

import tensorflow as tf


def interpolate_bilinear(image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Bilinear interpolation of images at fractional pixel positions; zero outside.

    Beyond the outermost pixel centres the image falls linearly to zero within one pixel, so the result is continuous
    everywhere. The four neighbours are packed side by side before one gather, which is faster than four gathers.

    Args:
        image: `[batch, ny, nx]`.
        x, y: positions `[batch, my, mx]` in pixels; (0, 0) is the centre of the bottom-left pixel.

    Returns:
        Values `[batch, my, mx]`.

    Example:
        >>> import tensorflow as tf
        >>> image = tf.constant([[[0.0, 1.0], [2.0, 3.0]]])
        >>> float(interpolate_bilinear(image, tf.constant([[[0.5]]]), tf.constant([[[0.5]]]))[0, 0, 0])
        1.5
    """
    ny, nx = image.shape[-2:]
    # A ring of two zeros: clipped positions land between zeros.
    padded = tf.pad(image, [[0, 0], [2, 2], [2, 2]])
    x = _clipped(x + 2, 0.0, nx + 2.0)
    y = _clipped(y + 2, 0.0, ny + 2.0)
    column, row = tf.floor(x), tf.floor(y)
    fx, fy = x - column, y - row
    corners = tf.stack([padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], axis=-1)
    found = _gather(corners, column, row)
    bottom = found[0] * (1 - fx) + found[1] * fx
    top = found[2] * (1 - fx) + found[3] * fx
    return bottom * (1 - fy) + top * fy


def interpolate_quadratic(image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Interpolation of images at fractional pixel positions by quadratic B-splines; zero outside.

    Unser 1999 (IEEE Signal Process. Mag. 16, 22), but for the filter of the pixels. The smooth counterpart of bilinear
    interpolation: value and gradient are continuous everywhere (C1), what samplers and optimizers that follow gradients
    need. A B-spline is wider than the hat of bilinear interpolation, its variance 1/4 pixel^2 to 1/6, so the image is
    sharpened first by [-1, 26, -1] / 24 along each axis: then both blur an image equally. The integral over the plane
    is the sum of the pixels, and a plane stays a plane. The pixels are not met exactly; beside a lone bright pixel the
    result falls to -1.7 % of it. It is 0 from 2.5 pixels beyond the outermost centres.

    The nine neighbours are packed side by side before one gather; this takes nine times the image's memory.

    Args:
        image: `[batch, ny, nx]`.
        x, y: positions `[batch, my, mx]` in pixels; (0, 0) is the centre of the bottom-left pixel.

    Returns:
        Values `[batch, my, mx]`.

    Example:
        >>> import tensorflow as tf
        >>> image = tf.tile(tf.constant([[[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]]), [1, 7, 1])
        >>> round(float(interpolate_quadratic(image, tf.constant([[[2.75]]]), tf.constant([[[3.0]]]))[0, 0, 0]), 4)
        2.75
    """
    ny, nx = image.shape[-2:]
    # Neighbourhoods start from four pixels before the first to one beyond the last: the clipped ones hold zeros.
    padded = tf.pad(image, [[0, 0], [5, 5], [5, 5]])
    padded = _sharpened(padded[:, :-2], padded[:, 1:-1], padded[:, 2:])
    padded = _sharpened(padded[..., :-2], padded[..., 1:-1], padded[..., 2:])
    x = _clipped(x, -2.5, nx + 1.5)
    y = _clipped(y, -2.5, ny + 1.5)
    column, row = tf.floor(x + 0.5), tf.floor(y + 0.5)
    return _weighted(padded, column + 3, row + 3, _quadratic_weights(x - column), _quadratic_weights(y - row))


def interpolate_bicubic(image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Bicubic interpolation of images at fractional pixel positions by cubic convolution; zero outside.

    Keys 1981 (IEEE Trans. ASSP 29, 1153) with a = -1/2, along each axis. It goes through the pixels, reproduces
    polynomials of degree 2, and value and gradient are continuous everywhere (C1); the integral over the plane is the
    sum of the pixels. Beside a straight edge it overshoots by up to 7.5 % of the step, so positive pixels may give
    small negative values. Pixels beyond the edge are 0, and the result is 0 from two pixels beyond the outermost
    centres.

    The sixteen neighbours are packed side by side before one gather; this takes sixteen times the image's memory.

    Args:
        image: `[batch, ny, nx]`.
        x, y: positions `[batch, my, mx]` in pixels; (0, 0) is the centre of the bottom-left pixel.

    Returns:
        Values `[batch, my, mx]`.

    Example:
        >>> import tensorflow as tf
        >>> image = tf.tile(tf.constant([[[0.0, 1.0, 4.0, 9.0]]]), [1, 4, 1])
        >>> float(interpolate_bicubic(image, tf.constant([[[1.5]]]), tf.constant([[[1.5]]]))[0, 0, 0])
        2.25
    """
    ny, nx = image.shape[-2:]
    # Neighbourhoods start from three pixels before the first to one beyond the last: the clipped ones hold zeros.
    padded = tf.pad(image, [[0, 0], [3, 4], [3, 4]])
    x = _clipped(x, -2.0, nx + 1.0)
    y = _clipped(y, -2.0, ny + 1.0)
    column, row = tf.floor(x), tf.floor(y)
    return _weighted(padded, column + 2, row + 2, _cubic_weights(x - column), _cubic_weights(y - row))


def _clipped(x: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Within bounds; what is not a number stays so, which clipping alone loses under XLA before TensorFlow 2.21."""
    return tf.where(tf.math.is_nan(x), x, tf.clip_by_value(x, low, high))


def _weighted(
    image: tf.Tensor, column: tf.Tensor, row: tf.Tensor, along_x: list[tf.Tensor], along_y: list[tf.Tensor]
) -> tf.Tensor:
    """Sums `[batch, my, mx]` of the pixels of neighbourhoods that begin at whole positions, weighted along the axes."""
    side = len(along_x)
    height, width = (n - side + 1 for n in image.shape[-2:])
    places = [(i, j) for i in range(side) for j in range(side)]
    found = _gather(tf.stack([image[:, i : i + height, j : j + width] for i, j in places], axis=-1), column, row)
    lines = [tf.add_n([found[side * i + j] * along_x[j] for j in range(side)]) for i in range(side)]
    return tf.add_n([line * weight for line, weight in zip(lines, along_y, strict=True)])


def _gather(packed: tf.Tensor, column: tf.Tensor, row: tf.Tensor) -> list[tf.Tensor]:
    """`[batch, height, width, k]` at whole positions `[batch, my, mx]`: k times `[batch, my, mx]`."""
    batch, (height, width, k) = tf.shape(packed)[0], packed.shape[1:]
    row, column = tf.cast(row, tf.int32), tf.cast(column, tf.int32)
    # Clipped once more as integers: a position that is not a number would otherwise stop the whole batch.
    index = tf.clip_by_value(row, 0, height - 1) * width + tf.clip_by_value(column, 0, width - 1)
    flat = tf.reshape(packed, [batch, height * width, k])
    found = tf.gather(flat, tf.reshape(index, [batch, -1]), axis=1, batch_dims=1)
    # The gradient of a slice is as large as what it is cut from, that of unstacking no larger than its parts.
    return tf.unstack(tf.reshape(found, tf.concat([tf.shape(index), [k]], 0)), num=k, axis=-1)


def _sharpened(before: tf.Tensor, here: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    return (26 * here - before - after) / 24


def _quadratic_weights(t: tf.Tensor) -> list[tf.Tensor]:
    """Weights of the pixels at -1, 0, 1 for a position t from -1/2 to 1/2."""
    return [0.5 * (0.5 - t) ** 2, 0.75 - t**2, 0.5 * (0.5 + t) ** 2]


def _cubic_weights(t: tf.Tensor) -> list[tf.Tensor]:
    """Weights of the pixels at -1, 0, 1, 2 for a position t in [0, 1)."""
    return [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t**2 + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t**2,
    ]
