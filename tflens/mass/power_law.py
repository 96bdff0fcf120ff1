"""Elliptical power law (the singular isothermal ellipsoid included), in a form smooth through the round lens."""

import math
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, bounded_normal, ellipticity, log_normal, normal
from tflens.profile import elliptical, on_pixels

_TINY = 1e-12  # squared distance (arcsec^2) below which a point counts as the centre


class EPL(MassProfile):
    """Elliptical power law of convergence (3 - gamma) / 2 (theta_E / R)^(gamma - 1).

    R is the intermediate-axis elliptical radius, gamma the slope of the 3-D density (isothermal: 2). The deflection is
    the series of Tessore & Metcalf 2015 (A&A 580, A79, eq. 13 and 23), written in e = e1 + i e2 instead of axis ratio
    and angle so that nothing is singular at e = 0. The number of terms follows from `max_ellipticity`.

    Args:
        max_ellipticity: largest |e| = (1 - q) / (1 + q) at which the truncated series keeps its accuracy; the default
            prior never exceeds it.
        tolerance: bound on the relative truncation error of the deflection at that ellipticity.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[3.0, 0.0]]), tf.constant([[0.0, 2.0]])
        >>> ax, ay = EPL().deflection(x, y, theta_E=1.5, gamma=2.0, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)
        >>> [round(float(v), 5) for v in (ax[0, 0], ay[0, 1])]
        [1.5, 1.5]
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("theta_E",), "arcsec", "Einstein radius (intermediate axis)", log_normal(1.2, 0.5)),
        Parameter(("gamma",), "", "slope of the 3-D density, isothermal = 2", bounded_normal(1.2, 2.8, 2.0, 0.2)),
        Parameter(("e1", "e2"), "", "ellipticity (1-q)/(1+q) (cos, sin) 2 phi", ellipticity(0.15, 0.6)),
        Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.1)),
        Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.1)),
    )

    def __init__(self, max_ellipticity: float = 0.6, tolerance: float = 1e-6) -> None:
        if not 0 < max_ellipticity < 1:
            raise ParameterError(f"EPL.max_ellipticity must lie in (0, 1), got {max_ellipticity!r}")
        if not 0 < tolerance < 1:
            raise ParameterError(f"EPL.tolerance must lie in (0, 1), got {tolerance!r}")
        self.max_ellipticity = max_ellipticity
        self.tolerance = tolerance
        # |c_n| <= 1, so the tail after N terms is below |e|^N / (1 - |e|).
        self.terms = int(np.ceil(np.log(tolerance * (1 - max_ellipticity)) / np.log(max_ellipticity)))

    def get_config(self) -> dict[str, Any]:
        return {"max_ellipticity": self.max_ellipticity, "tolerance": self.tolerance}

    def deflection(self, x, y, *, theta_E, gamma, e1, e2, center_x, center_y):
        return deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, terms=self.terms)

    def potential(self, x, y, *, theta_E, gamma, e1, e2, center_x, center_y):
        return potential(x, y, theta_E, gamma, e1, e2, center_x, center_y, terms=self.terms)

    def convergence(self, x, y, *, theta_E, gamma, e1, e2, center_x, center_y):
        return convergence(x, y, theta_E, gamma, e1, e2, center_x, center_y)


class SIE(EPL):
    """Singular isothermal ellipsoid: the elliptical power law of slope gamma = 2.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[1.0]]), tf.constant([[1.0]])
        >>> kappa = SIE().convergence(x, y, theta_E=2.0, e1=0.0, e2=0.0, center_x=0.0, center_y=0.0)
        >>> round(float(kappa[0, 0]), 5)
        0.70711
    """

    parameters: ClassVar[tuple[Parameter, ...]] = tuple(p for p in EPL.parameters if p.names != ("gamma",))

    def deflection(self, x, y, *, theta_E, e1, e2, center_x, center_y):
        return deflection(x, y, theta_E, 2.0, e1, e2, center_x, center_y, terms=self.terms)

    def potential(self, x, y, *, theta_E, e1, e2, center_x, center_y):
        return potential(x, y, theta_E, 2.0, e1, e2, center_x, center_y, terms=self.terms)

    def convergence(self, x, y, *, theta_E, e1, e2, center_x, center_y):
        return convergence(x, y, theta_E, 2.0, e1, e2, center_x, center_y)


def deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, *, terms: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Deflection angle, arcsec; zero at the centre by symmetry.

    alpha = [theta_E sqrt(1-|e|^2)]^t |v|^-t v sum_n c_n (-conj(e) v / conj(v))^n, t = gamma - 1,
    c_n = prod_{k<=n} (2k - (2-t)) / (2k + (2-t)).
    """
    theta_E, gamma, e1, e2, center_x, center_y = on_pixels(theta_E, gamma, e1, e2, center_x, center_y, like=x)
    x, y, is_center = _away_from_center(x - center_x, y - center_y)
    vr, vi, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    t = gamma - 1
    # s = -conj(e) u with u = v / conj(v) on the unit circle, so |s| = |e| at every pixel.
    cos, sin = (vr**2 - vi**2) / v2, 2 * vr * vi / v2
    s_real, s_imag = -(e1 * cos + e2 * sin), -(e1 * sin - e2 * cos)
    series_real, series_imag = _series(t, s_real, s_imag, terms)
    scale = tf.exp(t * (tf.math.log(theta_E) + 0.5 * (tf.math.log(one_minus_e2) - tf.math.log(v2))))
    alpha_x = scale * (vr * series_real - vi * series_imag)
    alpha_y = scale * (vr * series_imag + vi * series_real)
    zero = tf.zeros_like(alpha_x)
    return tf.where(is_center, zero, alpha_x), tf.where(is_center, zero, alpha_y)


def potential(x, y, theta_E, gamma, e1, e2, center_x, center_y, *, terms: int) -> tf.Tensor:
    """Lensing potential, arcsec^2: Re(conj(w) alpha) / (2 - t), for the potential is homogeneous of degree 2 - t."""
    alpha_x, alpha_y = deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, terms=terms)
    gamma, center_x, center_y = on_pixels(gamma, center_x, center_y, like=alpha_x)
    return ((x - center_x) * alpha_x + (y - center_y) * alpha_y) / (3 - gamma)


def convergence(x, y, theta_E, gamma, e1, e2, center_x, center_y) -> tf.Tensor:
    """Convergence (3 - gamma) / 2 (theta_E / R)^(gamma - 1); at the centre its value 1e-6 arcsec away."""
    theta_E, gamma, e1, e2, center_x, center_y = on_pixels(theta_E, gamma, e1, e2, center_x, center_y, like=x)
    x, y, _ = _away_from_center(x - center_x, y - center_y)
    _, _, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    log_ratio = tf.math.log(theta_E) + 0.5 * (tf.math.log(one_minus_e2) - tf.math.log(v2))
    return (3 - gamma) / 2 * tf.exp((gamma - 1) * log_ratio)


def _away_from_center(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    # Moving the input, not mending the output: only so does the gradient stay finite.
    is_center = x**2 + y**2 < _TINY
    x = tf.where(is_center, tf.constant(_TINY**0.5, x.dtype), x + tf.zeros_like(y))
    y = tf.where(is_center, tf.constant(0.0, y.dtype), y + tf.zeros_like(x))
    return x, y, is_center


def _series(
    t: tf.Tensor, s_real: tf.Tensor, s_imag: tf.Tensor, terms: int, t_order: int = 0, s_order: int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """sum_n c_n(t) s^n for complex s, or its derivative of given orders with respect to t and s.

    Its derivatives are series of the same kind, so they are written down instead of left to automatic differentiation
    through the recursion: nothing is stored, the gradient with respect to t is one sum over pixels instead of one for
    each term, and XLA has less to compile. They can be differentiated again.
    """
    coefficients = _coefficients(t, terms, t_order, s_order)

    @tf.custom_gradient
    def series(t_pixels: tf.Tensor, s_real: tf.Tensor, s_imag: tf.Tensor):
        # The coefficients hold t once for each lens; spread over the pixels it only carries the reverse-mode gradient.
        # (Forward mode does not use a custom gradient: it follows the coefficients.)
        del t_pixels

        def gradient(d_real: tf.Tensor, d_imag: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # Analytic in s: dS = S' ds in complex numbers.
            ds_real, ds_imag = _series(t, s_real, s_imag, terms, t_order, s_order + 1)
            dt_real, dt_imag = _series(t, s_real, s_imag, terms, t_order + 1, s_order)
            return (
                d_real * dt_real + d_imag * dt_imag,
                d_real * ds_real + d_imag * ds_imag,
                d_imag * ds_real - d_real * ds_imag,
            )

        return _real_polynomial(coefficients, s_real, s_imag), gradient

    return series(tf.broadcast_to(t, tf.shape(t + s_real)), s_real + tf.zeros_like(t), s_imag + tf.zeros_like(t))


def _coefficients(t: tf.Tensor, terms: int, t_order: int, s_order: int) -> list[tf.Tensor]:
    """Coefficients of the series differentiated `t_order` times by t and `s_order` times by s.

    c_n = c_{n-1} f_n with f_n = (2n - 2 + t) / (2n + 2 - t) = 4n / (2n + 2 - t) - 1; derivatives by Leibniz's rule.
    """
    derivatives = [tf.ones_like(t), *(tf.zeros_like(t) for _ in range(t_order))]
    coefficients = [derivatives[t_order]]
    for n in range(1, terms):
        pole = 1 / (2 * n + 2 - t)
        factor = [4 * n * math.factorial(m) * pole ** (m + 1) - (1 if m == 0 else 0) for m in range(t_order + 1)]
        derivatives = [
            tf.add_n([math.comb(m, j) * derivatives[j] * factor[m - j] for j in range(m + 1)])
            for m in range(t_order + 1)
        ]
        coefficients.append(derivatives[t_order])
    for _ in range(s_order):
        coefficients = [n * c for n, c in enumerate(coefficients)][1:]
    return coefficients


def _real_polynomial(
    coefficients: list[tf.Tensor], s_real: tf.Tensor, s_imag: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """sum_n c_n s^n for real c_n and complex s, by synthetic division with z^2 - 2 Re(s) z + |s|^2.

    Two real operations a term, against four for Horner's scheme in complex numbers.
    """
    twice, s_squared = 2 * s_real, s_real**2 + s_imag**2
    b1 = b2 = tf.zeros_like(s_real)
    for c in reversed(coefficients[1:]):
        b1, b2 = c + twice * b1 - s_squared * b2, b1
    return coefficients[0] + s_real * b1 - s_squared * b2, s_imag * b1
