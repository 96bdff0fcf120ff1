"""Networks and galaxies small enough for tests."""

import keras
import numpy as np
import tensorflow as tf

from tflens.galaxies.decoder import Decoder
from tflens.galaxies.encoder import Encoder

DIM, SIDE = 4, 16


def normal(*shape, seed=1):
    return tf.random.stateless_normal(shape, [seed, 0])


def disturb(network, seed=2, size=0.3):
    """Weights away from their special start (zeros, identity)."""
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        variable.assign(variable.numpy() + size * rng.normal(size=variable.shape) / np.sqrt(variable.shape[0]))
    return network


def make_encoder(**options):
    encoder = Encoder(DIM, SIDE, filters=(4, 8), hidden=8, **options)
    encoder.build()
    return encoder


def make_decoder():
    decoder = Decoder(DIM, SIDE, filters=(8, 6, 4))
    decoder.build()
    return decoder


def blobs(count, seed=5):
    """Smooth galaxies of unit sum `[count, SIDE, SIDE]`: elliptical Gaussians, each with a companion."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    images = []
    for _ in range(count):
        width, shear, dx, dy = rng.uniform(1, 2), rng.uniform(-0.5, 0.5), *rng.uniform(-3, 3, 2)
        image = np.exp(-(x**2 + y**2 + 2 * shear * x * y) / (2 * width**2))
        images.append(image + 0.3 * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 2))
    images = np.array(images, np.float32)
    return images / images.sum((1, 2), keepdims=True)


def adam(rate=1e-2, **options):
    return keras.optimizers.Adam(rate, **options)
