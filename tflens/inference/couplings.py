"""A map that straightens the ridges of a posterior, learned from where its sampler has been.

What an image tells of a galaxy to a part in a hundred, the height and the place of its brightest peak, is a function
of all latents together: the posterior is narrow in a direction that turns from place to place, and a sampler's steps
must be as short as it is narrow. No linear map helps. Additive couplings do (Dinh et al. 2015, arXiv:1410.8516): each
layer moves one half of the coordinates by what a small network says of the other half. Volumes are kept and the inverse
is explicit, so that the density of v is that of w, whatever the networks say: nothing is approximated but how straight
the ridges become.

They are learned by making the density of v as round as they can: the mean over visited points of the trace of its
Fisher matrix and of |v|^2 is least for a unit Gaussian (the Fisher divergence from it, Hyvarinen 2005, JMLR 6, 695).
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

LAYERS, HIDDEN = 6, 64
_STEPS, _BATCH, _LEARNING_RATE = 800, 64, 2e-3


class Couplings(NamedTuple):
    """The weights of the layers' networks, with one hidden layer more than they have inputs and outputs; or of several
    maps, with a first axis of lenses.

    Attributes:
        first: `[layers, dim, hidden]`.
        first_bias: `[layers, 1, hidden]`.
        second: `[layers, hidden, hidden]`.
        second_bias: `[layers, 1, hidden]`.
        last: `[layers, hidden, dim]`.
        last_bias: `[layers, 1, dim]`.
    """

    first: tf.Tensor
    first_bias: tf.Tensor
    second: tf.Tensor
    second_bias: tf.Tensor
    last: tf.Tensor
    last_bias: tf.Tensor

    def forward(self, v: tf.Tensor) -> tf.Tensor:
        """w `[..., n, dim]` of points v `[..., n, dim]`, with the axis of lenses first if there are several."""
        for layer, moved in enumerate(_moved(v.shape[-1])):
            v = v + self._shift(layer, moved, v)
        return v

    def inverse(self, w: tf.Tensor) -> tf.Tensor:
        """v of points w, as `forward`."""
        moved = _moved(w.shape[-1])
        for layer in reversed(range(LAYERS)):
            w = w - self._shift(layer, moved[layer], w)
        return w

    def _shift(self, layer: int, moved: np.ndarray, x: tf.Tensor) -> tf.Tensor:
        first, first_bias, second, second_bias, last, last_bias = (each[..., layer, :, :] for each in self)
        moved = tf.constant(moved, x.dtype)
        x = tf.nn.silu(tf.matmul(x * (1 - moved), first) + first_bias)
        x = tf.nn.silu(tf.matmul(x, second) + second_bias)
        return (tf.matmul(x, last) + last_bias) * moved


def unlearned(dim: int, rng: np.random.Generator) -> Couplings:
    """Couplings that move nothing, in float64, to begin to learn from."""
    return Couplings(
        first=rng.standard_normal((LAYERS, dim, HIDDEN)) * np.sqrt(2 / dim),
        first_bias=np.zeros((LAYERS, 1, HIDDEN)),
        second=rng.standard_normal((LAYERS, HIDDEN, HIDDEN)) * np.sqrt(2 / HIDDEN),
        second_bias=np.zeros((LAYERS, 1, HIDDEN)),
        last=np.zeros((LAYERS, HIDDEN, dim)),
        last_bias=np.zeros((LAYERS, 1, dim)),
    )


class Teacher:
    """The program that learns couplings of a given dimension, compiled once.

    Args:
        dim: number of coordinates.
        dtype: of the coordinates.
    """

    def __init__(self, dim: int, dtype: str = "float32") -> None:
        start = unlearned(dim, np.random.default_rng(0))
        self._weights = Couplings(*(tf.Variable(each, dtype=dtype) for each in start))
        rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, _STEPS)
        self._optimizer = keras.optimizers.Adam(rate)
        self._optimizer.build(list(self._weights))
        self._slopes = tf.function(self._loss_and_slopes, autograph=False, jit_compile=True)
        self._step = tf.function(self._take_step, autograph=False)

    def learn(self, w: np.ndarray, slopes: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> Couplings:
        """Couplings in which a density is nearly a unit Gaussian.

        Args:
            w: points `[n, dim]` where it has its mass.
            slopes: at each of them, of what the data know best, `[n, k, dim]`: the Fisher matrix of the data is the sum
                of their outer products, or a little more.
            prior: a factor `[m, dim]` of that of the prior, its transpose times itself.
            rng: of where the learning begins, and of its batches.
        """
        for mine, new in zip(self._weights, unlearned(w.shape[-1], rng), strict=True):
            mine.assign(new)
        for variable in self._optimizer.variables:
            variable.assign(tf.zeros_like(variable))
        points, slopes, prior = (tf.constant(each, self._weights.first.dtype) for each in (w, slopes, prior))
        for _ in range(_STEPS):
            batch = tf.constant(rng.integers(0, len(w), _BATCH), tf.int32)
            # One random direction for all of the prior's: its square is the trace, on the average (Hutchinson 1989).
            direction = tf.constant(rng.standard_normal((_BATCH, prior.shape[0])), prior.dtype)
            self._step(tf.gather(points, batch), tf.gather(slopes, batch), tf.matmul(direction, prior))
        learned = Couplings(*(each.numpy() for each in self._weights))
        if all(np.isfinite(each).all() for each in learned):
            return learned
        return unlearned(w.shape[-1], rng)  # a sampler that knows no better coordinates still samples

    def _take_step(self, w: tf.Tensor, slopes: tf.Tensor, prior: tf.Tensor) -> None:
        weights = list(self._weights)
        self._optimizer.apply_gradients(zip(self._slopes(w, slopes, prior), weights, strict=True))

    def _loss_and_slopes(self, w: tf.Tensor, slopes: tf.Tensor, prior: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = roughness(Couplings(*map(tf.convert_to_tensor, self._weights)), w, slopes, prior)
        return tape.gradient(loss, list(self._weights))


def roughness(couplings: Couplings, w: tf.Tensor, slopes: tf.Tensor, prior: tf.Tensor) -> tf.Tensor:
    """What is learned to be small: the mean of |v|^2 and of the squares of the slopes by v.

    Args:
        couplings: of one lens.
        w: `[n, dim]`.
        slopes: by w, `[n, k, dim]`.
        prior: one slope more, `[n, dim]`.
    """
    slopes = tf.concat([slopes, prior[:, None]], 1)
    v = couplings.inverse(w)
    lanes = tf.repeat(v, slopes.shape[1], 0)
    with tf.GradientTape() as tape:
        tape.watch(lanes)
        along = tf.reduce_sum(couplings.forward(lanes) * tf.reshape(slopes, lanes.shape))
    squares = tf.reshape(tape.gradient(along, lanes) ** 2, slopes.shape)
    return tf.reduce_mean(tf.reduce_sum(squares, [1, 2]) + tf.reduce_sum(v**2, 1))


def _moved(dim: int) -> list[np.ndarray]:
    """Which coordinates each layer moves: one half in three different ways, and then the other."""
    number = np.arange(dim)
    # The stiffest coordinates come first: the first layer moves them by what the others say.
    halves = [(number < dim // 2).astype(float), (number % 2).astype(float), (number // 2 % 2).astype(float)]
    return [each for half in halves for each in (half, 1 - half)]
