"""Elliptical Gaussian, and sums of them."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import PLACE, LightProfile
from tflens.light.light_set import LightSet
from tflens.parameters import Parameter, log_normal, log_normals
from tflens.profile import elliptical, on_pixels


class Gaussian(LightProfile):
    """Elliptical Gaussian exp(-R^2 / (2 sigma^2)) / (2 pi sigma^2): its amplitude is its total flux.

    R is the intermediate-axis elliptical radius, so sigma is the geometric mean of the widths along the two axes.
    The amplitude is that of lenstronomy's GAUSSIAN_ELLIPSE.

    Example:
        >>> import tensorflow as tf
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> x, y = tf.constant([[0.0, 0.2]]), tf.constant([[0.0]])
        >>> [round(float(v), 4) for v in Gaussian().brightness(x, y, sigma=0.2, **round_center)[0]]
        [3.9789, 2.4133]
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("sigma",), "arcsec", "width (intermediate axis)", log_normal(0.5, 0.8)),
        *PLACE,
    )

    def brightness(self, x, y, *, sigma, e1, e2, center_x, center_y):
        sigma, e1, e2, center_x, center_y = on_pixels(sigma, e1, e2, center_x, center_y, like=x)
        return gaussian(_radius_squared(x - center_x, y - center_y, e1, e2), sigma)

    def flux(self, *, sigma, **_elsewhere):
        return tf.ones_like(sigma)


class MultiGaussian(LightSet):
    """Concentric elliptical Gaussians of fixed widths and one ellipticity, sum_i amp_i Gaussian(sigma_i).

    The multi-Gaussian expansion of Emsellem et al. 1994 (A&A 285, 723) and Cappellari 2002 (MNRAS 333, 400, eq. 1);
    amp_i are fluxes, as in lenstronomy's MULTI_GAUSSIAN_ELLIPSE. Their default prior is log-normal about equal shares
    of a total of 1, with a standard deviation of e-fold.

    Args:
        sigmas: widths (intermediate axis), arcsec, usually in a geometric series.

    Raises:
        ParameterError: there are fewer than two widths, or one is not positive and finite.

    Example:
        >>> import tensorflow as tf
        >>> light = MultiGaussian(sigmas=[0.1, 0.4])
        >>> light.parameter_names
        ('e1', 'e2', 'center_x', 'center_y', 'amp_0', 'amp_1')
        >>> float(light.flux(e1=0.0, e2=0.0, center_x=0.0, center_y=0.0, amp_0=tf.constant(0.25), amp_1=0.5))
        0.75
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        if len(sigmas) < 2 or not all(0 < sigma < float("inf") for sigma in sigmas):
            raise ParameterError(
                "MultiGaussian.sigmas must be two or more positive and finite widths (arcsec; for one take Gaussian), "
                f"got {sigmas!r}"
            )
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        super().__init__(PLACE, len(self.sigmas), log_normals(1 / len(self.sigmas), 1.0, len(self.sigmas)))

    def get_config(self) -> dict[str, Any]:
        return {"sigmas": list(self.sigmas)}

    def basis(self, x, y, *, e1, e2, center_x, center_y):
        e1, e2, center_x, center_y = on_pixels(e1, e2, center_x, center_y, like=x)
        radius_squared = _radius_squared(x - center_x, y - center_y, e1, e2)
        return [gaussian(radius_squared, sigma) for sigma in self.sigmas]

    def flux(self, **parameters):
        _, amplitudes = self._split(parameters)
        return sum(amplitudes[1:], tf.convert_to_tensor(amplitudes[0]))


def gaussian(radius_squared: tf.Tensor, sigma: tf.Tensor | float) -> tf.Tensor:
    """A round Gaussian of unit flux at a given squared radius."""
    precision = 1 / sigma**2
    return tf.exp(-0.5 * precision * radius_squared) * (precision / (2 * math.pi))


def _radius_squared(x: tf.Tensor, y: tf.Tensor, e1: tf.Tensor, e2: tf.Tensor) -> tf.Tensor:
    _, _, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    return v2 / one_minus_e2
