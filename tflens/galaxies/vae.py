"""The variational autoencoder: what is learned is the galaxy before the PSF, what is compared is the noisy image."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from tflens.datasets.pipeline import Convolution
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder


class GalaxyVAE(keras.Model):
    """Evidence lower bound with the known noise and PSF in the likelihood (Kingma & Welling 2014, arXiv:1312.6114).

    x ~ N(PSF * decoder(z), sigma^2), z ~ N(0, I), q(z | x, sigma) of full covariance. The weight of the KL divergence
    rises linearly to 1, and each dimension has `free_bits` for nothing, so that none is given up before it was tried
    (Kingma et al. 2016, arXiv:1606.04934).

    Args:
        encoder: of the same latent dimension and stamp size as the decoder.
        decoder: z to a galaxy of unit flux.
        psf: `[odd, odd]`, unit sum.
        free_bits: nats a dimension, of the batch's mean KL.
        warmup_steps: steps until the weight of the KL is 1.
        seed: of the draws from the posterior.

    Input: batches of `{"image": [batch, n, n], "sigma": [batch]}`, of unit flux before noise.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        psf: ArrayLike,
        free_bits: float = 0.05,
        warmup_steps: int = 1000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.free_bits = free_bits
        self.warmup_steps = warmup_steps
        self.seed = seed
        self._psf = Convolution(psf, (decoder.stamp_size, decoder.stamp_size))

    def build(self, input_shape: Any = None) -> None:
        for network in (self.encoder, self.decoder):
            if not network.built:
                network.build()
        self.built = True

    def call(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The reconstruction `[batch, n, n]` of the image, after the PSF, from the posterior mean."""
        mean, _ = self.encoder(batch["image"], batch["sigma"])
        return self.observe(mean)

    def observe(self, z: tf.Tensor) -> tf.Tensor:
        """PSF * decoder(z): `[batch, D]` to `[batch, n, n]`."""
        return self._psf(self.decoder(z))

    def elbo_terms(self, batch: dict[str, tf.Tensor], seed: ArrayLike) -> tuple[tf.Tensor, tf.Tensor]:
        """chi^2 of one draw of the posterior, `[batch]`, and its KL divergence to N(0, I), `[batch, D]`, nats.

        ELBO = -chi^2 / 2 - sum of KL - sum over the pixels of log(sigma sqrt(2 pi)).
        """
        mean, scale = self.encoder(batch["image"], batch["sigma"])
        z = mean + tf.linalg.matvec(scale, tf.random.stateless_normal(tf.shape(mean), seed))
        residual = (batch["image"] - self.observe(z)) / batch["sigma"][:, None, None]
        return tf.reduce_sum(residual**2, (-2, -1)), gaussian_kl(mean, scale)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        step = tf.convert_to_tensor(self.optimizer.iterations)
        weight = tf.minimum(tf.cast(step + 1, tf.float32) / max(self.warmup_steps, 1), 1.0)
        seed = tf.stack([tf.constant(self.seed, tf.int32), tf.cast(step, tf.int32)])
        with tf.GradientTape() as tape:
            chi2, kl = self.elbo_terms(batch, seed)
            per_dimension = tf.maximum(tf.reduce_mean(kl, axis=0), self.free_bits)
            loss = tf.reduce_mean(chi2) / 2 + weight * tf.reduce_sum(per_dimension)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, **self._summary(chi2, kl)}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        chi2, kl = self.elbo_terms(batch, seed=[self.seed, -1])
        return {"loss": tf.reduce_mean(chi2) / 2 + tf.reduce_mean(tf.reduce_sum(kl, -1)), **self._summary(chi2, kl)}

    def _summary(self, chi2: tf.Tensor, kl: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = self.decoder.stamp_size**2
        return {"chi2": tf.reduce_mean(chi2) / pixels, "kl": tf.reduce_mean(tf.reduce_sum(kl, axis=-1))}


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


def posterior_draws(encoder: Encoder, batches: tf.data.Dataset, seed: int) -> np.ndarray:
    """One draw of q(z | x) for each image, `[N, D]`: a sample of the aggregate posterior."""

    @tf.function
    def draw(image: tf.Tensor, sigma: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        mean, scale = encoder(image, sigma)
        noise = tf.random.stateless_normal(tf.shape(mean), tf.stack([seed, tf.cast(index, tf.int32)]))
        return mean + tf.linalg.matvec(scale, noise)

    return np.concatenate([draw(b["image"], b["sigma"], i).numpy() for i, b in batches.enumerate()])
