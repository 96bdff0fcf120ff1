"""From a dataset of simulated galaxies to a trained, measured and saved galaxy model."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens._tfp import tfd
from tflens.datasets.pipeline import Convolution, hst_psf, observed_galaxies
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.metrics import active_units, noiseless_residual, peak_error, reduced_chi2
from tflens.galaxies.pictures import draw_prior, draw_reconstructions
from tflens.galaxies.reconstruct import fit_latents
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.training import Record, train
from tflens.galaxies.vae import GalaxyVAE, gaussian_kl, posterior_draws

Config = dict[str, Any]
Galaxies = NDArray[np.float32]
Report = Callable[[Record], None]


def train_vae(
    config: Config,
    galaxies: dict[str, Galaxies],
    directory: Path,
    report: Report,
) -> GalaxyVAE:
    """Train the autoencoder on `galaxies["train"]`, with early stopping by `galaxies["validation"]`."""
    settings, seed = config["vae"], config["seed"]
    keras.utils.set_random_seed(seed)
    psf = hst_psf()
    vae = GalaxyVAE(
        Encoder(**config["encoder"]),
        Decoder(**config["decoder"]),
        psf,
        free_bits=settings["free_bits"],
        warmup_steps=settings["warmup_steps"],
        seed=seed,
    )
    vae.build()
    steps = settings["epochs"] * -(-len(galaxies["train"]) // config["observation"]["batch_size"])
    vae.compile(optimizer=keras.optimizers.Adam(_schedule(settings["learning_rate"], steps), global_clipnorm=100.0))
    validation = observed_galaxies(galaxies["validation"], psf, seed=seed + 1, augment=False, **config["observation"])
    shown = next(iter(validation.unbatch().batch(8)))
    train(
        vae,
        lambda epoch: observed_galaxies(galaxies["train"], psf, seed=seed, epoch=epoch, **config["observation"]),
        validation,
        directory,
        epochs=settings["epochs"],
        patience=settings["patience"],
        report=report,
        write_images=lambda epoch: _write_reconstructions(vae, shown, epoch),
    )
    return vae


def train_flow(
    config: Config, encoder: Encoder, galaxies: dict[str, Galaxies], directory: Path, report: Report
) -> InverseAutoregressiveFlow:
    """Fit the flow to draws of the aggregate posterior by exact maximum likelihood."""
    settings, seed = config["flow_training"], config["seed"]
    keras.utils.set_random_seed(seed)
    draws = np.concatenate(
        [_aggregate_posterior(config, encoder, galaxies["train"], seed + i) for i in range(settings["draws"])]
    )
    validation = _aggregate_posterior(config, encoder, galaxies["validation"], seed + settings["draws"])
    flow = InverseAutoregressiveFlow(**config["flow"])
    flow.build()
    flow.adapt(draws)
    batch_size = settings["batch_size"]
    steps = settings["epochs"] * -(-len(draws) // batch_size)
    flow.compile(optimizer=keras.optimizers.Adam(_schedule(settings["learning_rate"], steps), global_clipnorm=10.0))

    def epoch_of_draws(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng([seed, epoch]).permutation(len(draws))
        return tf.data.Dataset.from_tensor_slices(draws[order]).batch(batch_size)

    train(
        flow,
        epoch_of_draws,
        tf.data.Dataset.from_tensor_slices(validation).batch(batch_size),
        directory,
        epochs=settings["epochs"],
        patience=settings["patience"],
        report=report,
        xla=True,
    )
    return flow


def evaluate(
    config: Config,
    model: GalaxyModel,
    galaxies: dict[str, Galaxies],
    snr_range: tuple[float, float],
    fitted: int = 128,
) -> Record:
    """The figures of a model on `galaxies["test"]`, which it has never seen; latent figures in nats.

    G1, G2 and G4 are those of the encoder's posterior mean. Those with `map_` are of the first `fitted` galaxies with
    u found by optimisation: what the decoder can draw, whatever the encoder makes of it. `gaussian_nll` is of the
    full Gaussian fitted to as many draws of training galaxies as the flow was.
    """
    seed = config["seed"] + 100
    settings = {**config["observation"], "snr_range": snr_range}
    psf = hst_psf()
    vae = GalaxyVAE(model.encoder, model.decoder, psf)
    test = observed_galaxies(galaxies["test"], psf, seed=seed, augment=False, **settings)
    batches = []
    for batch in test:
        mean, scale = model.encode(batch["image"], batch["sigma"])
        kl = tf.reduce_sum(gaussian_kl(mean, scale), -1)
        batches.append([batch["image"], batch["signal"], batch["sigma"], vae.observe(mean), mean, kl])
    image, signal, sigma, decoded, mean, kl = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    image_, signal_, sigma_ = image[:fitted], signal[:fitted], sigma[:fitted]
    convolve = Convolution(psf, image.shape[1:])
    u = fit_latents(model, tf.constant(image_), tf.constant(sigma_), convolve)
    optimised = convolve(model.generate(u)).numpy()
    draws = posterior_draws(model.encoder, test, seed)
    affine = tfd.MultivariateNormalTriL(model.flow.shift.value, model.flow.scale.value)
    normal = tfd.MultivariateNormalDiag(tf.zeros(model.latent_dim))
    return {
        "galaxies": len(image),
        "snr_low": snr_range[0],
        "snr_high": snr_range[1],
        "G1_reduced_chi2": float(reduced_chi2(image, decoded, sigma).mean()),
        "G2_noiseless_residual": float(np.median(noiseless_residual(signal, decoded, sigma))),
        "G4_peak_error": float(np.median(peak_error(signal, decoded))),
        "map_galaxies": len(image_),
        "map_reduced_chi2": float(reduced_chi2(image_, optimised, sigma_).mean()),
        "map_reduced_chi2_median": float(np.median(reduced_chi2(image_, optimised, sigma_))),
        "map_noiseless_residual": float(np.median(noiseless_residual(signal_, optimised, sigma_))),
        "map_peak_error": float(np.median(peak_error(signal_, optimised))),
        "map_u2_per_dimension": float(tf.reduce_mean(u**2)),
        "mean_kl": float(kl.mean()),
        "active_units": active_units(mean),
        "flow_nll": -float(tf.reduce_mean(model.flow.log_prob(draws))),
        "gaussian_nll": -float(tf.reduce_mean(affine.log_prob(draws))),
        "standard_normal_nll": -float(tf.reduce_mean(normal.log_prob(draws))),
    }


def train_galaxy_model(
    config: Config,
    galaxies: dict[str, Galaxies],
    directory: Path,
    report: Report = lambda record: None,
) -> tuple[GalaxyModel, Record]:
    """Autoencoder, then flow. A run that was killed goes on where it stopped.

    Args:
        config: as in `scripts/train_galaxies.toml`.
        galaxies: `train`, `validation` and `test`, each `[N, n, n]`, unit sum, before the PSF.
        directory: of checkpoints and TensorBoard's events.
        report: called with the record of each epoch.

    Returns:
        The model, and the seconds that the two stages took in this process.
    """
    began = time.perf_counter()
    vae = train_vae(config, galaxies, directory / "vae", report)
    between = time.perf_counter()
    flow = train_flow(config, vae.encoder, galaxies, directory / "flow", report)
    seconds = {"vae_seconds": between - began, "flow_seconds": time.perf_counter() - between}
    return GalaxyModel(vae.encoder, vae.decoder, flow), seconds


def save_measured(
    config: Config, model: GalaxyModel, galaxies: dict[str, Galaxies], directory: Path, run: Record
) -> list[Record]:
    """Save the model with its configuration, its figures on held-out galaxies and pictures to look at.

    Args:
        config: that it was trained with.
        model: trained.
        galaxies: with `test`.
        directory: of this version of the model.
        run: what else to note of the run, such as its seconds.

    Returns:
        The figures at S/N 15-50 and 100-300.
    """
    model.save(directory)
    records = [evaluate(config, model, galaxies, snr_range) for snr_range in ((15.0, 50.0), (100.0, 300.0))]
    noted = {"config": config, "run": run, "held_out": records}
    (directory / "metrics.json").write_text(json.dumps(noted, indent=2) + "\n")
    draw_reconstructions(model, galaxies["test"][:6], directory / "reconstructions.png")
    draw_prior(model, galaxies["test"][100:136], directory / "prior.png")
    return records


def _aggregate_posterior(config: Config, encoder: Encoder, galaxies: Galaxies, seed: int) -> NDArray[np.float32]:
    observed = observed_galaxies(galaxies, hst_psf(), seed=seed, epoch=10_000, **config["observation"])
    return posterior_draws(encoder, observed, seed)


def _schedule(learning_rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    warmup = min(200, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )


def _write_reconstructions(vae: GalaxyVAE, batch: dict[str, tf.Tensor], epoch: int) -> None:
    """Data, reconstruction and residual side by side, one row a galaxy, residuals from -3 to 3 sigma."""
    fitted = vae(batch)
    peak = tf.reduce_max(batch["signal"], (-2, -1), keepdims=True)
    residual = (batch["image"] - fitted) / batch["sigma"][:, None, None]
    rows = tf.concat([batch["image"] / peak, fitted / peak, (residual + 3) / 6], axis=-1)
    picture = tf.clip_by_value(tf.concat(tf.unstack(rows), axis=0), 0, 1)
    tf.summary.image("data, reconstruction, residual", picture[None, ..., None], step=epoch)
