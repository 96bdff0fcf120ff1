"""Linear amplitudes in closed form: solved for, and marginalised with their prior.

An image is linear in the amplitudes of its light components, so for given shapes their posterior is Gaussian and
needs no sampling. Amplitudes of light cannot be negative: each has a half-normal prior whose width is stated in
signal-to-noise of the component (the norm of its whitened image), which makes it independent of units and of the
component's shape.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy.stats import truncnorm

from tflens._tfp import tfd
from tflens.errors import ParameterError
from tflens.small_matrices import CholeskyFactor

SMALLEST_PRIOR_SCALE = 10.0
"""Least width of an amplitude's prior, in signal-to-noise of its component: that of an image with hardly a signal."""


class LinearSolution(NamedTuple):
    """Posterior of the amplitudes, and what is left when they are integrated out.

    Attributes:
        mean: conditional mean of the amplitudes, `[...batch, components]` (before the positivity is imposed).
        covariance: their conditional covariance, `[...batch, components, components]`.
        residual: whitened residual at the mean, `[...batch, pixels]`.
        log_likelihood: log marginal likelihood `[...batch]`, up to the constant of the noise's normalisation.
    """

    mean: tf.Tensor
    covariance: tf.Tensor
    residual: tf.Tensor
    log_likelihood: tf.Tensor


def marginalize(
    design: tf.Tensor, data: tf.Tensor, prior_scale: float | tf.Tensor, positive: tuple[bool, ...]
) -> LinearSolution:
    """Integrates the amplitudes a of data = a . design + N(0, 1) noise.

    Args:
        design: whitened images of unit amplitude, `[...batch, components, pixels]`.
        data: whitened data, `[pixels]`, or `[...batch, pixels]` for data of their own in every lane.
        prior_scale: prior standard deviation of a component's signal-to-noise |a| ||design||, a positive number, or
            `[...batch]` of them.
        positive: which components are constrained to a >= 0. The probability of the positive orthant is approximated
            by the product of its marginals: exact if at most one component is constrained, or if the constrained ones
            do not overlap.

    Returns:
        The solution; the small normal matrix is summed and inverted in float64.

    Raises:
        ParameterError: `positive` has another length than there are components, or the data another length than
            the components.

    Example:
        >>> import tensorflow as tf
        >>> solution = marginalize(tf.constant([[1.0, 1.0, 0.0]]), tf.constant([2.0, 2.0, 0.0]), 1e3, (True,))
        >>> round(float(solution.mean[0]), 4)
        2.0
    """
    dtype = design.dtype
    components, pixels = design.shape[-2:]
    if len(positive) != components:
        raise ParameterError(f"marginalize: `positive` has {len(positive)} entries for {components} components")
    if data.shape[-1] != pixels:
        raise ParameterError(f"marginalize: components have {pixels} pixels, the data {data.shape[-1]}")
    gram, projection = _normal_equations(design, data)
    scale = tf.cast(tf.convert_to_tensor(prior_scale, dtype_hint=tf.float64), tf.float64)
    # A component without light in the used pixels: any norm will do, but a tiny one would blow up gradients.
    square = tf.linalg.diag_part(gram)
    norm = tf.sqrt(tf.where(square > np.finfo(dtype.as_numpy_dtype).tiny, square, 1))
    identity = tf.eye(components, dtype=tf.float64)
    precision = gram / (norm[..., :, None] * norm[..., None, :]) + identity / scale[..., None, None] ** 2
    projection = projection / norm
    factor = CholeskyFactor(precision)
    mean, covariance = factor.solve(projection), factor.inverse()
    chi2 = tf.reduce_sum(tf.cast(data, tf.float64) ** 2, -1) - tf.reduce_sum(projection * mean, -1)
    log_det = factor.log_det() + 2 * components * tf.math.log(scale)
    log_likelihood = -0.5 * (chi2 + log_det)
    indices = [i for i, is_positive in enumerate(positive) if is_positive]
    if indices:
        ratio = tf.gather(mean / tf.sqrt(tf.linalg.diag_part(covariance)), indices, axis=-1)
        log_likelihood += tf.reduce_sum(_log_cdf(ratio) + np.log(2), -1)
    mean = mean / norm
    return LinearSolution(
        mean=tf.cast(mean, dtype),
        covariance=tf.cast(covariance / (norm[..., :, None] * norm[..., None, :]), dtype),
        residual=data - tf.linalg.matvec(design, tf.cast(mean, dtype), transpose_a=True),
        log_likelihood=tf.cast(log_likelihood, dtype),
    )


def _normal_equations(design: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """design . design^T `[...batch, components, components]` and design . data, in float64; one set of data for all
    lanes, or one for each.

    Two nearly equal Sersic profiles make the matrix nearly singular, and the rounding of a float32 sum would be
    larger than the prior that keeps it positive definite. One sum for each pair is faster under XLA than a product
    of matrices in float64, whose operands would have to be written out.
    """
    rows = [tf.cast(row, tf.float64) for row in tf.unstack(design, axis=-2)]
    data = tf.cast(data, tf.float64)
    n = len(rows)
    sums = {(i, j): tf.reduce_sum(rows[i] * rows[j], -1) for i in range(n) for j in range(i, n)}
    gram = [tf.stack([sums[min(i, j), max(i, j)] for j in range(n)], -1) for i in range(n)]
    return tf.stack(gram, -2), tf.stack([tf.reduce_sum(row * data, -1) for row in rows], -1)


def positivity_residual(solution: LinearSolution, positive: tuple[bool, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Residuals whose squares are -2 log of the positive-orthant probability, for least-squares solvers.

    Returns:
        rho of shape `[...batch, components]` (0 for components that may be negative) and d rho / d mean.
    """
    sigma = tf.sqrt(tf.linalg.diag_part(solution.covariance))
    ratio = tf.cast(solution.mean / sigma, tf.float64)
    log_cdf = _log_cdf(ratio)
    # Beyond 5 sigma the probability is 1 to rounding; there the root has no usable slope.
    active = tf.logical_and(tf.constant(positive), ratio < 5)
    rho = tf.sqrt(tf.where(active, -2 * log_cdf, 1.0))
    slope = -tf.exp(_standard_normal().log_prob(ratio) - log_cdf) / rho / tf.cast(sigma, tf.float64)
    zero = tf.zeros_like(rho)
    dtype = solution.mean.dtype
    return tf.cast(tf.where(active, rho, zero), dtype), tf.cast(tf.where(active, slope, zero), dtype)


def sample_amplitudes(
    mean: np.ndarray, covariance: np.ndarray, positive: tuple[bool, ...], rng: np.random.Generator, sweeps: int = 20
) -> np.ndarray:
    """Draws one set of amplitudes for each conditional posterior, a normal truncated to the positive orthant.

    Gibbs sweeps in whitened coordinates: where the truncation does not bite, every sweep is an independent draw,
    however much the components overlap (in the amplitudes themselves two equal components would hardly move).

    Args:
        mean: `[draws, components]`.
        covariance: `[draws, components, components]`.
        positive: which components are constrained to be >= 0.
        rng: source of randomness.
        sweeps: Gibbs sweeps, started at the (clipped) mean.

    Returns:
        Amplitudes `[draws, components]`, float64.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> draw = sample_amplitudes(np.array([[-1.0, 2.0]]), np.eye(2)[None], (True, False), rng)
        >>> draw.shape, bool(draw[0, 0] >= 0)
        ((1, 2), True)
    """
    covariance = _positive_definite(np.asarray(covariance))
    mean = np.asarray(mean, np.float64)
    positive = np.asarray(positive)
    draw = np.where(positive & (mean < 0), 0.0, mean)
    for sweep in range(sweeps):
        # Each sweep whitens in another order, since a truncation ties the whitened coordinates of one order together.
        order = np.roll(np.arange(mean.shape[1]), sweep)
        center, constrained = mean[:, order], positive[order]
        factor = np.linalg.cholesky(covariance[:, order[:, None], order])
        z = np.linalg.solve(factor, (draw[:, order] - center)[..., None])[..., 0]
        for k in range(mean.shape[1]):
            column = factor[:, :, k]
            rest = center + np.einsum("dck,dk->dc", factor, z) - column * z[:, k, None]
            bound = -rest / np.where(column == 0, 1.0, column)
            low = np.max(bound, axis=1, initial=-np.inf, where=constrained & (column > 0))
            high = np.min(bound, axis=1, initial=np.inf, where=constrained & (column < 0))
            # Rounding may close an interval that holds a single point.
            high = np.maximum(high, low + 1e-12 * (1 + np.abs(np.maximum(low, -1e300))))
            z[:, k] = truncnorm.rvs(low, high, random_state=rng)
        draw[:, order] = center + np.einsum("dck,dk->dc", factor, z)
    return np.where(positive, np.maximum(draw, 0.0), draw)


def _positive_definite(covariance: np.ndarray) -> np.ndarray:
    """Lifts the eigenvalues of the correlations to the rounding of the type they come in."""
    smallest = 10 * np.finfo(covariance.dtype).eps
    covariance = covariance.astype(np.float64)
    sigma = np.sqrt(np.einsum("dcc->dc", covariance))
    outer = sigma[:, :, None] * sigma[:, None, :]
    values, vectors = np.linalg.eigh(covariance / outer)
    return np.einsum("dik,dk,djk->dij", vectors, np.maximum(values, smallest), vectors) * outer


@tf.custom_gradient
def _log_cdf(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Log of the standard normal distribution function, in float64.

    The gradient of TFP's three branches is a score of kernels under XLA; what it amounts to is phi(x) / Phi(x).
    """
    value = _standard_normal().log_cdf(x)
    return value, lambda upstream: upstream * tf.exp(_standard_normal().log_prob(x) - value)


def _standard_normal() -> tfd.Normal:
    return tfd.Normal(tf.zeros([], tf.float64), tf.ones([], tf.float64))
