"""Isothermal lenses: singular sphere, ellipsoid with a core, and the truncated dPIE."""

from typing import ClassVar

import tensorflow as tf

from tflens.mass.base import MassProfile
from tflens.mass.center import away_from_center
from tflens.mass.circular import CENTER, CircularMass
from tflens.pairs import Pair, polynomial
from tflens.parameters import Parameter, ellipticity, log_normal
from tflens.profile import elliptical, on_pixels

# Below this |e| the arctangent is its series, above it the closed form. There the series' error is 1e-12 / 25 and the
# closed form loses one digit, for it divides by sqrt(e).
_SERIES_BELOW = 0.1
_SERIES_TERMS = 12

_THETA_E = Parameter(("theta_E",), "arcsec", "Einstein radius (intermediate axis)", log_normal(1.2, 0.5))
_ELLIPTICITY = Parameter(("e1", "e2"), "", "ellipticity (1-q)/(1+q) (cos, sin) 2 phi", ellipticity(0.15, 0.6))


class SIS(CircularMass):
    """Singular isothermal sphere of convergence theta_E / (2 r).

    Example:
        >>> import tensorflow as tf
        >>> ax, ay = SIS().deflection(
        ...     tf.constant([[3.0]]), tf.constant([[4.0]]), theta_E=1.5, center_x=0.0, center_y=0.0
        ... )
        >>> round(float(ax[0, 0]), 5), round(float(ay[0, 0]), 5)
        (0.9, 1.2)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("theta_E",), "arcsec", "Einstein radius", log_normal(1.2, 0.5)),
        *CENTER,
    )

    def radial_potential(self, r2, *, theta_E):
        return theta_E * tf.sqrt(r2)

    def radial_mean_convergence(self, r2, *, theta_E):
        return theta_E / tf.sqrt(r2)

    def radial_convergence(self, r2, *, theta_E):
        return theta_E / (2 * tf.sqrt(r2))


class NIE(MassProfile):
    """Non-singular isothermal ellipsoid of convergence theta_E / (2 sqrt(s_scale^2 + R^2)), elliptical in the mass.

    R is the intermediate-axis elliptical radius. The closed form (Kormann, Schneider & Bartelmann 1994, A&A 284, 285;
    Keeton & Kochanek 1998, ApJ 495, 157) is written without axis ratio or angle, as one arctangent of a complex number
    that stays inside the unit disc: smooth through the round lens and down to s_scale = 0, the singular ellipsoid.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[3.0]]), tf.constant([[0.0]])
        >>> kappa = NIE().convergence(x, y, theta_E=2.0, e1=0.0, e2=0.0, s_scale=4.0, center_x=0.0, center_y=0.0)
        >>> round(float(kappa[0, 0]), 5)
        0.2
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        _THETA_E,
        _ELLIPTICITY,
        Parameter(("s_scale",), "arcsec", "core radius (intermediate axis)", log_normal(0.1, 1.0)),
        *CENTER,
    )

    def deflection(self, x, y, *, theta_E, e1, e2, s_scale, center_x, center_y):
        return deflection(x, y, theta_E, e1, e2, s_scale, center_x, center_y)

    def potential(self, x, y, *, theta_E, e1, e2, s_scale, center_x, center_y):
        return potential(x, y, theta_E, e1, e2, s_scale, center_x, center_y)

    def convergence(self, x, y, *, theta_E, e1, e2, s_scale, center_x, center_y):
        return convergence(x, y, theta_E, e1, e2, s_scale, center_x, center_y)


class DPIE(MassProfile):
    """Dual pseudo-isothermal ellipsoid (PIEMD, pseudo-Jaffe), elliptical in the mass: a cored isothermal lens cut off.

    Convergence theta_E / 2 [1 / sqrt(Ra^2 + R^2) - 1 / sqrt(Rs^2 + R^2)] with core radius Ra and truncation radius Rs:
    the difference of two `NIE`. R is the intermediate-axis elliptical radius, theta_E the Einstein radius that the lens
    would have without core and truncation. In the notation of Eliasdottir et al. 2007 (arXiv:0710.5636, appendix A)
    the central density is Sigma_0 / Sigma_crit = theta_E (Rs - Ra) / (2 Ra Rs). With Rs < Ra the mass is negative.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[1e3]]), tf.constant([[0.0]])
        >>> lens = {"theta_E": 1.5, "e1": 0.0, "e2": 0.0, "Ra": 0.1, "Rs": 5.0, "center_x": 0.0, "center_y": 0.0}
        >>> ax, _ = DPIE().deflection(x, y, **lens)  # total mass pi theta_E (Rs - Ra): a point mass from afar
        >>> round(float(ax[0, 0]) * 1e3 / (1.5 * 4.9), 2)
        1.0
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("theta_E",), "arcsec", "Einstein radius without core and truncation", log_normal(1.2, 0.5)),
        _ELLIPTICITY,
        Parameter(("Ra",), "arcsec", "core radius (intermediate axis)", log_normal(0.05, 0.7)),
        Parameter(("Rs",), "arcsec", "truncation radius (intermediate axis)", log_normal(5.0, 0.7)),
        *CENTER,
    )

    def deflection(self, x, y, *, theta_E, e1, e2, Ra, Rs, center_x, center_y):
        core = deflection(x, y, theta_E, e1, e2, Ra, center_x, center_y)
        cut = deflection(x, y, theta_E, e1, e2, Rs, center_x, center_y)
        return core[0] - cut[0], core[1] - cut[1]

    def potential(self, x, y, *, theta_E, e1, e2, Ra, Rs, center_x, center_y):
        core = potential(x, y, theta_E, e1, e2, Ra, center_x, center_y)
        return core - potential(x, y, theta_E, e1, e2, Rs, center_x, center_y)

    def convergence(self, x, y, *, theta_E, e1, e2, Ra, Rs, center_x, center_y):
        core = convergence(x, y, theta_E, e1, e2, Ra, center_x, center_y)
        return core - convergence(x, y, theta_E, e1, e2, Rs, center_x, center_y)


def deflection(x, y, theta_E, e1, e2, s_scale, center_x, center_y) -> tuple[tf.Tensor, tf.Tensor]:
    """Deflection angle of the cored isothermal ellipsoid, arcsec.

    With w = x + iy, e = e1 + i e2, v = w - e conj(w), c = s sqrt(1 - |e|^2), P = sqrt(c^2 + |v|^2), z = v / (P + c):
    alpha = theta_E sqrt(1 - |e|^2) arctan(sqrt(conj e) z) / sqrt(conj e), even in the root, with |z| <= 1.
    """
    v, size, core, one_minus_e2, is_center = _cored(x, y, e1, e2, s_scale, center_x, center_y)
    theta_E, e1, e2 = on_pixels(theta_E, e1, e2, like=x)
    alpha = _arctan_over_root(v * (1 / (size + core)), Pair(e1, -e2)) * (theta_E * tf.sqrt(one_minus_e2))
    return tuple(tf.where(is_center, tf.zeros_like(part), part) for part in alpha)


def potential(x, y, theta_E, e1, e2, s_scale, center_x, center_y) -> tf.Tensor:
    """Lensing potential, arcsec^2.

    Re(conj(w) alpha) - theta_E s log(|(P + c)^2 + conj(e) v^2| / (P + c) / (1 - |e|^2)), the second term being what
    Euler's theorem leaves, for the potential is homogeneous in position and core together. The zero point is that of
    Keeton & Kochanek 1998 (and lenstronomy).
    """
    v, size, core, one_minus_e2, _ = _cored(x, y, e1, e2, s_scale, center_x, center_y)
    alpha_x, alpha_y = deflection(x, y, theta_E, e1, e2, s_scale, center_x, center_y)
    theta_E, e1, e2, s_scale, center_x, center_y = on_pixels(theta_E, e1, e2, s_scale, center_x, center_y, like=x)
    outer = size + core
    modulus_squared = (Pair(e1, -e2) * (v * v) + outer**2).squared
    logarithm = tf.math.log(modulus_squared) / 2 - tf.math.log(outer) - tf.math.log(one_minus_e2)
    return (x - center_x) * alpha_x + (y - center_y) * alpha_y - theta_E * s_scale * logarithm


def convergence(x, y, theta_E, e1, e2, s_scale, center_x, center_y) -> tf.Tensor:
    """Convergence theta_E / (2 sqrt(s_scale^2 + R^2)); at the centre of a lens without a core that 1e-6 arcsec away."""
    _, size, _, one_minus_e2, _ = _cored(x, y, e1, e2, s_scale, center_x, center_y)
    (theta_E,) = on_pixels(theta_E, like=x)
    return theta_E * tf.sqrt(one_minus_e2) / (2 * size)


def _cored(x, y, e1, e2, s_scale, center_x, center_y) -> tuple[Pair, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """v, P = sqrt((1 - |e|^2) s^2 + |v|^2), c = s sqrt(1 - |e|^2), 1 - |e|^2, and where the guard acted."""
    e1, e2, s_scale, center_x, center_y = on_pixels(e1, e2, s_scale, center_x, center_y, like=x)
    # With a core nothing is singular at the centre, and its Jacobian must not be lost to a guard.
    x, y, is_center = away_from_center(x - center_x, y - center_y, s_scale**2)
    v_real, v_imag, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    size, core = tf.sqrt(one_minus_e2 * s_scale**2 + v2), s_scale * tf.sqrt(one_minus_e2)
    return Pair(v_real, v_imag), size, core, one_minus_e2, is_center


def _arctan_over_root(z: Pair, g: Pair) -> Pair:
    """arctan(sqrt(g) z) / sqrt(g) = z - g z^3 / 3 + g^2 z^5 / 5 - ..., for |z| <= 1 and |g| < 1.

    Even in sqrt(g), so smooth at g = 0, where the root is not: there the series, elsewhere the closed form.
    """
    is_small = g.squared < _SERIES_BELOW**2
    zero = tf.zeros_like(g.re)
    # Either branch sees only what it can digest, so that neither sends infinities into the other's gradient.
    series = _arctan_series(z, Pair(tf.where(is_small, g.re, zero), tf.where(is_small, g.im, zero)))
    closed = _arctan_closed(z, Pair(tf.where(is_small, zero + _SERIES_BELOW, g.re), tf.where(is_small, zero, g.im)))
    return Pair(tf.where(is_small, series.re, closed.re), tf.where(is_small, series.im, closed.im))


def _arctan_series(z: Pair, g: Pair) -> Pair:
    s = -(g * (z * z))
    return z * polynomial([1 / (2 * n + 1) for n in range(_SERIES_TERMS)], s, s.squared)


def _arctan_closed(z: Pair, g: Pair) -> Pair:
    root = _square_root(g)
    argument = root * z
    # Inside the unit disc the real part needs no quadrant.
    real = tf.math.atan(2 * argument.re / (1 - argument.squared)) / 2
    one_plus_squared = 1 + argument.squared
    imag = tf.math.log((one_plus_squared + 2 * argument.im) / (one_plus_squared - 2 * argument.im)) / 4
    return Pair(real, imag) * (root.conj * (1 / root.squared))


def _square_root(g: Pair) -> Pair:
    # Divide by the larger of the two parts, so that nothing cancels and neither part's gradient is infinite.
    is_right = g.re >= 0
    # Not tf.abs, whose gradient at zero is neither side's.
    larger = tf.sqrt((tf.sqrt(g.squared) + tf.where(is_right, g.re, -g.re)) / 2)
    smaller = g.im / (2 * larger)
    return Pair(tf.where(is_right, larger, smaller), tf.where(is_right, smaller, larger))
