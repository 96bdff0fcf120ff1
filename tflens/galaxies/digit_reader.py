"""A frozen classifier that reads the digit in a reconstructed source."""

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops
from numpy.typing import ArrayLike

from tflens.errors import ParameterError, SavedModelError
from tflens.files import write_atomically
from tflens.galaxies.source import find_galaxy_model


@keras.saving.register_keras_serializable("tflens")
class DigitReader(keras.Model):
    """Which digit a stamp shows, whatever its flux: a convolutional network over the image in units of its own rms.

    Args:
        stamp_size: pixels on a side.
        filters: channels of each pair of convolutions, each followed by a halving of the image.
        hidden: units of the dense layer.
        dropout: share of its units dropped in training.

    Input shape: `[batch, n, n]`. Output shape: logits `[batch, 10]`.

    Example:
        >>> reader = DigitReader(stamp_size=8, filters=(4,), hidden=8)
        >>> reader.read(tf.ones((5, 3, 8, 8))).shape
        TensorShape([5, 3, 10])
    """

    def __init__(
        self,
        stamp_size: int = 32,
        filters: tuple[int, ...] = (24, 48, 96),
        hidden: int = 96,
        dropout: float = 0.4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stamp_size = stamp_size
        self.filters = tuple(filters)
        self.hidden = hidden
        self.dropout = dropout
        self.convolutions = [
            layers.Conv2D(channels, 3, padding="same", activation="silu", kernel_initializer="he_normal")
            for channels in self.filters
            for _ in range(2)
        ]
        self.pool = layers.MaxPooling2D()
        self.flatten = layers.Flatten()
        self.join = layers.Dense(hidden, activation="silu")
        self.drop = layers.Dropout(dropout, seed=0)
        self.logits = layers.Dense(10)

    def build(self, input_shape: Any = None) -> None:
        side, channels = self.stamp_size, 1
        for i, layer in enumerate(self.convolutions):
            layer.build((None, side, side, channels))
            channels = layer.filters
            side //= 1 + i % 2
        self.join.build((None, side * side * channels))
        self.logits.build((None, self.hidden))
        self.built = True

    def call(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        rms = ops.sqrt(ops.mean(image**2, (-2, -1), keepdims=True))
        x = (image / ops.maximum(rms, 1e-30))[..., None]
        for i, layer in enumerate(self.convolutions):
            x = layer(x)
            if i % 2:
                x = self.pool(x)
        x = self.join(self.drop(self.flatten(x), training=training))
        return self.logits(x)

    def read(self, images: ArrayLike) -> tf.Tensor:
        """Probabilities `[...batch, 10]` of the digits 0 to 9 for images `[...batch, n, n]` of any flux.

        Of the draws of a posterior, the mean over the draws is the probability of each digit given the data.

        Raises:
            ParameterError: the images have another size than the network.
        """
        images = tf.cast(tf.convert_to_tensor(images), tf.float32)
        side = self.stamp_size
        if images.shape.rank < 2 or images.shape[-2:] != (side, side):
            raise ParameterError(f"DigitReader.read: images must be [..., {side}, {side}], got {images.shape}")
        probabilities = tf.nn.softmax(self(tf.reshape(images, [-1, side, side])))
        return tf.reshape(probabilities, tf.concat([tf.shape(images)[:-2], [10]], 0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings()}

    def settings(self) -> dict[str, Any]:
        """The constructor's own arguments."""
        names = ("stamp_size", "filters", "hidden", "dropout")
        return {name: getattr(self, name) for name in names}

    def save_beside(self, directory: str | Path, **noted: Any) -> None:
        """Writes `reader.weights.h5` and `reader.json` into the directory of a galaxy model.

        Args:
            directory: must exist.
            noted: what else to write to `reader.json`, such as the accuracy on held-out digits.
        """
        weights = Path(directory) / "reader.weights.h5"
        write_atomically(weights, self.save_weights)
        description = {"reader": self.settings(), "sha256": _sha256(weights), **noted}
        text = json.dumps(description, indent=2) + "\n"
        write_atomically(Path(directory) / "reader.json", lambda path: path.write_text(text))


def load_digit_reader(name: str | Path = "mnist", version: int | str | None = None) -> DigitReader:
    """The frozen classifier that was saved beside a model of digits.

    Args:
        name, version: as `tflens.galaxies.load_galaxy_model` takes them.

    Raises:
        SavedModelError: there is no such model, no classifier beside it, or its files are damaged.

    Example:
        >>> reader = load_digit_reader("mnist")
        >>> reader.stamp_size
        32
    """
    directory = find_galaxy_model(name, version)
    description, weights = directory / "reader.json", directory / "reader.weights.h5"
    for path in (description, weights):
        if not path.is_file():
            raise SavedModelError(f"{path} is missing: no digit reader was saved with this model")
    try:
        noted = json.loads(description.read_text())
        reader, digest = DigitReader(**noted["reader"]), noted["sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise SavedModelError(f"{description} describes no digit reader: {type(error).__name__}: {error}") from None
    if _sha256(weights) != digest:
        raise SavedModelError(f"{weights} is not the file that reader.json was written for (its SHA-256 differs)")
    reader.build()
    try:
        reader.load_weights(weights)
    except (OSError, ValueError, KeyError) as error:
        raise SavedModelError(f"{weights} does not fit the network of reader.json: {error}") from None
    return reader


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
