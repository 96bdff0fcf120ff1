"""A source of free pixels, with a prior that makes them positive and smooth."""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.pixelated import CenteredPixels
from tflens.parameters import Parameter, log_normal, normal


class RegularizedPixels(CenteredPixels):
    """Free pixels under a Gaussian random field: a source of which nothing is known but that it is smooth.

    log brightness = that of a round exponential disc + `contrast` x f, normalised to unit flux; f is a field of unit
    variance, the product of a Matern-3/2 correlation (1 + d/l) exp(-d/l) along x and one along y. Smoothing white
    pixels with exp(-abs(x)/l) gives just that, so that the field is a function of u ~ N(0, I) and fits like a network
    do not need the density of the pixels. Its strength is no setting to be tuned: the first two latents are the
    logarithms of l and of the contrast, in units of their prior's width, and are inferred with the rest.

    The exact covariance belongs to pixels far from the border; near it the field keeps its variance, and is a little
    rougher.

    Args:
        pixels: along each side; there are `pixels**2 + 2` latents.
        pixel_scale: side of a pixel at `scale` = 1, arcsec.
        half_light_radius: of the disc that the field modulates, arcsec.
        correlation_length: median of l, arcsec.
        contrast: median standard deviation of f's part in log brightness.
        spread: of the priors of log l and log contrast.

    Raises:
        ParameterError: `pixels` is not an integer >= 2, or another setting not positive and finite.

    Example:
        >>> source = RegularizedPixels(pixels=12)
        >>> source.latent_dim
        146
        >>> image = source.image(tf.zeros([1, source.latent_dim]))
        >>> image.shape, round(float(tf.reduce_sum(image)), 4)
        (TensorShape([1, 12, 12]), 1.0)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("center_x",), "arcsec", "centre of the light", normal(0.0, 0.3)),
        Parameter(("center_y",), "arcsec", "centre of the light", normal(0.0, 0.3)),
        Parameter(("scale",), "", "magnification of the image's size", log_normal(1.0, 0.1)),
    )

    def __init__(
        self,
        pixels: int = 24,
        pixel_scale: float = 0.08,
        half_light_radius: float = 0.3,
        correlation_length: float = 0.15,
        contrast: float = 0.7,
        spread: float = 0.5,
    ) -> None:
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 2:
            raise ParameterError(f"RegularizedPixels.pixels must be an integer >= 2, got {pixels!r}")
        lengths = {
            "half_light_radius": half_light_radius,
            "correlation_length": correlation_length,
            "contrast": contrast,
            "spread": spread,
        }
        for name, value in lengths.items():
            if not 0 < value < float("inf"):
                raise ParameterError(f"RegularizedPixels.{name} must be positive and finite, got {value!r}")
        super().__init__(pixel_scale)
        self.pixels = pixels
        self.half_light_radius, self.correlation_length = float(half_light_radius), float(correlation_length)
        self.contrast, self.spread = float(contrast), float(spread)
        place = np.arange(pixels) - (pixels - 1) / 2
        self._distance = np.abs(place[:, None] - place)
        # An exponential disc holds half of its light within 1.678 scale lengths; rounded off within half a pixel.
        radius = np.sqrt(place**2 + place[:, None] ** 2 + 0.25) * self.pixel_scale
        self._log_disc = -1.678 * radius / self.half_light_radius

    @property
    def latent_dim(self) -> int:
        """Number of latents: the pixels, and two that say how smooth they are."""
        return self.pixels**2 + 2

    def image(self, u: tf.Tensor) -> tf.Tensor:
        """Pixels `[...batch, n, n]` of unit flux for base-space latents `[...batch, latent_dim]`."""
        u = tf.convert_to_tensor(u)
        contrast = self.contrast * tf.exp(self.spread * u[..., 1])
        log_image = tf.constant(self._log_disc, u.dtype) + contrast[..., None, None] * self.field(u)
        flat = tf.nn.softmax(tf.reshape(log_image, tf.concat([tf.shape(u)[:-1], [self.pixels**2]], 0)))
        return tf.reshape(flat, tf.shape(log_image))

    def field(self, u: tf.Tensor) -> tf.Tensor:
        """f `[...batch, n, n]`, of unit variance, for latents `[...batch, latent_dim]`."""
        u = tf.convert_to_tensor(u)
        white = tf.reshape(u[..., 2:], tf.concat([tf.shape(u)[:-1], [self.pixels, self.pixels]], 0))
        length = self.correlation_length / self.pixel_scale * tf.exp(self.spread * u[..., 0])
        smoothing = tf.exp(-tf.constant(self._distance, u.dtype) / length[..., None, None])
        smoothing /= tf.sqrt(tf.reduce_sum(smoothing**2, -1, keepdims=True))
        return tf.matmul(smoothing, tf.matmul(white, smoothing, transpose_b=True))

    def get_config(self) -> dict[str, Any]:
        names = ("pixels", "pixel_scale", "half_light_radius", "correlation_length", "contrast", "spread")
        return {name: getattr(self, name) for name in names}
