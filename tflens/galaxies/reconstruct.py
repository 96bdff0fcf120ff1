"""The galaxy behind an unlensed image, found by optimisation instead of by the encoder, as a lens fit would find it."""

from collections.abc import Callable

import tensorflow as tf
from numpy.typing import ArrayLike

from tflens.galaxies.adam import adam_minimum
from tflens.galaxies.source import GalaxyModel


def fit_latents(
    model: GalaxyModel,
    image: tf.Tensor,
    sigma: tf.Tensor,
    psf: Callable[[tf.Tensor], tf.Tensor],
    steps: int = 400,
    condition: ArrayLike | None = None,
) -> tf.Tensor:
    """Maximum a posteriori u of noisy images of unit flux: minimum of chi^2 + |u|^2, by Adam from u = 0.

    Args:
        model: of the galaxies.
        image: `[batch, n, n]`, of unit flux before noise.
        sigma: noise per pixel `[batch]`.
        psf: convolution of the model's stamps.
        steps: of Adam, with a cosine schedule.
        condition: of a conditional flow, `[batch, C]`.

    Returns:
        u `[batch, D]`.
    """

    def loss(u: tf.Tensor) -> tf.Tensor:
        residual = (image - psf(model.generate(u, condition))) / sigma[:, None, None]
        return tf.reduce_sum(residual**2) + tf.reduce_sum(u**2)

    (u,) = adam_minimum(loss, [tf.zeros((image.shape[0], model.latent_dim))], steps)
    return u
