"""Elliptical power law (the singular isothermal ellipsoid included), in a form smooth through the round lens."""

from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass import hypergeometric
from tflens.mass.base import MassProfile
from tflens.mass.center import away_from_center
from tflens.mass.circular import CENTER
from tflens.pairs import Pair, polynomial
from tflens.parameters import Parameter, bounded_normal, ellipticity, log_normal
from tflens.profile import elliptical, on_pixels
from tflens.spread import spread


class EPL(MassProfile):
    """Elliptical power law of convergence (3 - gamma) / 2 (theta_E / R)^(gamma - 1).

    R is the intermediate-axis elliptical radius, gamma the slope of the 3-D density (isothermal: 2). The deflection is
    that of Tessore & Metcalf 2015 (A&A 580, A79, eq. 13), written in e = e1 + i e2 instead of axis ratio and angle so
    that nothing is singular at e = 0, with a continued fraction in place of their series
    (`tflens.mass.hypergeometric`); its order follows from `max_ellipticity` and `tolerance`.

    Args:
        max_ellipticity: largest |e| = (1 - q) / (1 + q) at which the deflection keeps its accuracy; the default prior
            never exceeds it.
        tolerance: bound on the relative error of the deflection at that ellipticity. Gradients are those of the exact
            deflection: beside those of the approximated one they are off by as much.

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
        *CENTER,
    )

    def __init__(self, max_ellipticity: float = 0.6, tolerance: float = 1e-6) -> None:
        if not 0 < max_ellipticity < 1:
            raise ParameterError(f"EPL.max_ellipticity must lie in (0, 1), got {max_ellipticity!r}")
        if not 0 < tolerance < 1:
            raise ParameterError(f"EPL.tolerance must lie in (0, 1), got {tolerance!r}")
        self.max_ellipticity = max_ellipticity
        self.tolerance = tolerance
        self.order = hypergeometric.order(max_ellipticity, tolerance)

    def get_config(self) -> dict[str, Any]:
        return {"max_ellipticity": self.max_ellipticity, "tolerance": self.tolerance}

    def deflection(self, x, y, *, theta_E, gamma, e1, e2, center_x, center_y):
        return deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, order=self.order)

    def potential(self, x, y, *, theta_E, gamma, e1, e2, center_x, center_y):
        return potential(x, y, theta_E, gamma, e1, e2, center_x, center_y, order=self.order)

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
        return deflection(x, y, theta_E, 2.0, e1, e2, center_x, center_y, order=self.order)

    def potential(self, x, y, *, theta_E, e1, e2, center_x, center_y):
        return potential(x, y, theta_E, 2.0, e1, e2, center_x, center_y, order=self.order)

    def convergence(self, x, y, *, theta_E, e1, e2, center_x, center_y):
        return convergence(x, y, theta_E, 2.0, e1, e2, center_x, center_y)


def deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, *, order: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Deflection angle, arcsec; zero at the centre by symmetry.

    alpha = [theta_E sqrt(1-|e|^2)]^t |v|^-t v F(-conj(e) v / conj(v)), t = gamma - 1, F(z) = 2F1(1, t/2; 2 - t/2; z),
    with F by a continued fraction of given order (`tflens.mass.hypergeometric`).
    """
    theta_E, gamma, e1, e2, center_x, center_y = on_pixels(theta_E, gamma, e1, e2, center_x, center_y, like=x)
    x, y, is_center = away_from_center(x - center_x, y - center_y)
    b = theta_E * tf.sqrt(1 - (e1**2 + e2**2))
    alpha_x, alpha_y = _deflection_off_center(x, y, b, gamma - 1, Pair(e1, e2), order)
    zero = tf.zeros_like(alpha_x)
    return tf.where(is_center, zero, alpha_x), tf.where(is_center, zero, alpha_y)


def potential(x, y, theta_E, gamma, e1, e2, center_x, center_y, *, order: int) -> tf.Tensor:
    """Lensing potential, arcsec^2: Re(conj(w) alpha) / (2 - t), for the potential is homogeneous of degree 2 - t."""
    alpha_x, alpha_y = deflection(x, y, theta_E, gamma, e1, e2, center_x, center_y, order=order)
    gamma, center_x, center_y = on_pixels(gamma, center_x, center_y, like=alpha_x)
    return ((x - center_x) * alpha_x + (y - center_y) * alpha_y) / (3 - gamma)


def convergence(x, y, theta_E, gamma, e1, e2, center_x, center_y) -> tf.Tensor:
    """Convergence (3 - gamma) / 2 (theta_E / R)^(gamma - 1); at the centre its value 1e-6 arcsec away."""
    theta_E, gamma, e1, e2, center_x, center_y = on_pixels(theta_E, gamma, e1, e2, center_x, center_y, like=x)
    x, y, _ = away_from_center(x - center_x, y - center_y)
    _, _, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    log_ratio = tf.math.log(theta_E) + 0.5 * (tf.math.log(one_minus_e2) - tf.math.log(v2))
    return (3 - gamma) / 2 * tf.exp((gamma - 1) * log_ratio)


def _deflection_off_center(
    x: tf.Tensor, y: tf.Tensor, b: tf.Tensor, t: tf.Tensor, e: Pair, order: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """(b/|v|)^t v F(-conj(e) v / conj(v)) with its derivatives written down.

    Reverse-mode differentiation of the formula costs several times as much: here the Jacobian in x and y follows from
    alpha and kappa alone, the derivative of F by z from F itself, and nothing is stored for the way back. The
    gradient can be differentiated again.
    """
    top, bottom = hypergeometric.convergent(t, order)

    def angular(x: tf.Tensor, y: tf.Tensor) -> _Angular:
        v_re, v_im, v2, _ = elliptical(x, y, e.re, e.im)
        v = Pair(v_re, v_im)
        u = v * v * (1 / v2)
        z = -(e.conj * u)
        rest, distance = 1 - z, 1 - 2 * z.re + e.squared
        below = polynomial(bottom, rest, distance)
        g = polynomial(top, rest, distance) / below
        log_ratio = tf.math.log(b) - 0.5 * tf.math.log(v2)
        return _Angular(v, u, z, rest, distance, below, g, log_ratio, tf.exp(t * log_ratio))

    @tf.custom_gradient
    def alpha(x: tf.Tensor, y: tf.Tensor, b_pixels, t_pixels, e1_pixels, e2_pixels):
        # b, t and e are used once for each lens; spread over the pixels they only carry the reverse-mode gradient.
        # (Forward mode does not use a custom gradient: it follows the operations.)
        del b_pixels, t_pixels, e1_pixels, e2_pixels

        def gradient(d_x: tf.Tensor, d_y: tf.Tensor) -> tuple[tf.Tensor, ...]:
            v, u, z, rest, distance, below, g, log_ratio, scale = angular(x, y)
            w, half = Pair(x, y), t / 2
            f = 1 + z * g
            # (1 - z) F' = (t/2) F - (1 - t/2) (F - 1)/z, from the recurrence of the coefficients of F's series.
            f_z = (half * f - (1 - half) * g) * rest.conj / distance
            z_f_z = z * f_z
            top_slope, bottom_slope = (polynomial(c, rest, distance) for c in hypergeometric.convergent_slope(t, order))
            f_t = z * (top_slope - g * bottom_slope) / below
            # alpha = scale v F: its derivatives by v and conj(v) are scale p and -scale u q; v = w - e conj(w).
            p, q = (1 - half) * f + z_f_z, half * f + z_f_z
            kappa, shear = (1 - half) * scale, -((e * p + u * q) * scale)
            # dL = Re(conj(d) d alpha), and d alpha = kappa dw + shear d(conj w).
            d = Pair(d_x, -d_y)
            d_w = d * kappa + d.conj * shear.conj
            d_e = (d.conj * (u * (w * q - v * f_z)).conj - d * w.conj * p) * scale
            d = d * v * scale
            d_alpha = (d * f).re
            return d_w.re, -d_w.im, t / b * d_alpha, d_alpha * log_ratio + (d * f_t).re, d_e.re, -d_e.im

        now = angular(x, y)
        value = now.v * (1 + now.z * now.g) * now.scale
        return (value.re, value.im), gradient

    like = x + y + b + t + e.re + e.im
    x, y = (tf.broadcast_to(value, tf.shape(like)) for value in (x, y))
    return alpha(x, y, *(spread(value, like) for value in (b, t, e.re, e.im)))


class _Angular(NamedTuple):
    """What deflection and gradient share, at every pixel."""

    v: Pair
    u: Pair  # v / conj(v)
    z: Pair  # -conj(e) u
    rest: Pair  # 1 - z
    distance: tf.Tensor  # |1 - z|^2
    below: Pair  # the denominator of g
    g: Pair  # (F - 1) / z
    log_ratio: tf.Tensor  # log(b / |v|)
    scale: tf.Tensor  # (b / |v|)^t
