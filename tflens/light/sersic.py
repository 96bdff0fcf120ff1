"""Elliptical Sersic profile."""

from typing import ClassVar

import tensorflow as tf

from tflens.light.base import LightProfile
from tflens.light.flux import sersic_flux
from tflens.parameters import Parameter, bounded_normal, ellipticity, log_normal, normal
from tflens.profile import elliptical, on_pixels

_CORE = 1e-8  # arcsec^2, added to R^2 so that the cusp at the centre has a finite gradient
# Minimax fit of (b_n - 2n + 1/3) n as a polynomial in 1/n for n >= 0.36; the first is close to 4/405.
_B_N = (9.877087573e-3, 1.794810103e-3, 1.107487034e-4, -1.244069951e-4, 2.385111317e-5, -1.743820392e-6)


class Sersic(LightProfile):
    """Sersic profile exp(-b_n ((R / R_sersic)^(1/n) - 1)): its amplitude is the brightness at the effective radius.

    R is the intermediate-axis elliptical radius, so half of the light lies within the ellipse R = R_sersic.
    b_n has a relative error below 2e-8 for n >= 0.36.
    R^2 is softened by (1e-4 arcsec)^2, which changes the brightness by less than 1e-4 beyond 0.01 arcsec for
    n >= 0.5 and R_sersic >= 0.05 arcsec.

    Example:
        >>> import tensorflow as tf
        >>> image = Sersic().brightness(
        ...     tf.constant([[0.7]]), tf.constant([[0.0]]),
        ...     R_sersic=0.7, n_sersic=3.0, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)
        >>> round(float(image[0, 0]), 5)
        1.0
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("R_sersic",), "arcsec", "effective radius (intermediate axis)", log_normal(0.7, 0.8)),
        Parameter(("n_sersic",), "", "Sersic index", bounded_normal(0.5, 8.0, 3.0, 1.5)),
        Parameter(("e1", "e2"), "", "ellipticity (1-q)/(1+q) (cos, sin) 2 phi", ellipticity(0.15, 0.7)),
        Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.1)),
        Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.1)),
    )

    def brightness(self, x, y, *, R_sersic, n_sersic, e1, e2, center_x, center_y):
        return brightness(x, y, R_sersic, n_sersic, e1, e2, center_x, center_y)

    def flux(self, *, R_sersic, n_sersic, **_elsewhere):
        n_sersic = tf.convert_to_tensor(n_sersic)
        return sersic_flux(R_sersic, n_sersic, b_n(n_sersic))


def brightness(x, y, R_sersic, n_sersic, e1, e2, center_x, center_y) -> tf.Tensor:
    """Surface brightness of a Sersic profile that is 1 at its effective radius."""
    R_sersic, n_sersic, e1, e2, center_x, center_y = on_pixels(R_sersic, n_sersic, e1, e2, center_x, center_y, like=x)
    _, _, v2, one_minus_e2 = elliptical(x - center_x, y - center_y, e1, e2)
    log_ratio = 0.5 * tf.math.log(v2 / one_minus_e2 + _CORE) - tf.math.log(R_sersic)
    # Far outside a compact low-n profile the power overflows float32; exp(-exp(10)) is 0 all the same.
    return tf.exp(-b_n(n_sersic) * (tf.exp(tf.minimum(log_ratio / n_sersic, 10.0)) - 1))


def b_n(n: tf.Tensor) -> tf.Tensor:
    """The constant that makes R_sersic enclose half of the light: gamma(2n, b_n) = Gamma(2n) / 2.

    2n - 1/3 + 4/(405 n) + ... as in Ciotti & Bertin 1999 (A&A 352, 447, eq. 18), but with a polynomial in 1/n fitted
    to the inverse incomplete gamma function: their five terms are wrong by 4e-4 at n = 0.5 and 2e-5 at n = 1.
    """
    correction = tf.zeros_like(n)
    for c in reversed(_B_N):
        correction = (correction + c) / n
    return 2 * n - 1 / 3 + correction
