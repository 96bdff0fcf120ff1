"""A map that straightens the ridges of a posterior, learned from where its sampler has been.

What an image tells best of a galaxy, the height and the place of its brightest peak, is a function of all latents
together: the posterior is narrow in a direction that turns from place to place, and a sampler's steps must be as short
as it is narrow. No linear map helps. Additive couplings do (Dinh et al. 2015, arXiv:1410.8516): each
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

from tflens.inference.hmc import draw_seed

LAYERS, HIDDEN = 6, 64
_STEPS, _BATCH, _LEARNING_RATE = 800, 64, 2e-3


class Couplings(NamedTuple):
    """A map from v to w, both without units: the weights of its layers' networks, which have two hidden layers each. Or
    several maps, with a first axis of lenses.

    Every layer takes and gives all coordinates, masked, so that one array holds the weights of all of them.

    Example:
        >>> couplings = Couplings(*map(tf.constant, unlearned(3, np.random.default_rng(0))))
        >>> v = tf.ones([2, 3], tf.float64)
        >>> bool(tf.reduce_all(couplings.inverse(couplings.forward(v)) == v))
        True

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
        self._fresh = [variable.numpy() for variable in self._optimizer.variables]
        self._slopes = tf.function(self._loss_and_slopes, autograph=False, jit_compile=True)
        self._descend = tf.function(self._take_steps, autograph=False)

    def learn(self, w: np.ndarray, slopes: np.ndarray, prior: np.ndarray, rng: np.random.Generator) -> Couplings:
        """Couplings in which a density is nearly a unit Gaussian.

        Args:
            w: points `[n, dim]` where it has its mass.
            slopes: at each of them, of what the data know best, `[n, k, dim]`: the Fisher matrix of the data is the sum
                of their outer products, or a little more. Where they are not finite, nothing is learned.
            prior: a factor `[m, dim]` of that of the prior, its transpose times itself.
            rng: of where the learning begins, and of its batches.

        Returns:
            In NumPy, of the type of the coordinates.
        """
        for mine, new in zip(self._weights, unlearned(w.shape[-1], rng), strict=True):
            mine.assign(new)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        known = (tf.constant(each, self._weights.first.dtype) for each in (w, slopes, prior))
        self._descend(*known, draw_seed(rng))
        return Couplings(*(each.numpy() for each in self._weights))

    def _take_steps(self, w: tf.Tensor, slopes: tf.Tensor, prior: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        weights = list(self._weights)

        def body(i: tf.Tensor) -> list[tf.Tensor]:
            batch = tf.random.stateless_uniform([_BATCH], seed + tf.stack([i, 0]), maxval=w.shape[0], dtype=tf.int32)
            # One random direction for all of the prior's: its square is the trace, on the average (Hutchinson 1989).
            shape = [_BATCH, prior.shape[0]]
            direction = tf.random.stateless_normal(shape, seed + tf.stack([i, 1]), dtype=prior.dtype)
            found = self._slopes(tf.gather(w, batch), tf.gather(slopes, batch), tf.matmul(direction, prior))
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in found])
            self._optimizer.apply([tf.where(finite, each, tf.zeros_like(each)) for each in found], weights)
            return [i + 1]

        return tf.while_loop(lambda i: i < _STEPS, body, [tf.constant(0)])[0]

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

    Returns:
        A number; 2 dim for a unit Gaussian whose Fisher matrix the slopes are.
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
