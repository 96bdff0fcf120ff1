"""Light given by the pixels of an image."""

from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import LightProfile
from tflens.light.interpolation import interpolate_bicubic, interpolate_bilinear
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


_INTERPOLATIONS = {"bilinear": interpolate_bilinear, "bicubic": interpolate_bicubic}
