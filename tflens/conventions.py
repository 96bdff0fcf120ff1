"""Where conventions are converted: what other packages call by other numbers, each in one function.

Values are numbers or NumPy arrays of one shape, so that draws of a posterior convert like a point.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def axis_ratio_and_angle(e1: ArrayLike, e2: ArrayLike) -> tuple[Array, Array]:
    """q = minor / major and the angle of the major axis from +x, counter-clockwise, radians, in (-pi/2, pi/2].

    Example:
        >>> q, phi = axis_ratio_and_angle(0.0, 0.2)
        >>> round(float(q), 4), round(float(phi), 4)
        (0.6667, 0.7854)
    """
    e = np.hypot(e1, e2)
    return (1 - e) / (1 + e), np.arctan2(e2, e1) / 2


def ellipticity(q: ArrayLike, phi: ArrayLike) -> tuple[Array, Array]:
    """e1, e2 = (1 - q) / (1 + q) (cos, sin) 2 phi: the inverse of `axis_ratio_and_angle`."""
    e = (1 - np.asarray(q, np.float64)) / (1 + np.asarray(q, np.float64))
    return e * np.cos(2 * np.asarray(phi)), e * np.sin(2 * np.asarray(phi))


def position_angle(phi: ArrayLike) -> Array:
    """COOLEST's angle of an axis: degrees, from +y counter-clockwise, in (-90, 90], of an angle from +x in radians.

    Example:
        >>> [float(position_angle(phi)) for phi in (0.0, np.pi / 2)]
        [90.0, 0.0]
    """
    angle = (np.degrees(phi) - 90) % 180
    return np.where(angle > 90, angle - 180, angle)


def angle_from_x(position_angle: ArrayLike) -> Array:
    """Angle from +x, radians, of COOLEST's position angle: the inverse of `position_angle`, up to half a turn."""
    return np.radians(np.asarray(position_angle, np.float64) + 90)


def strength_and_angle(gamma1: ArrayLike, gamma2: ArrayLike) -> tuple[Array, Array]:
    """Strength of a shear and the angle from +x, radians, of the axis along which it stretches."""
    return np.hypot(gamma1, gamma2), np.arctan2(gamma2, gamma1) / 2


def shear_components(gamma: ArrayLike, phi: ArrayLike) -> tuple[Array, Array]:
    """gamma1, gamma2: the inverse of `strength_and_angle`."""
    return np.asarray(gamma) * np.cos(2 * np.asarray(phi)), np.asarray(gamma) * np.sin(2 * np.asarray(phi))


def amplitude_and_angle(a_cos: ArrayLike, a_sin: ArrayLike, m: int) -> tuple[Array, Array]:
    """lenstronomy's a_m and phi_m of a multipole a_m cos m (phi - phi_m)."""
    return np.hypot(a_cos, a_sin), np.arctan2(a_sin, a_cos) / m


def multipole_components(a_m: ArrayLike, phi_m: ArrayLike, m: int) -> tuple[Array, Array]:
    """a_cos, a_sin: the inverse of `amplitude_and_angle`."""
    return np.asarray(a_m) * np.cos(m * np.asarray(phi_m)), np.asarray(a_m) * np.sin(m * np.asarray(phi_m))


def rounded_sersic(value: ArrayLike, radius: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """Value at, and effective radius of, a Sersic profile where b_n is 1.9992 n - 0.3271: the same profile.

    lenstronomy and COOLEST define Sersic's law by that approximation (Capaccioli 1989), so that half of their light
    lies within R_sersic only about; ours is exact. exp(-b ((R/R_s)^(1/n) - 1)) is one profile for
    R_s' = R_s (b'/b)^n with a value there that is exp(b - b') times ours.

    Example:
        >>> value, radius = rounded_sersic(1.0, 0.5, 4.0)
        >>> round(float(value), 5), round(float(radius), 5)
        (0.99955, 0.50012)
    """
    exact, rounded = _both_b_n(n)
    return np.asarray(value) * np.exp(exact - rounded), np.asarray(radius) * (rounded / exact) ** np.asarray(n)


def exact_sersic(value: ArrayLike, radius: ArrayLike, n: ArrayLike) -> tuple[Array, Array]:
    """Our value and effective radius: the inverse of `rounded_sersic`."""
    exact, rounded = _both_b_n(n)
    return np.asarray(value) * np.exp(rounded - exact), np.asarray(radius) * (exact / rounded) ** np.asarray(n)


def _both_b_n(n: ArrayLike) -> tuple[Array, Array]:
    import tensorflow as tf

    from tflens.sersic import b_n

    n = np.asarray(n, np.float64)
    return b_n(tf.constant(n)).numpy(), 1.9992 * n - 0.3271
