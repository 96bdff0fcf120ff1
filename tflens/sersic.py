"""Sersic's law, which light and stellar mass share: its shape, its constant b_n and its total."""

import math

import tensorflow as tf

# Minimax fit of (b_n - 2n + 1/3) n as a polynomial in 1/n for n >= 0.36; the first is close to 4/405.
_B_N = (9.877087573e-3, 1.794810103e-3, 1.107487034e-4, -1.244069951e-4, 2.385111317e-5, -1.743820392e-6)


def log_sersic(log_ratio: tf.Tensor, n_sersic: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Logarithm of Sersic's law, -b ((R / R_sersic)^(1/n) - 1): 0 at the effective radius.

    Args:
        log_ratio: ln(R / R_sersic).
        n_sersic: Sersic index, `[...batch, 1, 1]`.
        b: `b_n` of that index, apart so that it can be computed before the index is spread over pixels.

    Example:
        >>> import tensorflow as tf
        >>> n = tf.constant(1.0)
        >>> round(float(log_sersic(tf.math.log(2.0), n, b_n(n))), 4)  # -b_1
        -1.6783
    """
    # Far outside a compact low-n profile the power overflows float32; exp(-exp(10)) is 0 all the same.
    return -b * (tf.exp(tf.minimum(log_ratio / n_sersic, 10.0)) - 1)


def b_n(n: tf.Tensor) -> tf.Tensor:
    """The constant that makes R_sersic enclose half of the total: gamma(2n, b_n) = Gamma(2n) / 2.

    2n - 1/3 + 4/(405 n) + ... as in Ciotti & Bertin 1999 (A&A 352, 447, eq. 18), but with a polynomial in 1/n fitted
    to the inverse incomplete gamma function: their five terms are wrong by 4e-4 at n = 0.5 and 2e-5 at n = 1. The
    relative error is below 2e-8 for n >= 0.36.

    Args:
        n: Sersic index, of any shape, which is the result's.

    Example:
        >>> import tensorflow as tf
        >>> round(float(b_n(tf.constant(4.0))), 4)
        7.6692
    """
    inverse = 1 / n
    correction = tf.zeros_like(n)
    for c in reversed(_B_N):
        correction = (correction + c) * inverse
    return 2 * n - 1 / 3 + correction


def sersic_flux(R_sersic: tf.Tensor, n_sersic: tf.Tensor) -> tf.Tensor:
    """Integral over the plane of a Sersic profile that is 1 at its effective radius: 2 pi n R^2 e^b b^(-2n) Gamma(2n).

    Graham & Driver 2005 (PASA 22, 118, eq. 2 to infinity). The ellipticity does not enter, for R_sersic is the
    intermediate axis.

    Args:
        R_sersic: effective radius, arcsec, `[...batch]`.
        n_sersic: Sersic index, `[...batch]`.

    Returns:
        Flux in units of the amplitude times arcsec^2, `[...batch]`.

    Example:
        >>> import tensorflow as tf
        >>> gaussian = sersic_flux(tf.constant(1.0), tf.constant(0.5))
        >>> round(float(gaussian) * math.log(2) / math.pi, 5)
        2.0
    """
    b = b_n(n_sersic)
    log_shape = b - 2 * n_sersic * tf.math.log(b) + tf.math.lgamma(2 * n_sersic)
    return 2 * math.pi * n_sersic * R_sersic**2 * tf.exp(log_shape)
