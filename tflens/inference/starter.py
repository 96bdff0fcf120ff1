"""An amortised start: a network that has seen many lenses guesses, from an image, where a search should begin.

It narrows nothing but the starting points: priors and likelihood of a fit are what they were. A part of the starts
stays as broad as without it (`tflens.inference.map.draw_starts`), for lenses that the network misjudges.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens.errors import ParameterError, SavedModelError
from tflens.files import write_atomically
from tflens.galaxies.source import find_galaxy_model
from tflens.inference.mock_lenses import fitted_source, lens_model, survey
from tflens.observation import Observation

_NAME, _FORMAT, _VERSION = "starter", "tflens.starter", 1
_WEIGHTS = "starter.weights.h5"
_INFLATION = 1.3  # of the network's spread, which is that of a Gaussian without correlations
_LENGTHS = ("theta_E", "R_sersic", "center_x", "center_y", "source.scale")
_SCALES = 0.1  # how far the pixel scale, after binning, may be from the network's


@keras.saving.register_keras_serializable("tflens")
class StarterNetwork(keras.Model):
    """From images in units of their noise `[batch, ny, nx]` to mean and standard deviation of `outputs` values in the
    base space, `[batch, outputs]` each.

    Args:
        outputs: number of values.
        channels: of the convolutions, each of which halves the image.
        width: of the layer between them and the result.
    """

    def __init__(self, outputs: int, channels: tuple[int, ...] = (24, 48, 96, 96), width: int = 256, **kwargs) -> None:
        super().__init__(**kwargs)
        self.outputs_, self.channels, self.width = outputs, tuple(channels), width
        self.convolutions = [
            keras.layers.Conv2D(n, 5 if i == 0 else 3, strides=2, padding="same", activation="gelu")
            for i, n in enumerate(self.channels)
        ]
        self.flatten = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(width, activation="gelu")
        self.result = keras.layers.Dense(2 * outputs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (*input_shape, 1)
        for layer in [*self.convolutions, self.flatten, self.hidden, self.result]:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.built = True

    def call(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The lens's core is a thousand times as bright as the arcs.
        values = tf.math.asinh(images)[..., None]
        for layer in self.convolutions:
            values = layer(values)
        mean, log_scale = tf.split(self.result(self.hidden(self.flatten(values))), 2, -1)
        return mean, tf.exp(tf.clip_by_value(log_scale, -6.0, 2.0))

    def get_config(self) -> dict[str, Any]:
        return {"outputs": self.outputs_, "channels": list(self.channels), "width": self.width}


class Starter:
    """A trained `StarterNetwork` and what its numbers mean.

    It was trained on mocks, without neighbours or masked pixels, of `tflens.inference.mock_lenses.survey`, and its
    values are those of the lens model there.

    Args:
        network: with one value for each physical parameter of that model.

    Example:
        >>> starter = Starter(StarterNetwork(17))
        >>> starter.names[:2], starter.shape
        (('lens.theta_E', 'lens.gamma'), (52, 54))
    """

    def __init__(self, network: StarterNetwork) -> None:
        self.network = network
        self.model = lens_model(fitted_source("normal"))
        self.shape, self.pixel_scale = survey().grid.shape, survey().grid.pixel_scale
        if not network.built:
            network.build((None, *self.shape))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters that are guessed."""
        return self.model.names

    def guess(self, images: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Mean and standard deviation `[batch, parameters]` in the base space, of images over noise
        `[batch, ny, nx]`."""
        mean, scale = self.network(tf.constant(images, tf.float32))
        return mean.numpy(), scale.numpy()

    def draw(
        self, observation: Observation, center: tuple[float, float], n: int, rng: np.random.Generator
    ) -> dict[str, NDArray[np.floating]]:
        """Values `[n]` of each parameter, by name, for a lens at `center` (arcsec).

        Raises:
            ParameterError: the image's pixels cannot be binned to the network's.
        """
        image, middle = self.frame(observation, center)
        mean, scale = self.guess(image[None])
        u = np.zeros((n, self.model.dim), np.float32)
        u[:, : self.model.physical_dim] = mean + _INFLATION * scale * rng.standard_normal((n, mean.shape[1]))
        values = {name: value.numpy() for name, value in self.model.physical(tf.constant(u)).items()}
        binned = observation.grid.pixel_scale * self._factor(observation) / self.pixel_scale
        for name in values:
            if name.endswith(_LENGTHS):
                values[name] = values[name] * binned
            if name.endswith(("center_x", "center_y")):
                values[name] = values[name] + middle["xy".index(name[-1])]
        return values

    def frame(
        self, observation: Observation, center: tuple[float, float]
    ) -> tuple[NDArray[np.float64], tuple[float, float]]:
        """The image over its noise as the network takes it, `[ny, nx]`, binned, around the lens, and 0 where there is
        none; and where its middle lies, arcsec.

        Raises:
            ParameterError: no whole number of pixels makes one of the network's, within a tenth.
        """
        scale, factor = observation.grid.pixel_scale, self._factor(observation)
        if abs(factor * scale / self.pixel_scale - 1) > _SCALES:
            raise ParameterError(
                f"start: the network knows pixels of {self.pixel_scale} arcsec, and {observation.name!r} has pixels of "
                f"{scale} arcsec, of which no whole number makes one (within {_SCALES:.0%}); take the start 'broad'"
            )
        x, y = observation.grid.coordinates()
        ny, nx = (size * factor for size in self.shape)
        # An even number of pixels has its middle between two of them: the nearest such place, not the nearest pixel.
        half = [scale / 2 * (size % 2 == 0) for size in (nx, ny)]
        row = int(np.argmin(np.abs(y[:, 0] - half[1] - center[1])))
        column = int(np.argmin(np.abs(x[0] - half[0] - center[0])))
        image = np.where(observation.mask, observation.image, 0.0)
        variance = np.where(observation.mask, observation.noise**2, 0.0)
        padded = [np.pad(each, ((ny, ny), (nx, nx))) for each in (image, variance)]
        rows, columns = (
            slice(row + ny - ny // 2, row + 2 * ny - ny // 2),
            slice(column + nx - nx // 2, column + 2 * nx - nx // 2),
        )
        binned, variance = (
            each[rows, columns].reshape(self.shape[0], factor, self.shape[1], factor).sum((1, 3)) for each in padded
        )
        framed = np.where(variance > 0, binned / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
        return framed, (float(x[0, column] - half[0]), float(y[row, 0] - half[1]))

    def _factor(self, observation: Observation) -> int:
        """Pixels along a side of one of the network's."""
        return max(1, round(self.pixel_scale / observation.grid.pixel_scale))

    def save(self, folder: str | Path, training: Mapping[str, Any] | None = None) -> None:
        """Writes `config.json` and `starter.weights.h5` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _WEIGHTS, self.network.save_weights)
        digest = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
        config = {"format": _FORMAT, "version": _VERSION, "network": self.network.get_config(), "sha256": digest}
        config |= training or {}
        write_atomically(folder / "config.json", lambda path: path.write_text(json.dumps(config, indent=1) + "\n"))

    @classmethod
    def load(cls, name: str | Path = _NAME, version: int | str | None = None) -> "Starter":
        """A shipped network by its name, or one by its folder.

        Raises:
            SavedModelError: there is none, or it cannot be loaded.
        """
        folder = find_galaxy_model(name, version)
        try:
            config = json.loads((folder / "config.json").read_text())
            if (config.get("format"), config.get("version")) != (_FORMAT, _VERSION):
                raise SavedModelError(f"{folder / 'config.json'} is not of a {_FORMAT}, version {_VERSION}")
            if hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest() != config["sha256"]:
                raise SavedModelError(f"{folder / _WEIGHTS} is not the file that config.json was written for")
            starter = cls(StarterNetwork(**config["network"]))
            starter.network.load_weights(folder / _WEIGHTS)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SavedModelError(f"{folder}: the starter cannot be loaded: {error}") from error
        return starter
