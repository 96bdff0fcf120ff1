"""Training of the amortised start, on mocks that are drawn as it goes: no lens is ever seen twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tflens.files import write_atomically
from tflens.inference.mock_lenses import fitted_source, lens_model, survey
from tflens.inference.starter import Starter, StarterNetwork
from tflens.model import LensTarget
from tflens.observation import Observation


class Examples(NamedTuple):
    """Mocks for the network: images over their noise `[batch, ny, nx]`, and the truth in the base space
    `[batch, parameters]`."""

    images: tf.Tensor
    truth: tf.Tensor


class MockStream:
    """Mocks of `Survey.draw`'s kind, many at once and quickly: pixels are sampled 2 x 2 times, sources are draws of the
    galaxy model's prior.

    Args:
        batch: mocks at a time.
        galaxies: name of the galaxy model.
    """

    def __init__(self, batch: int = 64, galaxies: str = "galaxies") -> None:
        self.batch, self.survey = batch, survey()
        self.model = lens_model(fitted_source("flow", galaxies))
        grid = self.survey.grid
        anything = np.random.default_rng(0).standard_normal(grid.shape)
        blank = Observation(anything, np.ones(grid.shape), self.survey.psf, grid.pixel_scale)
        self.target = LensTarget(self.model, blank, supersampling=2)
        self._draw = tf.function(self._examples, autograph=False)

    def draw(self, seed: int, step: int) -> Examples:
        """Batch `step` of the stream `seed`."""
        return self._draw(tf.constant([seed, step], tf.int32))

    def noiseless(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images before their noise, and its standard deviation, `[batch, ny, nx]` each, of a batch's seed."""
        seeds = tf.unstack(tf.random.split(seed, 3))
        u = tf.random.stateless_normal([self.batch, self.model.dim], seeds[0])
        light, arcs = tf.unstack(self.target.component_images(u, tf.ones([self.batch, 3]))[:, :2], axis=1)
        ratios, signals = tf.unstack(tf.random.stateless_uniform([2, self.batch, 1, 1], seeds[1]))
        signal = _log_uniform(signals, self.survey.peak_snr)
        arcs *= signal / tf.reduce_max(arcs, [1, 2], keepdims=True)
        whole = tf.reduce_sum(arcs, [1, 2], keepdims=True) / tf.reduce_sum(light, [1, 2], keepdims=True)
        light *= _log_uniform(ratios, self.survey.lens_flux) * whole
        return light + arcs, tf.sqrt(self.survey.sky + (1 - self.survey.sky) * (light + arcs) / signal)

    def _examples(self, seed: tf.Tensor) -> Examples:
        seeds = tf.unstack(tf.random.split(seed, 3))
        image, noise = self.noiseless(seed)
        image += noise * tf.random.stateless_normal(tf.shape(noise), seeds[2])
        u = tf.random.stateless_normal([self.batch, self.model.dim], seeds[0])
        return Examples(image / noise, u[:, : self.model.physical_dim])


def _log_uniform(uniform: tf.Tensor, bounds: tuple[float, float]) -> tf.Tensor:
    low, high = np.log(bounds)
    return tf.exp(low + (high - low) * uniform)


def negative_log_likelihood(network: StarterNetwork, examples: Examples) -> tf.Tensor:
    """Mean over examples and parameters, in nats: 1.419 for a network that says N(0, 1)."""
    mean, scale = network(examples.images)
    square = ((examples.truth - mean) / scale) ** 2
    return tf.reduce_mean(0.5 * square + tf.math.log(scale) + 0.5 * np.log(2 * np.pi))


def train(
    folder: str | Path,
    steps: int,
    seed: int = 1,
    batch: int = 64,
    learning_rate: float = 1e-3,
    tell: Callable[[int, float], None] = lambda step, loss: None,
    every: int = 100,
) -> Starter:
    """Trains a network; a run that was killed goes on where its last checkpoint, of every `every` steps, was written.

    Args:
        folder: of checkpoint, TensorBoard's events, and at last the network.
        steps: of Adam, one batch each; the learning rate falls to 0 by a cosine.
        seed: of the mocks and of the network's first weights.
        batch: mocks a step.
        learning_rate: at the beginning.
        tell: told of the mean loss since the last time.
        every: steps between two times.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    stream = MockStream(batch)
    starter = Starter(StarterNetwork(stream.model.physical_dim))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps), clipnorm=1.0)
    optimizer.build(starter.network.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    kept = tf.train.CheckpointManager(
        tf.train.Checkpoint(network=starter.network, optimizer=optimizer, done=done), folder / "checkpoint", 2
    )
    kept.restore_or_initialize()

    @tf.function(autograph=False)
    def learn(examples: Examples) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = negative_log_likelihood(starter.network, examples)
        variables = starter.network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    events = tf.summary.create_file_writer(str(folder / "events"))
    losses: list[tf.Tensor] = []
    for step in range(int(done), steps):
        losses.append(learn(stream.draw(seed, step)))
        if (step + 1) % every == 0 or step + 1 == steps:
            loss = float(tf.reduce_mean(tf.stack(losses)))
            losses.clear()
            done.assign(step + 1)
            kept.save()
            with events.as_default(step=step + 1):
                tf.summary.scalar("negative log likelihood", loss)
            tell(step + 1, loss)
    events.close()
    starter.save(folder, {"training": {"steps": steps, "seed": seed, "batch": batch, "learning_rate": learning_rate}})
    return starter


def measure(starter: Starter, batches: int = 8, seed: int = 1_000_003) -> list[dict[str, Any]]:
    """How good its guesses are on mocks that it was not trained on, parameter by parameter.

    Returns:
        Of each: `explained`, the share of the prior's variance that the guess explains; `z_std`, the standard deviation
        of (truth - mean) / scale; `error`, the median absolute error of theta_E relative to the truth, for that alone.
    """
    stream = MockStream()
    found = [stream.draw(seed, i) for i in range(batches)]
    truth = np.concatenate([each.truth.numpy() for each in found])
    guesses = [starter.guess(each.images.numpy()) for each in found]
    mean, scale = (np.concatenate([each[i] for each in guesses]) for i in range(2))
    rows = []
    for i, name in enumerate(starter.names):
        rows.append(
            {
                "name": name,
                "explained": float(1 - np.var(truth[:, i] - mean[:, i]) / np.var(truth[:, i])),
                "z_std": float(np.std((truth[:, i] - mean[:, i]) / scale[:, i])),
            }
        )
    padding = np.zeros((len(truth), starter.model.dim - truth.shape[1]))
    values = [
        starter.model.physical(tf.constant(np.concatenate([u, padding], 1), tf.float32))["lens.theta_E"].numpy()
        for u in (truth, mean)
    ]
    rows[0]["error"] = float(np.median(np.abs(values[1] / values[0] - 1)))
    return rows


def write_measured(rows: list[dict[str, Any]], folder: str | Path) -> None:
    """Keeps what `measure` found beside the network, as `measured.json`."""
    write_atomically(Path(folder) / "measured.json", lambda path: path.write_text(json.dumps(rows, indent=1) + "\n"))
