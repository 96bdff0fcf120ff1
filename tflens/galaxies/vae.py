"""The variational autoencoder: what is learned is the galaxy before the PSF, what is compared is the noisy image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import Flow, gaussian_part
from tflens.galaxies.newton import check_newton_steps, newton_refined
from tflens.galaxies.posterior import GaussianPosterior, Posterior
from tflens.galaxies.training import Trainable, batch_mean, shared_normal
from tflens.psf import PSF


class GalaxyVAE(Trainable):
    """Evidence lower bound with the known noise and PSF in the likelihood (Kingma & Welling 2014, arXiv:1312.6114).

    x ~ N(PSF * decoder(z), sigma^2), z ~ prior, q(z | x, sigma) from the encoder. The weight of the KL divergence
    rises linearly to `beta`, and each dimension has `free_bits` for nothing, so that none is given up before it was
    tried (Kingma et al. 2016, arXiv:1606.04934). Where the divergence is not known dimension by dimension (a flow as
    prior or in the posterior), the free bits of all dimensions are one allowance for their sum.

    The encoder's mean can be refined by Newton's steps (`newton_refined`), and is then trained as part of that whole:
    the decoder sees what the data hold, not what the encoder has lost of it.

    With a flow as prior, KL(q || p) = E_q[log q - log p_flow] is estimated by the same draw as the likelihood, and the
    flow is trained with the autoencoder.

    Args:
        encoder: of the same latent dimension and stamp size as the decoder.
        decoder: z to a galaxy of unit flux.
        psf: `[odd, odd]`, unit sum; None compares the decoder's image itself with the data.
        prior: a flow, or None for N(0, I).
        beta: weight of the KL divergence after the warm-up (Higgins et al. 2017); 1 for the evidence lower bound.
        free_bits: nats a dimension, of the batch's mean KL.
        warmup_steps: steps until the weight of the KL is `beta`.
        seed: of the draws from the posterior.
        newton_steps: on the mean of a Gaussian posterior, once it is trained.
        newton_in_training: the same in the training; fewer, for they cost time.
        newton_after: steps of the training that do without.

    Raises:
        ParameterError: Newton's steps are asked of a posterior that is not Gaussian.

    Input: batches of `{"image": [batch, n, n], "sigma": [batch]}`, of unit flux before noise, and `"condition"`
    `[batch, condition_dim]` for a conditional prior.

    Example:
        >>> vae = GalaxyVAE(Encoder(2, 16, (4, 8), 8), Decoder(2, 16, (8, 4)), warmup_steps=0)
        >>> batch = {"image": tf.ones((3, 16, 16)) / 256, "sigma": tf.ones(3)}
        >>> vae(batch).shape, sorted(vae.validation_terms(batch))
        (TensorShape([3, 16, 16]), ['chi2', 'kl', 'loss'])
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Decoder,
        psf: ArrayLike | None = None,
        free_bits: float = 0.05,
        warmup_steps: int = 1000,
        seed: int = 0,
        prior: Flow | None = None,
        beta: float = 1.0,
        newton_steps: int = 0,
        newton_in_training: int = 0,
        newton_after: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        self.free_bits = free_bits
        self.warmup_steps = warmup_steps
        self.beta = beta
        self.seed = seed
        self.newton_steps = newton_steps
        self.newton_in_training = newton_in_training
        self.newton_after = newton_after
        check_newton_steps("GalaxyVAE", newton_steps, encoder)
        check_newton_steps("GalaxyVAE", newton_in_training, encoder)
        self._psf = None if psf is None else PSF(np.asarray(psf), (decoder.stamp_size, decoder.stamp_size))

    def build(self, input_shape: Any = None) -> None:
        for network in (self.encoder, self.decoder, self.prior):
            if network is not None and not network.built:
                network.build()
        self.built = True

    def call(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """The reconstruction `[batch, n, n]` of the image, after the PSF, from the posterior mean."""
        return self.observe(self.posterior(batch["image"], batch["sigma"]).moments()[0])

    def posterior(self, image: tf.Tensor, sigma: tf.Tensor, step: tf.Tensor | None = None) -> Posterior:
        """q(z | image, sigma) of images `[batch, n, n]` and noise `[batch]`; as it is at a step of the training."""
        posterior = self.encoder.posterior(image, sigma)
        steps = self.newton_steps if step is None else self.newton_in_training
        if not steps:
            return posterior

        def refine() -> tf.Tensor:
            return newton_refined(posterior, image, sigma, self.observe, steps, gaussian_part(self.prior)).mean

        if step is None or not self.newton_after:
            mean = refine()
        else:
            mean = tf.cond(step >= self.newton_after, refine, lambda: posterior.mean)
        return GaussianPosterior(mean, posterior.scale)

    def observe(self, z: tf.Tensor) -> tf.Tensor:
        """What is compared with the data, PSF * decoder(z): `[batch, D]` to `[batch, n, n]`."""
        image = self.decoder(z)
        return image if self._psf is None else self._psf.convolve(image)

    def elbo_terms(
        self, batch: dict[str, tf.Tensor], seed: ArrayLike, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """chi^2 of one draw of the posterior, `[batch]`, and its KL divergence to the prior, `[batch, terms]`, nats.

        ELBO = -chi^2 / 2 - sum of KL - sum over the pixels of log(sigma sqrt(2 pi)). There is one term of the KL for
        each dimension if posterior and prior are Gaussian, otherwise one in all: its estimate by the draw. As they are
        at a step of the training; None: after it.
        """
        posterior = self.posterior(batch["image"], batch["sigma"], step)
        shape = tf.stack([tf.shape(batch["image"])[0], self.decoder.latent_dim])
        z, log_prob, kl = posterior.draw(shared_normal(shape, seed))
        if self.prior is not None:
            condition = batch["condition"] if self.prior.condition_dim else None
            kl = (log_prob - self.prior.compiled_log_prob(z, condition))[:, None]
        residual = (batch["image"] - self.observe(z)) / batch["sigma"][:, None, None]
        return tf.reduce_sum(residual**2, (-2, -1)), kl

    def training_terms(self, batch: dict[str, tf.Tensor], step: tf.Tensor) -> dict[str, tf.Tensor]:
        """Negative ELBO without its constant, with warm-up, beta and free bits; chi^2 per pixel; KL in nats.

        `free_bits` are the nats that the free bits add to the KL.
        """
        weight = self.beta * tf.minimum(tf.cast(step + 1, tf.float32) / max(self.warmup_steps, 1), 1.0)
        chi2, kl = self._means(batch, tf.stack([self.seed, step]), step)
        allowance = self.free_bits * self.decoder.latent_dim / kl.shape[0]
        floor = tf.reduce_sum(tf.maximum(allowance - kl, 0.0))
        loss = chi2 / 2 + weight * (tf.reduce_sum(kl) + floor)
        return {"loss": loss, **self._summary(chi2, kl), "free_bits": floor, "kl_weight": weight}

    def validation_terms(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same after the warm-up, without free bits."""
        chi2, kl = self._means(batch, tf.constant([self.seed, -1]))
        return {"loss": chi2 / 2 + self.beta * tf.reduce_sum(kl), **self._summary(chi2, kl)}

    def _means(
        self, batch: dict[str, tf.Tensor], seed: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        chi2, kl = self.elbo_terms(batch, seed, step)
        return batch_mean(chi2), batch_mean(kl)

    def _summary(self, chi2: tf.Tensor, kl: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"chi2": chi2 / self.decoder.stamp_size**2, "kl": tf.reduce_sum(kl)}


PosteriorOf = Callable[[tf.Tensor, tf.Tensor], Posterior]


def posterior_draws(posterior: PosteriorOf, batches: tf.data.Dataset, seed: int) -> NDArray[np.float32]:
    """One draw of q(z | x) for each image, `[N, D]`: a sample of the aggregate posterior.

    Args:
        posterior: image `[batch, n, n]` and sigma `[batch]` to q, such as the method of a `GalaxyVAE`.
        batches: of `{"image": ..., "sigma": ...}`.
        seed: of the draws.
    """

    @tf.function
    def draw(image: tf.Tensor, sigma: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        q = posterior(image, sigma)
        shape = tf.stack([tf.shape(image)[0], q.dim])
        return q.draw(tf.random.stateless_normal(shape, tf.stack([seed, tf.cast(index, tf.int32)]))).z

    return np.concatenate([draw(b["image"], b["sigma"], i).numpy() for i, b in batches.enumerate()])
