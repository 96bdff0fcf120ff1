"""Total flux of the Sersic family."""

import math

import tensorflow as tf


def sersic_flux(R_sersic: tf.Tensor, n_sersic: tf.Tensor, b_n: tf.Tensor) -> tf.Tensor:
    """Flux of a Sersic profile that is 1 at its effective radius: 2 pi n R^2 e^b b^(-2n) Gamma(2n).

    Graham & Driver 2005 (PASA 22, 118, eq. 2 to infinity). The ellipticity does not enter, for R_sersic is the
    intermediate axis. The softening of the centre, R^2 + (1e-4 arcsec)^2, removes the light within 1e-4 arcsec.

    Args:
        R_sersic: effective radius, arcsec, `[...batch]`.
        n_sersic: Sersic index, `[...batch]`.
        b_n: the constant b_n of that index, `[...batch]`.

    Returns:
        Flux in units of the amplitude times arcsec^2, `[...batch]`.

    Example:
        >>> import tensorflow as tf
        >>> float(sersic_flux(tf.constant(1.0), tf.constant(0.5), tf.math.log(tf.constant(2.0)))) / math.pi
        2.88539...
    """
    log_shape = b_n - 2 * n_sersic * tf.math.log(b_n) + tf.math.lgamma(2 * n_sersic)
    return 2 * math.pi * n_sersic * R_sersic**2 * tf.exp(log_shape)
