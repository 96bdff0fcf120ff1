"""What the processes of `test_training_workers` train."""

import keras
import numpy as np
import tensorflow as tf

from tflens.galaxies.training import Trainable, batch_mean, shared_normal, train


class NoisyLine(Trainable):
    """Least squares in one weight, of data with noise that depends on the step."""

    def __init__(self):
        super().__init__()
        self.slope = self.add_weight(shape=(), initializer="zeros", name="slope")
        self.built = True

    def training_terms(self, batch, step):
        noise = 0.1 * shared_normal(tf.shape(batch), tf.stack([step, 1]))
        return {"loss": batch_mean((self.slope * batch[:, 0] - batch[:, 1] - noise[:, 0]) ** 2)}

    def validation_terms(self, batch):
        return {"loss": batch_mean((self.slope * batch[:, 0] - batch[:, 1]) ** 2)}


def noisy_line(directory, epochs):
    """History and weights. No seed of the process changes the order of the batches: all processes need the same."""
    points = np.random.default_rng(1).normal(size=(19, 2)).astype(np.float32)
    points[:, 1] += 2 * points[:, 0]
    batches = lambda epoch: tf.data.Dataset.from_tensor_slices(np.roll(points, 3 * epoch, 0)).batch(8)  # noqa: E731
    model = NoisyLine()
    model.compile(optimizer=keras.optimizers.Adam(0.05, global_clipnorm=1.0))
    history = train(model, batches, batches(0), directory, epochs)
    return history, [float(tf.convert_to_tensor(model.slope))]


def autoencoder(directory, epochs):
    from test_training import clipped_run

    history, weights = clipped_run(directory)
    return history, [float(weight) for weight in weights]
