"""The smallest model that the loop of every training trains."""

from typing import Any

import tensorflow as tf

from tflens.galaxies.training import Trainable, batch_mean


class Line(Trainable):
    """Least squares in one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = self.add_weight(shape=(), initializer="zeros", name="slope")
        self.built = True

    def training_terms(self, batch: Any, step: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"loss": batch_mean((self.slope * batch[:, 0] - batch[:, 1]) ** 2)}

    def validation_terms(self, batch: Any) -> dict[str, tf.Tensor]:
        return self.training_terms(batch, 0)
