"""From a configuration and digits to a trained model of digits: as of galaxies, and a classifier that reads them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from tflens._tfp import tfd
from tflens.datasets.mnist import distorted
from tflens.datasets.pipeline import observed_galaxies
from tflens.datasets.records import Dataset
from tflens.errors import ParameterError
from tflens.galaxies.digit_reader import DigitReader
from tflens.galaxies.metrics import active_units, reduced_chi2
from tflens.galaxies.posterior import gaussian_kl
from tflens.galaxies.recipe import (
    Config,
    Reports,
    Schedule,
    Splits,
    Tables,
    arguments_of,
    claim,
    read_config,
    train_galaxy_model,
    train_stage,
)
from tflens.galaxies.reconstruct import fit_latents
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.training import Batch, Record, Trainable, batch_mean, seconds_of_training
from tflens.galaxies.vae import posterior_draws

READER = "reader"
"""The stage of the classifier, and the folder of it in that of the run."""


@dataclass(frozen=True)
class ReaderSchedule(Schedule):
    """`Schedule`, for the classifier, on distorted, blurred and noisy digits.

    Args:
        batch_size: digits a step.
        blur: largest width of the Gaussian that a digit is blurred by, pixels: reconstructions are softer than digits.
        noise: largest noise, relative to the brightest pixel.
    """

    batch_size: int = 32
    blur: float = 1.5
    noise: float = 0.1


READER_TABLES: Tables = {
    READER: lambda table: arguments_of(DigitReader.__init__),
    f"{READER}_training": lambda table: arguments_of(ReaderSchedule),
}


def read_digit_config(path: str | Path) -> Config:
    """A configuration as `read_config` reads it, with the tables `reader` (`DigitReader`) and `reader_training`
    (`ReaderSchedule`)."""
    return read_config(path, READER_TABLES)


def train_digit_model(
    config: Config, digits: Splits, directory: str | Path, reports: Reports | None = None
) -> tuple[GalaxyModel, DigitReader, Record]:
    """The model of digits as `train_galaxy_model` trains it, then the classifier.

    A run that was killed goes on where it stopped.

    Args:
        config: as `read_digit_config` returns it.
        digits: `train` and `validation`, with a `label` each.
        directory, reports: as `train_galaxy_model`.

    Returns:
        The model, the classifier, and the seconds that the epochs of each stage took.

    Raises:
        ParameterError: as `train_galaxy_model`; the galaxies have no labels.
    """
    directory = Path(directory)
    if any("label" not in split.metadata for split in digits.values()):
        raise ParameterError("the dataset must hold digits, each with its label; make one by `tflens data mnist`")
    claim(directory / READER, config)
    of_model = {name: table for name, table in config.items() if name not in READER_TABLES}
    model, seconds = train_galaxy_model(of_model, digits, directory, reports)
    reader = train_reader(config, digits, directory / READER, reports)
    return model, reader, {**seconds, READER: seconds_of_training(directory / READER)}


def train_reader(config: Config, digits: Splits, directory: Path, reports: Reports | None = None) -> DigitReader:
    """The classifier, left with the weights that read the validation digits best."""
    seed, schedule = config["seed"], ReaderSchedule(**config["reader_training"])
    keras.utils.set_random_seed(seed)
    reader = DigitReader(**config["reader"])
    reader.build()

    def batches(split: str, epoch: int) -> tf.data.Dataset:
        images, labels = _softened(digits[split], schedule, seed, epoch)
        return tf.data.Dataset.from_tensor_slices((images, labels)).batch(schedule.batch_size)

    validation = batches("validation", 0)
    train_stage(
        config,
        _Reading(reader),
        lambda epoch: batches("train", epoch),
        validation,
        directory,
        schedule,
        reports,
    )
    return reader


def measure_digits(
    config: Config, model: GalaxyModel, reader: DigitReader, digits: Dataset, snr: tuple[float, float]
) -> dict[str, float]:
    """Figures on held-out digits; those with `map_` with u found by optimisation, not by the encoder."""
    stamps, labels = digits.images, digits.metadata["label"]
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
        "relative_error": _relative_error(decoded, stamps),
        "read_right": _accuracy(reader, decoded, labels),
        "map_reduced_chi2": float(reduced_chi2(image, optimised, sigma).mean()),
        "map_relative_error": _relative_error(optimised, stamps),
        "map_read_right": _accuracy(reader, optimised, labels),
        "map_u2_per_dimension": float(tf.reduce_mean(u**2)),
        "mean_kl": float(tf.reduce_mean(tf.reduce_sum(gaussian_kl(mean, scale), -1))),
        "active_units": active_units(mean),
        "flow_nll": -float(tf.reduce_mean(model.flow.log_prob(draws))),
        "gaussian_nll": -float(tf.reduce_mean(affine.log_prob(draws))),
        "standard_normal_nll": -float(tf.reduce_mean(normal.log_prob(draws))),
    }


def measure(config: Config, model: GalaxyModel, reader: DigitReader, digits: Dataset) -> dict[str, Any]:
    """Figures on held-out digits: `held_out`, of the model at low and at high S/N, and `reader`."""
    held_out = [measure_digits(config, model, reader, digits, snr) for snr in ((20.0, 50.0), (100.0, 300.0))]
    return {"held_out": held_out, "reader": measure_reader(reader, digits)}


def measure_reader(reader: DigitReader, digits: Dataset) -> dict[str, float]:
    """Share of held-out digits read right: as they are, and blurred by Gaussians of a width in pixels."""
    stamps, labels = digits.images, digits.metadata["label"]
    blurred = {width: ndimage.gaussian_filter(stamps, (0, width, width)) for width in (0.0, 0.5, 1.0, 1.5)}
    return {"digits": len(stamps)} | {f"blur_{width}": _accuracy(reader, b, labels) for width, b in blurred.items()}


def digits_figure(model: GalaxyModel, stamps: NDArray[np.float32]) -> Figure:
    """Held-out digits, reconstructions from data of S/N 50, and draws from the prior with and without the flow."""
    count = min(16, len(stamps))
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
    return figure


class _Reading(Trainable):
    """A classifier in training: cross-entropy, and the share that it reads right."""

    def __init__(self, reader: DigitReader) -> None:
        super().__init__()
        self.reader = reader
        self.built = True

    def training_terms(self, batch: Batch, step: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._terms(batch, training=True)

    def validation_terms(self, batch: Batch) -> dict[str, tf.Tensor]:
        return self._terms(batch, training=False)

    def _terms(self, batch: Batch, training: bool) -> dict[str, tf.Tensor]:
        images, labels = batch
        logits = self.reader(images, training=training)
        right = tf.equal(tf.argmax(logits, -1, labels.dtype), labels)
        return {
            "loss": batch_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)),
            "accuracy": batch_mean(tf.cast(right, tf.float32)),
        }


def _softened(digits: Dataset, schedule: ReaderSchedule, seed: int, epoch: int) -> tuple[NDArray, NDArray]:
    """Digits in an order of the epoch, each distorted more than the model sees it, blurred and noisy; and labels."""
    rng = np.random.default_rng([seed, epoch, 1])
    images = distorted(digits.images, seed + 1, epoch, rotation=12.0, slant=0.15, stretch=0.12, shift=2.0)
    images = np.stack([ndimage.gaussian_filter(image, schedule.blur * rng.random()) for image in images])
    level = schedule.noise * rng.random(len(images)) * images.max((1, 2))
    images += level[:, None, None] * rng.standard_normal(images.shape)
    order = rng.permutation(len(images))
    return images[order].astype(np.float32), digits.metadata["label"][order].astype(np.int64)


def _relative_error(images: NDArray, truth: NDArray) -> float:
    """Median over the digits of the rms error relative to the digit's own rms, both without noise."""
    return float(np.median(np.sqrt(((images - truth) ** 2).sum((1, 2)) / (truth**2).sum((1, 2)))))


def _accuracy(reader: DigitReader, images: NDArray, labels: NDArray) -> float:
    return float(np.mean(reader.read(images).numpy().argmax(-1) == labels))
