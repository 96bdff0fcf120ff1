"""Train the model of handwritten digits: autoencoder, flow, and the classifier that reads its reconstructions.

A run that was killed goes on where it stopped when it is started again. The figures are of digits that no part of the
model has seen.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from tflens._tfp import tfd
from tflens.datasets.mnist import PIXEL_SCALE, distorted, load_digits
from tflens.datasets.pipeline import observed_galaxies
from tflens.galaxies import GalaxyModel
from tflens.galaxies.decoder import Decoder
from tflens.galaxies.digit_reader import DigitReader
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.metrics import active_units, reduced_chi2
from tflens.galaxies.posterior import gaussian_kl
from tflens.galaxies.reconstruct import fit_latents
from tflens.galaxies.training import seconds_of_training, train
from tflens.galaxies.vae import GalaxyVAE, posterior_draws

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "validation", "test")

Config = dict[str, Any]
Digits = dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "scripts/train_mnist.toml")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/mnist", help="checkpoints, TensorBoard's events")
    parser.add_argument("--out", type=Path, default=ROOT / "saved_models/mnist/1", help="where the model goes")
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text())
    digits = {split: load_digits(split, **config["data"]) for split in SPLITS}
    vae = train_vae(config, digits, arguments.run / "vae")
    flow = train_flow(config, vae.encoder, digits, arguments.run / "flow")
    reader = train_reader(config, digits, arguments.run / "reader")
    model = GalaxyModel(vae.encoder, vae.decoder, flow, pixel_scale=PIXEL_SCALE, resolution=0.0)
    model.save(arguments.out)
    figures = [measure(config, model, reader, digits, snr) for snr in ((20.0, 50.0), (100.0, 300.0))]
    accuracy = reader_accuracy(reader, *digits["test"])
    reader.save_beside(arguments.out, held_out_accuracy=accuracy)
    noted = {
        "config": config,
        "seconds": {stage: seconds_of_training(arguments.run / stage) for stage in ("vae", "flow")},
        "held_out": figures,
        "reader": accuracy,
    }
    (arguments.out / "metrics.json").write_text(json.dumps(noted, indent=2) + "\n")
    draw(model, digits["test"][0][::25], arguments.out / "digits.png")
    for record in (*figures, accuracy):
        show(record)


def train_vae(config: Config, digits: Digits, directory: Path) -> GalaxyVAE:
    settings, seed = config["vae"], config["seed"]
    keras.utils.set_random_seed(seed)
    vae = GalaxyVAE(
        Encoder(**config["encoder"]),
        Decoder(**config["decoder"]),
        free_bits=settings["free_bits"],
        warmup_steps=settings["warmup_steps"],
        seed=seed,
    )
    vae.build()
    train_one(vae, settings, len(digits["train"][0]) / config["observation"]["batch_size"], 100.0)(
        lambda epoch: observed(config, digits["train"][0], seed, epoch),
        observed_galaxies(digits["validation"][0], None, seed=seed, augment=False, **config["observation"]),
        directory,
    )
    return vae


def train_flow(config: Config, encoder: Encoder, digits: Digits, directory: Path) -> InverseAutoregressiveFlow:
    """The flow, fitted to draws of the aggregate posterior by exact maximum likelihood."""
    settings, seed = config["flow_training"], config["seed"]
    keras.utils.set_random_seed(seed)
    draws = aggregate_posterior(config, encoder, digits["train"][0], settings["draws"])
    validation = posterior_draws(
        encoder.posterior,
        observed_galaxies(digits["validation"][0], None, seed=seed, augment=False, **config["observation"]),
        seed,
    )
    flow = InverseAutoregressiveFlow(**config["flow"])
    flow.build()
    flow.adapt(draws)
    batch_size = settings["batch_size"]

    def shuffled(epoch: int) -> tf.data.Dataset:
        order = np.random.default_rng([seed, epoch]).permutation(len(draws))
        return tf.data.Dataset.from_tensor_slices(draws[order]).batch(batch_size)

    train_one(flow, settings, len(draws) / batch_size, 10.0, xla=True)(
        shuffled, tf.data.Dataset.from_tensor_slices(validation).batch(batch_size), directory
    )
    return flow


def train_reader(config: Config, digits: Digits, directory: Path) -> DigitReader:
    """The classifier, on distorted, blurred and noisy digits: reconstructions are softer than what it will be shown."""
    settings, seed = config["reader_training"], config["seed"]
    keras.utils.set_random_seed(seed)
    reader = DigitReader(**config["reader"])
    reader.build()
    weights = directory / "reader.weights.h5"
    if weights.exists():
        reader.load_weights(weights)
        return reader
    stamps, labels = digits["train"]
    batch_size, epochs = settings["batch_size"], settings["epochs"]
    steps = epochs * -(-len(stamps) // batch_size)
    reader.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings["learning_rate"], steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch, 1])
        images = distorted(stamps, seed + 1, epoch, rotation=12.0, slant=0.15, stretch=0.12, shift=2.0)
        images = np.stack([ndimage.gaussian_filter(image, settings["blur"] * rng.random()) for image in images])
        level = settings["noise"] * rng.random(len(images)) * images.max((1, 2))
        images += level[:, None, None] * rng.standard_normal(images.shape)
        order = rng.permutation(len(images))
        history = reader.fit(images[order].astype(np.float32), labels[order], batch_size=batch_size, verbose=0)
        show({"epoch": epoch + 1} | {name: values[0] for name, values in history.history.items()})
    directory.mkdir(parents=True, exist_ok=True)
    reader.save_weights(weights)
    return reader


def measure(config: Config, model: GalaxyModel, reader: DigitReader, digits: Digits, snr: tuple[float, float]) -> dict:
    """Figures on the held-out digits; those with `map_` with u found by optimisation, not by the encoder."""
    stamps, labels = digits["test"]
    seed = config["seed"] + 100
    settings = config["observation"] | {"snr_range": snr}
    data = observed_galaxies(stamps, None, seed=seed, augment=False, **settings)
    image, sigma = (np.concatenate([batch[name] for batch in data]) for name in ("image", "sigma"))
    mean, scale = model.encode(image, sigma)
    decoded = model.decode(mean).numpy()
    u = fit_latents(model, tf.constant(image), tf.constant(sigma), psf=tf.identity)
    optimised = model.generate(u).numpy()
    draws = posterior_draws(model.posterior, data, seed)
    normal = tfd.MultivariateNormalDiag(tf.zeros(model.latent_dim))
    affine = tfd.MultivariateNormalTriL(model.flow.shift.value, model.flow.scale.value)
    return {
        "digits": len(image),
        "snr_low": snr[0],
        "snr_high": snr[1],
        "reduced_chi2": float(reduced_chi2(image, decoded, sigma).mean()),
        "relative_error": relative_error(decoded, stamps),
        "read_right": accuracy(reader, decoded, labels),
        "map_reduced_chi2": float(reduced_chi2(image, optimised, sigma).mean()),
        "map_relative_error": relative_error(optimised, stamps),
        "map_read_right": accuracy(reader, optimised, labels),
        "map_u2_per_dimension": float(tf.reduce_mean(u**2)),
        "mean_kl": float(tf.reduce_mean(tf.reduce_sum(gaussian_kl(mean, scale), -1))),
        "active_units": active_units(mean),
        "flow_nll": -float(tf.reduce_mean(model.flow.log_prob(draws))),
        "gaussian_nll": -float(tf.reduce_mean(affine.log_prob(draws))),
        "standard_normal_nll": -float(tf.reduce_mean(normal.log_prob(draws))),
    }


def relative_error(images: NDArray, truth: NDArray) -> float:
    """Median over the digits of the rms error relative to the digit's own rms, both without noise."""
    return float(np.median(np.sqrt(((images - truth) ** 2).sum((1, 2)) / (truth**2).sum((1, 2)))))


def reader_accuracy(reader: DigitReader, stamps: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Share of held-out digits read right: as they are, and blurred by Gaussians of a width in pixels."""
    blurred = {width: ndimage.gaussian_filter(stamps, (0, width, width)) for width in (0.0, 0.5, 1.0, 1.5)}
    return {"digits": len(stamps)} | {f"blur_{width}": accuracy(reader, b, labels) for width, b in blurred.items()}


def accuracy(reader: DigitReader, images: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(np.mean(reader.read(images).numpy().argmax(-1) == labels))


def draw(model: GalaxyModel, stamps: NDArray[np.float32], path: Path) -> None:
    """Held-out digits, reconstructions from data of S/N 50, and draws from the prior with and without the flow."""
    count = 16
    data = next(iter(observed_galaxies(stamps[:count], None, count, seed=7, snr_range=(50.0, 50.0), augment=False)))
    z = tf.random.stateless_normal([2 * count, model.latent_dim], [1, 1])
    rows = {
        "held-out digits": stamps[:count],
        "data, S/N 50": data["image"].numpy(),
        "reconstructed": model.decode(model.encode(data["image"], data["sigma"])[0]).numpy(),
        "prior: u ~ N(0, I), z = T(u)": model.sample_prior(2 * count, seed=1).numpy(),
        "without the flow: z ~ N(0, I)": model.decode(z).numpy(),
    }
    figure = Figure(figsize=(count * 0.75, 8.5), layout="constrained")
    lines = [-(-len(images) // count) for images in rows.values()]
    for part, (title, images) in zip(
        figure.subfigures(len(rows), 1, height_ratios=lines).flat, rows.items(), strict=True
    ):
        part.suptitle(title, fontsize=9)
        axes = part.subplots(-(-len(images) // count), count, squeeze=False)
        for panel, shown in zip(axes.flat, images, strict=True):
            panel.axis("off")
            panel.imshow(shown, origin="lower", cmap="magma", vmin=0)
    figure.savefig(path, dpi=60)


def observed(config: Config, stamps: NDArray[np.float32], seed: int, epoch: int) -> tf.data.Dataset:
    """Distorted digits in an order of their own, with fresh noise: one epoch of training."""
    order = np.random.default_rng([seed, epoch, 2]).permutation(len(stamps))
    digits = distorted(stamps[order], seed, epoch, **config["distortion"])
    return observed_galaxies(digits, None, seed=seed, epoch=epoch, augment=False, **config["observation"])


def aggregate_posterior(config: Config, encoder: Encoder, stamps: NDArray, times: int) -> NDArray[np.float32]:
    """Draws of q(z | x), `times` for each digit, each of another distortion and noise."""
    epochs = (observed(config, stamps, config["seed"], 10_000 + i) for i in range(times))
    return np.concatenate([posterior_draws(encoder.posterior, data, i) for i, data in enumerate(epochs)])


def train_one(model: keras.Model, settings: Config, steps: float, clip: float, xla: bool = False):
    """`train` with the schedule of the settings: a short warm-up, then a cosine."""
    total = int(settings["epochs"] * np.ceil(steps))
    warmup = min(200, total // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, total - warmup, alpha=0.01, warmup_target=settings["learning_rate"], warmup_steps=warmup
    )
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=clip))
    return lambda train_data, validation, directory: train(
        model, train_data, validation, directory, settings["epochs"], settings["patience"], report=show, xla=xla
    )


def show(record: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.5g}" for name, value in record.items()), flush=True)


if __name__ == "__main__":
    main()
