"""The angular function of the elliptical power law, F(z) = 2F1(1, t/2; 2 - t/2; z), as a ratio of short polynomials.

Gauss's continued fraction 1 / (1 - k_1 z / (1 - k_2 z / ...)) of F has k_n > 0 for 0 < t < 2, so F is a Stieltjes
function: its convergents have no pole inside |z| < 1, and the error of the n-th falls like rho^n with
rho = (1 - sqrt(1 - |z|)) / (1 + sqrt(1 - |z|)). At |z| = 0.6 that is 0.23 a term, where the power series has 0.6.

The polynomials are written in powers of 1 - z, in which all their coefficients are positive: in powers of z they
cancel next to the cut [1, inf), by a factor 10 at |z| = 0.6 and by all of float32's digits at 0.9.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError


class Convergent(NamedTuple):
    """F = 1 + z `top`(1 - z) / `bottom`(1 - z): real coefficients in ascending order, each of t's shape `[...batch]`.

    `top` has (order + 1) // 2 of them, `bottom` order // 2 + 1.
    """

    top: list[tf.Tensor]
    bottom: list[tf.Tensor]


def order(max_modulus: float, tolerance: float) -> int:
    """Which convergent has a relative error below `tolerance` wherever |z| <= `max_modulus` and 0 < t < 2.

    The error is below 2 rho^n (seen, not proved: the tests hold it against the function itself).

    Args:
        max_modulus: largest |z|, in (0, 1): that of the ellipticity.
        tolerance: bound on the relative error, in (0, 1).

    Returns:
        The order n, at least 2: how many k_n are kept.

    Raises:
        ParameterError: `max_modulus` or `tolerance` does not lie in (0, 1).

    Example:
        >>> order(0.6, 1e-6), order(0.6, 1e-15), order(0.9, 1e-6)
        (10, 24, 23)
    """
    for name, value in (("max_modulus", max_modulus), ("tolerance", tolerance)):
        if not 0 < value < 1:
            raise ParameterError(f"hypergeometric.order: {name} must lie in (0, 1), got {value!r}")
    root = math.sqrt(1 - max_modulus)
    return max(2, math.ceil(math.log(tolerance / 2) / math.log((1 - root) / (1 + root))))


def convergent(t: tf.Tensor, order: int) -> Convergent:
    """The convergent of given order, from its innermost fraction outwards: p/q -> (p - k z q) / p.

    Source: DLMF 15.7.5 for a = 1, b = t/2, c = 2 - t/2.

    Args:
        t: slope of the convergence, 0 < t < 2 (isothermal 1), `[...batch]`; on a grid `[...batch, 1, 1]`.
        order: a positive number, as from `order`.

    Returns:
        Coefficients of t's shape and dtype.

    Example:
        >>> import tensorflow as tf
        >>> t, z = tf.constant([0.5, 1.5]), 0.3
        >>> top, bottom = convergent(t, order(z, 1e-6))
        >>> at = lambda p: sum(c * (1 - z) ** n for n, c in enumerate(p))
        >>> [round(float(f), 4) for f in 1 + z * at(top) / at(bottom)]
        [1.05, 1.2365]
    """
    k, _ = _partials(t, order)
    p, q = [tf.ones_like(t)], [tf.ones_like(t)]
    for n in reversed(range(1, order)):
        p, q = _sum(p, _times(-k[n], q)), p
    return Convergent([k[0] * c for c in q], _sum(p, _times(-k[0], q)))


def convergent_slope(t: tf.Tensor, order: int) -> Convergent:
    """Derivatives by t of the coefficients of `convergent`, for the gradient in the slope.

    Args:
        t: as for `convergent`, `[...batch]`.
        order: as for `convergent`.

    Returns:
        As many derivatives, in the same order, of t's shape and dtype.

    Example:
        >>> import tensorflow as tf
        >>> (k,), _ = convergent(tf.constant(1.0), 1)
        >>> (slope,), _ = convergent_slope(tf.constant(1.0), 1)
        >>> round(float(k), 5), round(float(slope), 5)  # k_1 = t / (4 - t)
        (0.33333, 0.44444)
    """
    k, dk = _partials(t, order)
    p, q = [tf.ones_like(t)], [tf.ones_like(t)]
    dp, dq = [tf.zeros_like(t)], [tf.zeros_like(t)]
    for n in reversed(range(1, order)):
        change = _sum(_times(-dk[n], q), _times(-k[n], dq))
        p, q, dp, dq = _sum(p, _times(-k[n], q)), p, _sum(dp, change), dp
    change = _sum(_times(-dk[0], q), _times(-k[0], dq))
    return Convergent([dk[0] * c + k[0] * dc for c, dc in zip(q, dq, strict=True)], _sum(dp, change))


def _partials(t: tf.Tensor, order: int) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """k_1 ... k_order and their derivatives by t, `[...batch]` each: divided at once, one kernel instead of many."""
    n = np.arange(1, order + 1)
    j = n // 2
    # k_n is a ratio of polynomials in t: k_{2j} = j (j + 1 - t) / ..., k_{2j+1} = (t/2 + j)(j + 1 - t/2) / ...
    even = tf.constant(n % 2 == 0)
    j, below_0 = (tf.constant(v, t.dtype) for v in (j, n + 0.0))
    t = t[..., None]
    above = tf.where(even, j * (j + 1 - t), (t / 2 + j) * (j + 1 - t / 2))
    above_slope = tf.where(even, -j, (1 - t) / 2)
    # c + n - 2 and c + n - 1 with c = 2 - t/2
    below = (below_0 - t / 2) * (below_0 + 1 - t / 2)
    k = above / below
    slope = (above_slope + k * (below_0 + 0.5 - t / 2)) / below
    return tf.unstack(k, axis=-1), tf.unstack(slope, axis=-1)


def _times(factor: tf.Tensor, coefficients: list[tf.Tensor]) -> list[tf.Tensor]:
    """factor z p(1 - z) in powers of 1 - z."""
    scaled = [factor * c for c in coefficients]
    return _sum(scaled, [tf.zeros_like(factor), *(-c for c in scaled)])


def _sum(a: list[tf.Tensor], b: list[tf.Tensor]) -> list[tf.Tensor]:
    """Coefficients of the sum of two polynomials, whose degrees may differ."""
    if len(a) < len(b):
        a, b = b, a
    return [x + y for x, y in zip(a, b, strict=False)] + a[len(b) :]
