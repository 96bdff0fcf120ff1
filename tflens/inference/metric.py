"""Coordinates in which a posterior is nearly a unit Gaussian, from curvatures and from what chains have seen of it.

All in float64, and in TensorFlow, so that the host can ask for them as well as a program that contains a whole fit.
"""

from typing import NamedTuple

import tensorflow as tf


class Metric(NamedTuple):
    """Coordinates w, u = mean + whitening w, and how wide the posterior is in them.

    Attributes:
        whitening: lower triangular, `[dim, dim]`.
        narrowest, widest: standard deviations in w.
    """

    whitening: tf.Tensor
    narrowest: tf.Tensor
    widest: tf.Tensor


def metric_of(draws: tf.Tensor, curvatures: tf.Tensor, towards_covariance: float | tf.Tensor) -> Metric:
    """The metric from draws `[n, dim]`, dependent ones, and curvatures `[m, dim, dim]` at some of them.

    Args:
        draws, curvatures: float64.
        towards_covariance: how far the metric goes from the mean curvature (0) to the inverse of the draws' covariance
            (1), which is drawn to the inverse of the mean curvature where they are few.
    """
    curvature = tf.reduce_mean(curvatures, 0)
    covariance = _shrunk_covariance(draws, curvature)
    metric = _between(curvature, tf.linalg.inv(covariance), towards_covariance)
    whitener = whitening(metric)
    stiffness = tf.reduce_mean(_largest(curvatures, whitener))
    root = tf.linalg.inv(whitener)
    widest = tf.linalg.eigvalsh(_symmetric(root @ covariance @ tf.linalg.matrix_transpose(root)))[-1]
    return Metric(whitener, tf.math.rsqrt(stiffness), tf.sqrt(widest))


def whitening(metric: tf.Tensor) -> tf.Tensor:
    """The lower Cholesky factor of the inverse of a metric `[dim, dim]`."""
    return tf.linalg.cholesky(tf.linalg.inv(tf.cast(metric, tf.float64)))


def _shrunk_covariance(draws: tf.Tensor, curvature: tf.Tensor) -> tf.Tensor:
    """Covariance of draws, drawn to the inverse of a curvature (Ledoit & Wolf 2004, J. Multivar. Anal. 88, 365)."""
    count = tf.cast(tf.shape(draws)[0], draws.dtype)
    centered = draws - tf.reduce_mean(draws, 0)
    covariance = tf.matmul(centered, centered, transpose_a=True) / (count - 1)
    independent, beforehand = count / 3, draws.shape[-1] / 2
    return (independent * covariance + beforehand * tf.linalg.inv(curvature)) / (independent + beforehand)


def _between(first: tf.Tensor, last: tf.Tensor, fraction: float | tf.Tensor) -> tf.Tensor:
    """The geodesic from one positive definite matrix to another, affine invariant (Bhatia 2007, eq. 6.11)."""
    root = tf.linalg.cholesky(first)
    inverse = tf.linalg.inv(root)
    values, vectors = tf.linalg.eigh(_symmetric(inverse @ last @ tf.linalg.matrix_transpose(inverse)))
    spread = root @ vectors
    return tf.matmul(spread * values ** tf.cast(fraction, values.dtype), spread, transpose_b=True)


def _largest(matrices: tf.Tensor, whitener: tf.Tensor) -> tf.Tensor:
    """The largest eigenvalue of each of `[n, dim, dim]` in coordinates w."""
    return tf.linalg.eigvalsh(_symmetric(tf.linalg.matrix_transpose(whitener) @ matrices @ whitener))[..., -1]


def _symmetric(matrix: tf.Tensor) -> tf.Tensor:
    # Products are symmetric to rounding only, which eigenvalues of a symmetric matrix do not forgive.
    return 0.5 * (matrix + tf.linalg.matrix_transpose(matrix))
