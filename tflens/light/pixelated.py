"""Light given by the pixels of an image."""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import LightProfile
from tflens.light.interpolation import interpolate_bicubic, interpolate_bilinear, interpolate_quadratic
from tflens.parameters import Parameter, log_normal, normal
from tflens.profile import on_pixels


class Pixelated(LightProfile):
    """An image placed on the sky: pixels of flux, interpolated.

    `image` is an argument of `brightness` (`[...batch, ny, nx]`, flux per pixel), so that it can be data, a network's
    output, or a set of free pixels. Its amplitude multiplies that flux.

    Args:
        pixel_scale: side of the image's pixels at `scale` = 1, arcsec.
        interpolation: "bilinear", continuous and never below the pixels; "quadratic", as wide, with a continuous
            gradient (see `interpolate_quadratic`); or "bicubic", which goes through the pixels too (see
            `interpolate_bicubic`). All keep the flux.

    Raises:
        ParameterError: `pixel_scale` is not positive and finite, or `interpolation` is none of the three.

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
            raise ParameterError(
                f"{type(self).__name__}.pixel_scale must be positive and finite (arcsec), got {pixel_scale!r}"
            )
        if interpolation not in _INTERPOLATIONS:
            raise ParameterError(
                f"{type(self).__name__}.interpolation must be one of {list(_INTERPOLATIONS)}, got {interpolation!r}"
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

    def middle(self, image, center_x, center_y, scale) -> tuple[tf.Tensor, tf.Tensor]:
        """Coordinates of the middle of the image, arcsec, `[...batch]`, from what places it."""
        return center_x, center_y

    def flux(self, *, image, **_elsewhere):
        return tf.reduce_sum(image, [-2, -1])

    def as_bilinear(self, image: np.ndarray, side: float, parts: int) -> tuple[np.ndarray, float]:
        """An image for codes that interpolate bilinearly alone: on finer pixels around the same middle, with which they
        draw nearly what this profile makes of it, the more `parts` the nearer. Unchanged if this one is bilinear too.

        Args:
            image: `[ny, nx]`, flux per pixel.
            side: of its pixels, arcsec.
            parts: of each side of a pixel.

        Returns:
            The image, `[(ny + 6) parts, (nx + 6) parts]`, for light ends up to three pixels beyond it, flux per pixel;
            and the side of its pixels, arcsec.

        Example:
            >>> finer, side = Pixelated(0.1, "quadratic").as_bilinear(np.ones((4, 5)), side=0.1, parts=2)
            >>> finer.shape, round(float(finer.sum()), 6), side
            ((20, 22), 20.0, 0.05)
        """
        if self.interpolation == "bilinear":
            return image, side
        y, x = ((np.arange(parts * (n + 2 * _MARGIN)) + 0.5) / parts - 0.5 - _MARGIN for n in image.shape)
        places = (tf.constant(each[None]) for each in np.meshgrid(x, y))
        found = _INTERPOLATIONS[self.interpolation](tf.constant(image[None], tf.float64), *places)
        return found[0].numpy() / parts**2, side / parts


class CenteredPixels(Pixelated):
    """An image that is placed by the centre of its light, not by that of its pixels.

    The centre is the mean position weighted with the square of the brightness, what a lens fit knows best of a
    position: an image that only shifts its light among its pixels then changes nothing that the data see. Arguments as
    of `Pixelated`.

    Example:
        >>> import tensorflow as tf
        >>> off_center = tf.constant([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
        >>> value = CenteredPixels(1.0).brightness(
        ...     tf.constant([[0.0]]), tf.constant([[0.0]]), image=off_center, center_x=0.0, center_y=0.0, scale=1.0)
        >>> float(value[0, 0])
        1.0
    """

    def brightness(self, x, y, *, image, center_x, center_y, scale):
        image = tf.convert_to_tensor(image)
        middle_x, middle_y = self.middle(image, center_x, center_y, scale)
        return super().brightness(x, y, image=image, center_x=middle_x, center_y=middle_y, scale=scale)

    def middle(self, image, center_x, center_y, scale):
        column, row = _center(tf.convert_to_tensor(image))
        side = self.pixel_scale * scale
        return center_x - side * column, center_y - side * row


_INTERPOLATIONS = {
    "bilinear": interpolate_bilinear,
    "quadratic": interpolate_quadratic,
    "bicubic": interpolate_bicubic,
}
_MARGIN = 3  # pixels, more than any of them reaches


def _center(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean column and row `[...batch]` of images `[...batch, ny, nx]`, from their middle, weighted with the square of
    the pixels: what a lens fit knows best of a position."""
    weight = image**2
    along_x, along_y = tf.reduce_sum(weight, -2), tf.reduce_sum(weight, -1)

    def mean(weight: tf.Tensor) -> tf.Tensor:
        n = weight.shape[-1]
        places = tf.cast(np.arange(n) - (n - 1) / 2, weight.dtype)
        return tf.reduce_sum(weight * places, -1) / tf.reduce_sum(weight, -1)

    return mean(along_x), mean(along_y)
