"""Light given by the pixels of an image."""

from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import LightProfile
from tflens.light.bicubic import interpolate_bicubic
from tflens.parameters import Parameter, log_normal, normal
from tflens.profile import on_pixels


class Pixelated(LightProfile):
    """An image placed on the sky: pixels of flux, interpolated.

    `image` is an argument of `brightness` (`[...batch, ny, nx]`, flux per pixel), so that it can be data, a network's
    output, or a set of free pixels. Its amplitude multiplies that flux.

    Args:
        pixel_scale: side of the image's pixels at `scale` = 1, arcsec.
        interpolation: "bilinear", continuous and never below the pixels, or "bicubic", with a continuous gradient (see
            `interpolate_bicubic`). Both keep the flux.

    Raises:
        ParameterError: `pixel_scale` is not positive and finite, or `interpolation` is neither of the two.

    Example:
        >>> import tensorflow as tf
        >>> light = Pixelated(pixel_scale=0.5)
        >>> value = light.brightness(tf.constant([[0.0]]), tf.constant([[0.0]]), image=tf.ones([3, 3]),
        ...                          center_x=0.0, center_y=0.0, scale=1.0)
        >>> float(value[0, 0])
        4.0
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.3)),
        Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.3)),
        Parameter(("scale",), "", "magnification of the image's size", log_normal(1.0, 0.3)),
    )

    def __init__(self, pixel_scale: float, interpolation: str = "bilinear") -> None:
        if not 0 < pixel_scale < float("inf"):
            raise ParameterError(f"Pixelated.pixel_scale must be positive and finite (arcsec), got {pixel_scale!r}")
        if interpolation not in _INTERPOLATIONS:
            raise ParameterError(
                f"Pixelated.interpolation must be one of {list(_INTERPOLATIONS)}, got {interpolation!r}"
            )
        self.pixel_scale = float(pixel_scale)
        self.interpolation = interpolation

    def get_config(self) -> dict[str, Any]:
        return {"pixel_scale": self.pixel_scale, "interpolation": self.interpolation}

    def brightness(self, x, y, *, image, center_x, center_y, scale):
        image = tf.convert_to_tensor(image)
        center_x, center_y, scale = on_pixels(center_x, center_y, scale, like=image)
        ny, nx = image.shape[-2:]
        side = self.pixel_scale * scale
        column = (x - center_x) / side + (nx - 1) / 2
        row = (y - center_y) / side + (ny - 1) / 2
        batch = tf.broadcast_dynamic_shape(tf.shape(column + row)[:-2], tf.shape(image)[:-2])
        pixels = tf.shape(column + row)[-2:]
        column, row = (tf.broadcast_to(v, tf.concat([batch, pixels], 0)) for v in (column, row))
        image = tf.broadcast_to(image, tf.concat([batch, [ny, nx]], 0))
        values = _INTERPOLATIONS[self.interpolation](
            tf.reshape(image, [-1, ny, nx]),
            tf.reshape(column, tf.concat([[-1], pixels], 0)),
            tf.reshape(row, tf.concat([[-1], pixels], 0)),
        )
        return tf.reshape(values, tf.concat([batch, pixels], 0)) / side**2

    def flux(self, *, image, **_elsewhere):
        return tf.reduce_sum(image, [-2, -1])


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
    x = tf.clip_by_value(x + 2, 0.0, nx + 2.0)
    y = tf.clip_by_value(y + 2, 0.0, ny + 2.0)
    column, row = tf.floor(x), tf.floor(y)
    fx, fy = x - column, y - row
    corners = tf.stack([padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]], axis=-1)
    batch, width = tf.shape(image)[0], nx + 3
    flat = tf.reshape(corners, [batch, (ny + 3) * width, 4])
    # Clipped once more as integers: a position that is not a number would otherwise stop the whole batch.
    row, column = (tf.clip_by_value(tf.cast(v, tf.int32), 0, n + 2) for v, n in ((row, ny), (column, nx)))
    index = row * width + column
    found = tf.gather(flat, tf.reshape(index, [batch, -1]), axis=1, batch_dims=1)
    found = tf.reshape(found, tf.concat([tf.shape(index), [4]], 0))
    bottom = found[..., 0] * (1 - fx) + found[..., 1] * fx
    top = found[..., 2] * (1 - fx) + found[..., 3] * fx
    return bottom * (1 - fy) + top * fy


_INTERPOLATIONS = {"bilinear": interpolate_bilinear, "bicubic": interpolate_bicubic}
