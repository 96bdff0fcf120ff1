"""Newton's steps from the mean that an encoder gives, with its covariance for the inverse of the Hessian."""

from collections.abc import Callable

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.posterior import GaussianPosterior


def newton_refined(
    posterior: GaussianPosterior,
    image: tf.Tensor,
    sigma: tf.Tensor,
    observe: Callable[[tf.Tensor], tf.Tensor],
    steps: int,
    prior: tuple[tf.Tensor, tf.Tensor] | None = None,
) -> GaussianPosterior:
    """The posterior with its mean moved towards the maximum of p(z | image); semi-amortised inference.

    An encoder sees the image once and cannot correct itself: at high S/N, most of what a reconstruction lacks is its
    error, not the decoder's (Cremer et al. 2018, arXiv:1801.03558). The Gaussian q of the highest evidence lower bound
    has the inverse of the mean Hessian of -log p(image, z) for its covariance (Opper & Archambeau 2009, eq. 9), so
    that covariance times gradient is Newton's step, whatever the network has learned of it. Its length, at most 2, is
    the best one on the chord of the images, from one more image at its end.

    The move counts as constant: gradients pass as if the encoder had given the new mean itself.

    Args:
        posterior: of the encoder, for D latent variables.
        image: `[batch, n, n]`.
        sigma: noise per pixel, `[batch]`.
        observe: z `[batch, D]` to images without noise `[batch, n, n]`, differentiable.
        steps: each costs two images and one gradient.
        prior: mean `[D]` and lower triangular scale `[D, D]` of a Gaussian prior; N(0, I) if None.

    Returns:
        The moved mean `[batch, D]` with the scale as it was.

    Example:
        >>> observe = lambda z: 5 * z[:, :, None]  # one column of pixels, each with a latent variable of its own
        >>> start = GaussianPosterior(tf.zeros((1, 3)), 0.2 * tf.eye(3)[None])
        >>> print(newton_refined(start, tf.ones((1, 3, 1)), tf.ones(1), observe, steps=1).mean.numpy().round(3))
        [[0.192 0.192 0.192]]
    """
    start = z = tf.stop_gradient(posterior.mean)
    scale = tf.stop_gradient(posterior.scale)
    for _ in range(steps):
        z += _step(z, scale, image, sigma[:, None, None], observe, prior)
    return GaussianPosterior(posterior.mean + tf.stop_gradient(z - start), posterior.scale)


def check_newton_steps(caller: str, steps: int, encoder: Encoder) -> None:
    """Raise `ParameterError` unless there are no steps, or the encoder's posterior is Gaussian."""
    if steps < 0 or (steps and encoder.posterior_kind == "iaf"):
        raise ParameterError(
            f"{caller}: newton_steps must be 0, or positive with a Gaussian posterior, got {steps!r} with a posterior "
            f"of the kind {encoder.posterior_kind!r}"
        )


def _step(
    z: tf.Tensor,
    scale: tf.Tensor,
    image: tf.Tensor,
    sigma: tf.Tensor,
    observe: Callable[[tf.Tensor], tf.Tensor],
    prior: tuple[tf.Tensor, tf.Tensor] | None,
) -> tf.Tensor:
    def standardised(z: tf.Tensor) -> tf.Tensor:
        return z if prior is None else _solve(prior[1], z - prior[0])

    with tf.GradientTape() as tape:
        tape.watch(z)
        seen, u = observe(z), standardised(z)
        residual = (image - seen) / sigma
        energy = (tf.reduce_sum(residual**2) + tf.reduce_sum(u**2)) / 2
    downhill = -tf.linalg.matvec(scale, tf.linalg.matvec(scale, tape.gradient(energy, z), transpose_a=True))
    direction = tf.clip_by_norm(downhill, _LONGEST, axes=-1)
    change = (observe(z + direction) - seen) / sigma
    u_change = standardised(z + direction) - u
    # The minimum over t of |residual - t change|^2 + |u + t u_change|^2.
    slope = tf.reduce_sum(residual * change, (-2, -1)) - tf.reduce_sum(u * u_change, -1)
    curvature = tf.reduce_sum(change**2, (-2, -1)) + tf.reduce_sum(u_change**2, -1)
    length = tf.clip_by_value(tf.math.divide_no_nan(slope, curvature), 0.0, 2.0)
    return length[:, None] * direction


def _solve(scale: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """scale^-1 z for each row of z."""
    return tf.transpose(tf.linalg.triangular_solve(scale, tf.transpose(z)))


_LONGEST = 1.0  # standard deviations of N(0, I), before the length is chosen
