"""NFW halo, and the one that Baltz et al. truncate smoothly."""

import math
from typing import ClassVar

import tensorflow as tf

from tflens.mass.circular import CENTER, CircularMass
from tflens.mass.special import angle_difference, angle_ratio, log1p_ratio, nfw_mass, nfw_potential
from tflens.parameters import Parameter, log_normal

_HALO = (
    Parameter(("Rs",), "arcsec", "scale radius", log_normal(5.0, 0.7)),
    Parameter(("alpha_Rs",), "arcsec", "deflection at Rs (of the halo without truncation)", log_normal(1.0, 0.7)),
)


class NFW(CircularMass):
    """Halo of density rho_0 / (x (1 + x)^2), x = r / Rs (Navarro, Frenk & White 1997, ApJ 490, 493).

    Normalised, as in lenstronomy, by the deflection at the scale radius: alpha_Rs = 4 rho_0 Rs^2 (1 - ln 2), rho_0 in
    units of the critical surface density. Projections of Bartelmann 1996 (A&A 313, 697) and Keeton 2001
    (astro-ph/0102341, eq. 53-54), in a form that keeps its digits at the centre and at r = Rs.

    Example:
        >>> import tensorflow as tf
        >>> halo = {"Rs": 3.0, "alpha_Rs": 1.2, "center_x": 0.0, "center_y": 0.0}
        >>> alpha_x, _ = NFW().deflection(tf.constant([[3.0]]), tf.constant([[0.0]]), **halo)
        >>> round(float(alpha_x[0, 0]), 5)
        1.2
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (*_HALO, *CENTER)

    def radial_potential(self, r2, *, Rs, alpha_Rs):
        return _amplitude(Rs, alpha_Rs) * Rs**2 * nfw_potential(r2 / Rs**2) / 2

    def radial_mean_convergence(self, r2, *, Rs, alpha_Rs):
        return _amplitude(Rs, alpha_Rs) * nfw_mass(r2 / Rs**2)

    def radial_convergence(self, r2, *, Rs, alpha_Rs):
        return _amplitude(Rs, alpha_Rs) * angle_difference(r2 / Rs**2) / 2


class TNFW(CircularMass):
    """NFW halo whose density is multiplied by r_trunc^2 / (r^2 + r_trunc^2); its mass is finite.

    Baltz, Marshall & Oguri 2009 (JCAP 01, 015, appendix A). `alpha_Rs` keeps the meaning it has without truncation,
    as in lenstronomy. Their formulae are regrouped so that neither the centre nor the far field nor a distant
    truncation costs digits of the deflection; the convergence at r >> r_trunc, where it falls as r^-4, has an absolute
    error of about machine precision times its value at Rs and (Rs / r)^2.

    Example:
        >>> import tensorflow as tf
        >>> halo = {"Rs": tf.constant(2.0), "alpha_Rs": tf.constant(1.0), "r_trunc": tf.constant(6.0)}
        >>> bool(TNFW().mass_within(1e4, **halo) < TNFW().total_mass(**halo))
        True
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        *_HALO,
        Parameter(("r_trunc",), "arcsec", "truncation radius", log_normal(25.0, 0.7)),
        *CENTER,
    )

    def radial_potential(self, r2, *, Rs, alpha_Rs, r_trunc):
        tau = r_trunc / Rs
        return _amplitude(Rs, alpha_Rs) * Rs**2 * _suppression(tau) * _truncated_potential(r2 / Rs**2, tau) / 2

    def radial_mean_convergence(self, r2, *, Rs, alpha_Rs, r_trunc):
        u, tau = r2 / Rs**2, r_trunc / Rs
        return _amplitude(Rs, alpha_Rs) * _suppression(tau) * _truncated_mass(u, tau)

    def radial_convergence(self, r2, *, Rs, alpha_Rs, r_trunc):
        u, tau = r2 / Rs**2, r_trunc / Rs
        return _amplitude(Rs, alpha_Rs) * _suppression(tau) * _truncated_convergence(u, tau) / 2

    def total_mass(self, Rs: tf.Tensor, alpha_Rs: tf.Tensor, r_trunc: tf.Tensor) -> tf.Tensor:
        """Integral of the convergence over the plane, arcsec^2 (Baltz et al. 2009, eq. A.4)."""
        tau = r_trunc / Rs
        bracket = (tau**2 - 1) * tf.math.log(tau) + math.pi * tau - (tau**2 + 1)
        return math.pi * _amplitude(Rs, alpha_Rs) * Rs**2 * _suppression(tau) * bracket


def _amplitude(Rs, alpha_Rs) -> tf.Tensor:
    """4 rho_0 Rs."""
    return alpha_Rs / Rs / (1 - math.log(2))


def _suppression(tau: tf.Tensor) -> tf.Tensor:
    """tau^2 / (1 + tau^2)^2."""
    return (tau / (1 + tau**2)) ** 2


def _truncated_convergence(u: tf.Tensor, tau: tf.Tensor) -> tf.Tensor:
    t = tf.sqrt(tau**2 + u)
    is_far, root, q = _far(u)
    # 2 C - pi / t; far out both are pi / x.
    near = 2 * angle_ratio(u) - math.pi / t
    far = math.pi * (1 + tau**2) / (root * t * (root + t)) - 2 * q / root**2
    log = _log_ratio(u, tau, t)
    return (tau**2 + 1) * angle_difference(u) + tf.where(is_far, far, near) + (tau**2 - 1) * log / (tau * t)


def _truncated_mass(u: tf.Tensor, tau: tf.Tensor) -> tf.Tensor:
    """Projected mass within x over u."""
    t, y_u, y, log = _parts(u, tau)
    return (tau**2 - 1) * (nfw_mass(u) + y_u * (2 * log - log1p_ratio(y))) + _boundary(u, tau, t)


def _truncated_potential(u: tf.Tensor, tau: tf.Tensor) -> tf.Tensor:
    t, _, y, log = _parts(u, tau)
    a = tf.math.log1p(y)
    inner = nfw_potential(u) - a**2 - 2 * a * (1 + log) + 4 * y * log
    return 2 * math.pi * tau * a + (tau**2 - 1) * inner + u * (2 * _boundary(u, tau, t) - 4 * nfw_mass(u))


def _parts(u: tf.Tensor, tau: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """t = sqrt(tau^2 + u), y / u with y = (t - tau) / (2 tau), y, and ln(x / (tau + t))."""
    t = tf.sqrt(tau**2 + u)
    y_u = 1 / (2 * tau * (tau + t))
    return t, y_u, u * y_u, _log_ratio(u, tau, t)


def _log_ratio(u: tf.Tensor, tau: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """ln(x / (tau + t)) = -arcsinh(tau / x), exact to the last digit for x >> tau too."""
    x = tf.sqrt(u)
    return -tf.math.log1p((tau + tau**2 / (x + t)) / x)


def _boundary(u: tf.Tensor, tau: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """2 C(u) - pi (t - tau) / u; far out both are pi / x."""
    is_far, root, q = _far(u)
    c = angle_ratio(u)
    near = 2 * c - math.pi / (tau + t)
    far = (2 * c + math.pi * tau - math.pi * (1 + tau**2) / (root + t) - 2 * q) / u
    return tf.where(is_far, far, near)


def _far(u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether x > sqrt(2), and there sqrt(u - 1) and q = sqrt(u - 1) arcsin(1/x): C = (pi/2 - q / root) / root."""
    is_far = u > 2
    u = tf.where(is_far, u, tf.constant(2.0, u.dtype))
    return is_far, tf.sqrt(u - 1), angle_ratio(u / (u - 1))
