"""Stellar mass that follows a Sersic profile."""

from typing import ClassVar

import tensorflow as tf

from tflens.mass.circular import CENTER, CircularMass
from tflens.parameters import Parameter, bounded_normal, log_normal
from tflens.quadrature import integral, nodes_and_weights
from tflens.sersic import b_n, log_sersic

_NODES = {tf.float32: (28, 3), tf.float64: (48, 5)}  # number, and the power that gathers them at s = 0


class SersicMass(CircularMass):
    """Convergence k_eff exp(-b_n ((r / R_sersic)^(1/n) - 1)), as lenstronomy's SERSIC (Cardone 2004, A&A 415, 839).

    b_n is that of `tflens.light.Sersic`, so that mass follows light and R_sersic holds half of the mass; lenstronomy
    has the approximation b_n = 1.9992 n - 0.3271 and so, for the same parameters, another profile. The two agree for
    its R_sersic (b' / b)^n and k_eff exp(b - b').

    Deflection and potential are the incomplete gamma function and its derivative with respect to the order, as
    Laplace integrals by Gauss-Legendre quadrature (48 nodes in float64, 28 in float32): smooth in all parameters, n
    included. Relative error below 3e-13 and 5e-6 for n from 0.5 to 10.

    Example:
        >>> import tensorflow as tf
        >>> stars = {"k_eff": 0.3, "R_sersic": 1.0, "n_sersic": tf.constant(4.0)}
        >>> half, total = (SersicMass().mass_within(r, **stars) for r in (1.0, 1e6))
        >>> round(float(half / total), 5)
        0.5
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("k_eff",), "", "convergence at R_sersic", log_normal(0.3, 0.8)),
        Parameter(("R_sersic",), "arcsec", "radius that encloses half of the mass", log_normal(1.5, 0.7)),
        Parameter(("n_sersic",), "", "Sersic index", bounded_normal(0.5, 8.0, 3.0, 1.5)),
        *CENTER,
    )

    def radial_potential(self, r2, *, k_eff, R_sersic, n_sersic):
        log_t, b, order = _scaled(r2, R_sersic, n_sersic)
        beyond, gamma, derivative = _incomplete_gamma(log_t, b, order)
        # Outside, where all mass is enclosed, the potential grows with the logarithm of the radius.
        logarithm = derivative + gamma * beyond
        return 2 * n_sersic**2 * k_eff * r2 * tf.exp(-order * beyond) * logarithm

    def radial_mean_convergence(self, r2, *, k_eff, R_sersic, n_sersic):
        log_t, b, order = _scaled(r2, R_sersic, n_sersic)
        beyond, gamma, _ = _incomplete_gamma(log_t, b, order)
        return 2 * n_sersic * k_eff * tf.exp(-order * beyond) * gamma

    def radial_convergence(self, r2, *, k_eff, R_sersic, n_sersic):
        n_sersic = tf.convert_to_tensor(n_sersic, r2.dtype)
        return k_eff * tf.exp(log_sersic(_log_ratio(r2, R_sersic), n_sersic, b_n(n_sersic)))


def _scaled(r2: tf.Tensor, R_sersic, n_sersic) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """ln t with t = b (r / R_sersic)^(1/n), b, and the order 2 n of the gamma function."""
    n_sersic = tf.convert_to_tensor(n_sersic, r2.dtype)
    b = b_n(n_sersic)
    return tf.math.log(b) + _log_ratio(r2, R_sersic) / n_sersic, b, 2 * n_sersic


def _log_ratio(r2: tf.Tensor, R_sersic) -> tf.Tensor:
    return 0.5 * tf.math.log(r2) - tf.math.log(tf.convert_to_tensor(R_sersic, r2.dtype))


def _incomplete_gamma(log_t: tf.Tensor, b: tf.Tensor, order: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """ln(t / t'), and exp(b) times the integrals from 0 to 1 of s^(order - 1) exp(-t' s) and of that times -ln s.

    The first is t'^-order gamma(order, t'), the second t'^-order times the integral of gamma(order, t) / t up to t'.
    t' is t, or where t is so large that the whole gamma function is enclosed, the least such.
    """
    enclosed = tf.math.log(order + 12 * tf.sqrt(order) + 25)
    beyond = tf.maximum(log_t - enclosed, 0.0)
    t = tf.exp(tf.minimum(log_t, enclosed))
    s, weights = nodes_and_weights(*_NODES[t.dtype], t.shape.rank, t.dtype)
    log_s = tf.math.log(s)
    integrand = tf.exp(b - t * s + (order - 1) * log_s)
    return beyond, integral(weights, integrand), integral(-weights * log_s, integrand)
