"""What an encoder says of the latent variables of an image: a Gaussian, or a Gaussian carried by a flow."""

from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tflens._tfp import tfd
from tflens.galaxies.flow import Flow


class Draw(NamedTuple):
    """A draw z `[batch, D]` of q(z | x), log q(z | x) `[batch]`, and KL(q || N(0, I)) `[batch, terms]`, nats.

    The KL divergence is the sum of its terms: one for each dimension where it is known in closed form, otherwise a
    single one, its unbiased estimate by this draw.
    """

    z: tf.Tensor
    log_prob: tf.Tensor
    kl: tf.Tensor


class Posterior(Protocol):
    """q(z | x) for a batch of images, of `dim` latent variables each."""

    dim: int

    def draw(self, noise: ArrayLike) -> Draw:
        """The draw that standard normal noise `[batch, D]` is carried to; differentiable."""

    def log_prob(self, z: ArrayLike) -> tf.Tensor:
        """log q(z | x) `[batch]` of z `[batch, D]`, nats."""

    def moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean `[batch, D]`, and the Cholesky factor `[batch, D, D]` of the covariance."""


class GaussianPosterior:
    """N(mean, scale scale^T).

    Args:
        mean: `[batch, D]`.
        scale: `[batch, D, D]`, lower triangular with positive diagonal.

    Example:
        >>> posterior = GaussianPosterior(tf.ones((5, 2)), tf.eye(2, batch_shape=[5]))
        >>> z, log_prob, kl = posterior.draw(tf.zeros((5, 2)))
        >>> z[0].numpy().tolist(), kl[0].numpy().tolist(), round(float(log_prob[0]), 3)
        ([1.0, 1.0], [0.5, 0.5], -1.838)
    """

    def __init__(self, mean: tf.Tensor, scale: tf.Tensor) -> None:
        self.mean = mean
        self.scale = scale
        self.dim = mean.shape[-1]

    def draw(self, noise: ArrayLike) -> Draw:
        z = self.mean + tf.linalg.matvec(self.scale, noise)
        log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self.scale)), -1)
        return Draw(z, _standard_normal_log_prob(noise) - log_det, gaussian_kl(self.mean, self.scale))

    def log_prob(self, z: ArrayLike) -> tf.Tensor:
        return tfd.MultivariateNormalTriL(self.mean, self.scale).log_prob(z)

    def moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self.mean, self.scale


class FlowPosterior:
    """z = flow(a draw of a Gaussian; context): with an inverse autoregressive flow, that of Kingma et al. 2016
    (arXiv:1606.04934).

    Args:
        base: the Gaussian.
        flow: of the same dimension, conditional on the context; fast from the Gaussian to z.
        context: what the encoder tells the flow, `[batch, condition_dim]`.
        draws: how many `moments` is estimated from, the same ones at every call.

    Example:
        >>> from tflens.galaxies.flow import InverseAutoregressiveFlow
        >>> flow = InverseAutoregressiveFlow(2, stages=1, condition_dim=3)
        >>> base = GaussianPosterior(tf.zeros((5, 2)), tf.eye(2, batch_shape=[5]))
        >>> FlowPosterior(base, flow, tf.zeros((5, 3))).draw(tf.ones((5, 2))).kl.shape
        TensorShape([5, 1])
    """

    def __init__(self, base: GaussianPosterior, flow: Flow, context: tf.Tensor, draws: int = 256) -> None:
        self.base = base
        self.dim = base.dim
        self.flow = flow
        self.context = context
        self.draws = draws

    def draw(self, noise: ArrayLike) -> Draw:
        base = self.base.draw(noise)
        z, log_det = self.flow.forward_and_log_det(base.z, self.context)
        log_prob = base.log_prob - log_det
        return Draw(z, log_prob, (log_prob - _standard_normal_log_prob(z))[:, None])

    def log_prob(self, z: ArrayLike) -> tf.Tensor:
        u, log_det = self.flow.inverse_and_log_det(z, self.context)
        return self.base.log_prob(u) + log_det

    def moments(self) -> tuple[tf.Tensor, tf.Tensor]:
        batch, dim = tf.shape(self.base.mean)[0], self.base.mean.shape[-1]
        noise = tf.random.stateless_normal([self.draws, 1, dim], [0, 0])
        u = self.base.mean + tf.linalg.matvec(self.base.scale, noise)  # [draws, batch, D]
        z = self.flow(tf.reshape(u, [-1, dim]), tf.tile(self.context, [self.draws, 1]))
        z = tf.reshape(z, [self.draws, batch, dim])
        mean = tf.reduce_mean(z, 0)
        covariance = tf.einsum("sbi,sbj->bij", z - mean, z - mean) / (self.draws - 1)
        return mean, tf.linalg.cholesky(covariance)


def gaussian_kl(mean: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """KL(N(mean, scale scale^T) || N(0, I)) as one non-negative term for each dimension (row of the scale).

    Args:
        mean: `[...batch, D]`.
        scale: `[...batch, D, D]`, lower triangular with positive diagonal.

    Returns:
        `[...batch, D]`, nats; the divergence is its sum.

    Example:
        >>> gaussian_kl(tf.zeros(2), tf.eye(2)).numpy().tolist()
        [0.0, 0.0]
    """
    diagonal = tf.linalg.diag_part(scale)
    return (tf.reduce_sum(scale**2, -1) + mean**2 - 1) / 2 - tf.math.log(diagonal)


def _standard_normal_log_prob(z: ArrayLike) -> tf.Tensor:
    z = tf.convert_to_tensor(z)
    return -tf.reduce_sum(z**2, -1) / 2 - z.shape[-1] / 2 * np.log(2 * np.pi).astype(z.dtype.as_numpy_dtype)
