"""Functions of the circular profiles, smooth through their removable singularities.

With u = (r / Rs)^2, projecting densities like 1 / (r (1 + r)^2) gives C(u) = arccosh(1/x) / sqrt(1 - u) inside the
scale radius (x = sqrt(u) < 1) and arccos(1/x) / sqrt(u - 1) outside. It is one analytic function, Carlson's R_C(1, u)
= sum_k (1 - u)^k / (2k + 1), and so are its divided differences at u = 1,

    C_m = sum_k (1 - u)^k / (2 (k + m) + 1), C_m = 1 / (2m + 1) + (1 - u) C_{m+1}.

They are evaluated by halving the angle (Carlson's duplication, 1995, Numer. Algor. 10, 13): with p = 1 + sqrt(1 - z)
and z' = z / p^2, C(z) = 2 C(z') / p, and correspondingly for the differences. The sums have positive terms only, so no
digit is lost at u = 1 or far out; only C's logarithm at the centre needs a branch of its own.
"""

import numpy as np
import tensorflow as tf
from numpy.polynomial import chebyshev
from scipy.special import exp1

_INNER = 0.1  # u below which C takes its logarithmic form; above it three halvings bring |z| below 0.051
_TERMS = 13  # 0.051^13 / 27 < 1e-18
_EULER_GAMMA = 0.57721566490153286


def angle_ratio(u: tf.Tensor) -> tf.Tensor:
    """C(u) for u > 0, to a few units of the last digit."""
    is_inner, inner, outer = _split(u, _INNER)
    s = tf.sqrt(1 - inner)
    near = (tf.math.log(1 + s) - 0.5 * tf.math.log(inner)) / s
    *halvings, z = _halve(outer)
    far = _series(z, 0)
    for p in halvings:
        far = 2 * far / p
    return tf.where(is_inner, near, far)


def angle_difference(u: tf.Tensor) -> tf.Tensor:
    """C_1(u) = (C(u) - 1) / (1 - u) for u > 0."""
    is_inner, inner, outer = _split(u, _INNER)
    near = (angle_ratio(inner) - 1) / (1 - inner)
    *halvings, z = _halve(outer)
    far = _series(z, 1)
    for p in halvings:
        far = _difference(p, far)
    return tf.where(is_inner, near, far)


def hernquist_convergence(u: tf.Tensor) -> tf.Tensor:
    """((2 + u) C(u) - 3) / (1 - u)^2 = 3 C_2 - C_1 for u > 0."""
    is_inner, inner, outer = _split(u, _INNER)
    near = ((2 + inner) * angle_ratio(inner) - 3) / (1 - inner) ** 2
    *halvings, last, z = _halve(outer)
    first, second = _series(z, 1), _series(z, 2)
    # From the innermost angle outwards; the last halving takes the combination at once, for far out C_1 and 3 C_2
    # agree in their leading digits.
    for p in halvings:
        first, second = _difference(p, first), _second_difference(p, second)
    far = (1 + 2 * last + 6 * second / last - 2 * last * first) / last**2 / last**2
    return tf.where(is_inner, near, far)


def nfw_mass(u: tf.Tensor) -> tf.Tensor:
    """(ln(x/2) + C(u)) / u, the projected mass of an NFW halo within x over u; without cancellation at the centre."""
    is_inner, inner, outer = _split(u, 0.5)
    c = angle_ratio(u)
    s = tf.sqrt(1 - inner)
    # Inside, C - ln(2/x) = (1 - s) C + ln((1 + s) / 2) exactly, with s = sqrt(1 - u) and 1 - s = u / (1 + s).
    near = (c - log1p_ratio(-inner / (2 * (1 + s))) / 2) / (1 + s)
    far = (0.5 * tf.math.log(outer / 4) + c) / outer
    return tf.where(is_inner, near, far)


def nfw_potential(u: tf.Tensor) -> tf.Tensor:
    """ln^2(x/2) - (1 - u) C(u)^2, that is ln^2(x/2) - arccosh^2(1/x), without cancellation at the centre."""
    is_inner, inner, outer = _split(u, 0.5)
    # A difference of squares, both factors of which are small or large by themselves.
    w = inner / (2 * (1 + tf.sqrt(1 - inner)))
    near = tf.math.log1p(-w) * tf.math.log(w)
    far = (0.5 * tf.math.log(outer / 4)) ** 2 - (1 - outer) * angle_ratio(outer) ** 2
    return tf.where(is_inner, near, far)


def log1p_ratio(y: tf.Tensor) -> tf.Tensor:
    """ln(1 + y) / y for y > -1; its derivative keeps its digits too."""
    is_small = tf.abs(y) < 0.3
    small, large = tf.where(is_small, y, tf.zeros_like(y)), tf.where(is_small, tf.ones_like(y), y)
    # ln(1 + y) = 2 arctanh(y / (2 + y)).
    near = 2 / (2 + small) * _series((small / (2 + small)) ** 2, 0)
    return tf.where(is_small, near, tf.math.log1p(large) / large)


def expm1_ratio(y: tf.Tensor) -> tf.Tensor:
    """(1 - exp(-y)) / y for y >= 0; its derivative keeps its digits too."""
    is_small, small, large = _split(y, 0.5)
    near = tf.ones_like(small)
    for k in range(14, 1, -1):
        near = 1 - small / k * near
    return tf.where(is_small, near, -tf.math.expm1(-large) / large)


def entire_exponential_integral(u: tf.Tensor) -> tf.Tensor:
    """Ein(u) = integral of (1 - exp(-t)) / t from 0 to u = E_1(u) + ln u + gamma, for u >= 0 (to 1e-14)."""
    is_inner, inner, outer = _split(u, 4.0)
    series = tf.zeros_like(inner)
    for k in range(len(_EIN), 0, -1):
        series = (series + _EIN[k - 1]) * inner
    # E_1(u) = exp(-u) / u times a function of 1/u, smooth up to u = infinity.
    far = tf.exp(-outer) / outer * _clenshaw(_E1, 8 / outer - 1) + tf.math.log(outer) + _EULER_GAMMA
    return tf.where(is_inner, series, far)


def _split(u: tf.Tensor, at: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether u lies below `at`, and u made harmless for the formula of either side."""
    is_inner = u < at
    edge = tf.constant(at, u.dtype)
    return is_inner, tf.where(is_inner, u, edge), tf.where(is_inner, edge, u)


def _halve(u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """p = 1 + sqrt(1 - z) of three halvings of the angle, innermost first, and the z that is left."""
    x = tf.sqrt(u)
    p1 = 1 + x
    z = (1 - x) / p1
    p2 = 1 + tf.sqrt(2 * x / p1)
    z /= p2**2
    p3 = 1 + tf.sqrt(1 - z)
    return p3, p2, p1, z / p3**2


def _difference(p: tf.Tensor, halved: tf.Tensor) -> tf.Tensor:
    return (1 + 2 * halved / p) / p**2


def _second_difference(p: tf.Tensor, halved: tf.Tensor) -> tf.Tensor:
    return ((1 + p) ** 2 / 3 + 2 * halved / p) / p**2 / p**2


def _series(z: tf.Tensor, m: int) -> tf.Tensor:
    total = tf.zeros_like(z)
    for k in reversed(range(_TERMS)):
        total = total * z + 1 / (2 * (k + m) + 1)
    return total


def _clenshaw(coefficients: list[float], t: tf.Tensor) -> tf.Tensor:
    last = before = tf.zeros_like(t)
    for c in coefficients[:0:-1]:
        last, before = 2 * t * last - before + c, last
    return t * last - before + coefficients[0]


_EIN = [float((-1) ** (k + 1) / (k * np.prod(np.arange(1.0, k + 1)))) for k in range(1, 31)]  # 4^31 / (31 31!) < 2e-17


def _scaled_e1(t: np.ndarray) -> np.ndarray:
    """u exp(u) E_1(u) at u = 8 / (1 + t), by its asymptotic series where exp overflows."""
    u = 8 / (1 + t)
    k = np.arange(12)
    asymptotic = np.sum(np.cumprod(np.concatenate([np.ones([1, t.size]), -k[1:, None] / u]), axis=0), axis=0)
    near = np.minimum(u, 600.0)
    return np.where(u < 600, near * np.exp(near) * exp1(near), asymptotic)


_E1 = [float(c) for c in chebyshev.chebinterpolate(_scaled_e1, 28)]
