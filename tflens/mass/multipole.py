"""Multipoles of an isothermal lens: angular structure beyond the ellipse, around circles or ellipses."""

from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile
from tflens.mass.center import away_from_center
from tflens.mass.circular import CENTER
from tflens.pairs import Pair, polynomial
from tflens.parameters import Parameter, ellipticity, normal
from tflens.profile import elliptical, on_pixels


class Multipole(MassProfile):
    """Circular multipole of order m: convergence (a_cos cos m phi + a_sin sin m phi) / (2 r).

    Xu et al. 2015 (MNRAS 447, 3189, eq. B12), with amplitude in components, which unlike an angle are smooth at zero:
    a_m = sqrt(a_cos^2 + a_sin^2), phi_m = atan2(a_sin, a_cos) / m. An isothermal lens of Einstein radius theta_E gets
    isodensity contours r (1 + a_m / theta_E cos m (phi - phi_m)). For m = 1 the potential grows like r log r.

    Args:
        m: order, 1 or larger; 1 (lopsided), 3 and 4 (disky or boxy) are the usual ones.
        r_E: for m = 1, radius (arcsec) at which the logarithm vanishes. Another value adds a uniform deflection, which
            only moves the source.

    Raises:
        ParameterError: `m` is not a positive integer, or `r_E` is not positive.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[0.0]]), tf.constant([[2.0]])
        >>> kappa = Multipole(m=4).convergence(x, y, a_cos=0.04, a_sin=0.0, center_x=0.0, center_y=0.0)
        >>> round(float(kappa[0, 0]), 5)
        0.01
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("a_cos",), "arcsec", "amplitude of cos m phi", normal(0.0, 0.02)),
        Parameter(("a_sin",), "arcsec", "amplitude of sin m phi", normal(0.0, 0.02)),
        *CENTER,
    )

    def __init__(self, m: int = 4, r_E: float = 1.0) -> None:
        self.m, self.r_E = _order(type(self).__name__, m), _reference_radius(type(self).__name__, r_E)

    def get_config(self) -> dict[str, Any]:
        return {"m": self.m, "r_E": self.r_E}

    # In a round lens only the first term of the series is not zero.
    def deflection(self, x, y, *, a_cos, a_sin, center_x, center_y):
        return deflection(x, y, a_cos, a_sin, 0.0, 0.0, center_x, center_y, m=self.m, r_E=self.r_E, terms=1)

    def potential(self, x, y, *, a_cos, a_sin, center_x, center_y):
        return potential(x, y, a_cos, a_sin, 0.0, 0.0, center_x, center_y, m=self.m, r_E=self.r_E, terms=1)

    def convergence(self, x, y, *, a_cos, a_sin, center_x, center_y):
        return convergence(x, y, a_cos, a_sin, 0.0, 0.0, center_x, center_y, m=self.m)


class EllipticalMultipole(MassProfile):
    """Multipole of order m around the ellipses of a lens: convergence (a_cos cos m phi_v + a_sin sin m phi_v) / (2 R).

    R is the intermediate-axis elliptical radius and phi_v the argument of v = w - e conj(w): position angle of the
    major axis plus the eccentric angle from there, yet smooth through the round lens, where it is the polar angle.
    So are the isodensity contours of an isothermal ellipsoid deformed alike at every axis ratio (Paugnat & Gilman 2025,
    "Elliptical multipoles for gravitational lenses"). Amplitudes as in `Multipole`; e1, e2 and the centre are
    usually tied to those of the lens.

    The deflection is a series in e, whose number of terms follows from `max_ellipticity`. For odd m the convergence has
    a dipole and the potential grows like r log r.

    Args:
        m: order, 1 or larger.
        r_E: for odd m, radius (arcsec) at which the logarithm vanishes. Another value adds a uniform deflection, which
            only moves the source; lenstronomy's differs by such a one.
        max_ellipticity: largest |e| = (1 - q) / (1 + q) at which the truncated series keeps its accuracy.
        tolerance: bound on the truncation error of the deflection at that ellipticity, as a fraction of the amplitude.

    Raises:
        ParameterError: a setting is outside its range; the message names it.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[0.0]]), tf.constant([[2.0]])
        >>> shape = {"e1": 0.2, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> kappa = EllipticalMultipole(m=4).convergence(x, y, a_cos=0.04, a_sin=0.0, **shape)
        >>> round(float(kappa[0, 0]), 5)
        0.00816
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        *Multipole.parameters[:2],
        Parameter(("e1", "e2"), "", "ellipticity (1-q)/(1+q) (cos, sin) 2 phi", ellipticity(0.15, 0.6)),
        *CENTER,
    )

    def __init__(self, m: int = 4, r_E: float = 1.0, max_ellipticity: float = 0.6, tolerance: float = 1e-6) -> None:
        self.m, self.r_E = _order(type(self).__name__, m), _reference_radius(type(self).__name__, r_E)
        for name, value in (("max_ellipticity", max_ellipticity), ("tolerance", tolerance)):
            if not 0 < value < 1:
                raise ParameterError(f"EllipticalMultipole.{name} must lie in (0, 1), got {value!r}")
        self.max_ellipticity, self.tolerance = max_ellipticity, tolerance
        # No coefficient exceeds 1 in size, so the tail after N terms is below |e|^N / (1 - |e|).
        self.terms = int(np.ceil(np.log(tolerance * (1 - max_ellipticity)) / np.log(max_ellipticity)))

    def get_config(self) -> dict[str, Any]:
        return {
            "m": self.m,
            "r_E": self.r_E,
            "max_ellipticity": self.max_ellipticity,
            "tolerance": self.tolerance,
        }

    def deflection(self, x, y, *, a_cos, a_sin, e1, e2, center_x, center_y):
        settings = {"m": self.m, "r_E": self.r_E, "terms": self.terms}
        return deflection(x, y, a_cos, a_sin, e1, e2, center_x, center_y, **settings)

    def potential(self, x, y, *, a_cos, a_sin, e1, e2, center_x, center_y):
        settings = {"m": self.m, "r_E": self.r_E, "terms": self.terms}
        return potential(x, y, a_cos, a_sin, e1, e2, center_x, center_y, **settings)

    def convergence(self, x, y, *, a_cos, a_sin, e1, e2, center_x, center_y):
        return convergence(x, y, a_cos, a_sin, e1, e2, center_x, center_y, m=self.m)


def deflection(
    x, y, a_cos, a_sin, e1, e2, center_x, center_y, *, m: int, r_E: float, terms: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Deflection angle, arcsec; at the centre its value 1e-6 arcsec away.

    With w = x + iy, v = w - e conj(w), p = v / |v|, s = -conj(e) p^2 and a = a_cos + i a_sin, integrating the
    convergence Re(conj(a) p^m) / (2 R) over conj(w) term by term gives
    alpha = sqrt(1 - |e|^2) / 2 [conj(a) p^(m+1) sum_n s^n / (m+1+2n) - a p^(1-m) sum_n s^n / (m-1-2n)].
    For odd m the term n = (m-1)/2 of the second sum and those after it are a logarithm, joined here to that of r.
    """
    a_cos, a_sin, e1, e2, center_x, center_y = on_pixels(a_cos, a_sin, e1, e2, center_x, center_y, like=x)
    x, y, _ = away_from_center(x - center_x, y - center_y)
    a, e, w = Pair(a_cos, a_sin), Pair(e1, e2), Pair(x, y)
    p, v, v2, one_minus_e2 = _direction(x, y, e1, e2)
    s = -(e.conj * (p * p))
    s_squared = s.squared
    terms_before_logarithm = (m - 1) // 2 if m % 2 else terms
    outer = polynomial([1 / (m + 1 + 2 * n) for n in range(terms)], s, s_squared)
    alpha = a.conj * (_power(p, m + 1) * outer)
    if terms_before_logarithm:
        inner = polynomial([1 / (m - 1 - 2 * n) for n in range(terms_before_logarithm)], s, s_squared)
        alpha = alpha - a * (_power(p, m - 1).conj * inner)
    if m % 2:
        # v / w keeps to the right half plane, so its argument needs no quadrant.
        turned = v * w.conj
        log_ratio = Pair(tf.math.log(v2 / w.squared) / 4, tf.math.atan(turned.im / turned.re) / 2)
        alpha = alpha + _dipole(a, e, m) * (log_ratio + (0.5 + tf.math.log(w.squared / r_E**2) / 2))
    return tuple(alpha * (tf.sqrt(one_minus_e2) / 2))


def potential(x, y, a_cos, a_sin, e1, e2, center_x, center_y, *, m: int, r_E: float, terms: int) -> tf.Tensor:
    """Lensing potential, arcsec^2, by Euler's theorem: homogeneous of degree 1, but for the logarithm of odd m."""
    alpha_x, alpha_y = deflection(x, y, a_cos, a_sin, e1, e2, center_x, center_y, m=m, r_E=r_E, terms=terms)
    a_cos, a_sin, e1, e2, center_x, center_y = on_pixels(a_cos, a_sin, e1, e2, center_x, center_y, like=x)
    x, y = x - center_x, y - center_y
    psi = x * alpha_x + y * alpha_y
    if m % 2:
        dipole = _dipole(Pair(a_cos, a_sin), Pair(e1, e2), m)
        psi -= tf.sqrt(1 - (e1**2 + e2**2)) / 2 * (dipole.re * x + dipole.im * y)
    return psi


def convergence(x, y, a_cos, a_sin, e1, e2, center_x, center_y, *, m: int) -> tf.Tensor:
    """Convergence Re(conj(a) p^m) / (2 R); at the centre its value 1e-6 arcsec away."""
    a_cos, a_sin, e1, e2, center_x, center_y = on_pixels(a_cos, a_sin, e1, e2, center_x, center_y, like=x)
    x, y, _ = away_from_center(x - center_x, y - center_y)
    p, _, v2, one_minus_e2 = _direction(x, y, e1, e2)
    return tf.sqrt(one_minus_e2 / v2) / 2 * (Pair(a_cos, -a_sin) * _power(p, m)).re


def _direction(x: tf.Tensor, y: tf.Tensor, e1: tf.Tensor, e2: tf.Tensor) -> tuple[Pair, Pair, tf.Tensor, tf.Tensor]:
    """p = v / |v|, v, |v|^2 and 1 - |e|^2."""
    v_real, v_imag, v2, one_minus_e2 = elliptical(x, y, e1, e2)
    v = Pair(v_real, v_imag)
    return v * (1 / tf.sqrt(v2)), v, v2, one_minus_e2


def _dipole(a: Pair, e: Pair, m: int) -> Pair:
    # The dipole of 2 r kappa / sqrt(1 - |e|^2) for odd m.
    return a * _power(-e.conj, (m - 1) // 2)


def _power(z: Pair, n: int) -> Pair:
    result = Pair(1.0, 0.0)
    for _ in range(n):
        result = result * z
    return result


def _order(name: str, m: int) -> int:
    if isinstance(m, bool) or int(m) != m or m < 1:
        raise ParameterError(f"{name}.m, the order of the multipole, must be an integer of at least 1, got {m!r}")
    return int(m)


def _reference_radius(name: str, r_E: float) -> float:
    if not 0 < r_E < np.inf:
        raise ParameterError(f"{name}.r_E must be positive and finite, got {r_E!r}")
    return float(r_E)
