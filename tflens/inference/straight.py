"""Coordinates in which the bent ridges of a posterior are straight.

What data tell to a part in a thousand makes ridges that are narrow beside their length. If a parameter that is known
less well moves by a tenth, the others follow it: to first order along a line, to second order along a parabola, which
is away from the line by many times the ridge's width. No linear whitening helps a sampler there: its steps must be as
short as the ridge is narrow, while the covariance of its draws is as wide as the parabola is high.

So a sampler moves in v, with u = center + B (v + q(v)). The columns of B whiten the Gauss-Newton matrix at the optimum,
from the softest direction to the stiffest. How far the minimum along a stiff direction moves with softer ones is, to
second order, q_i = 1/2 sum_ab Q_iab v_a v_b for a, b < i, with Q_iab = -(J B_i) . F''[B_a, B_b] of the residuals F and
their Jacobian J: the geodesic acceleration of Transtrum & Sethna (2012, arXiv:1201.5885), as a map. Since each
direction is moved by softer ones alone, volumes are kept, and the density of v is that of u: nothing is approximated
but how straight the ridges become.

The latents of a network bend ridges more than to second order, and a parabola that is fitted at one end of them leads
astray: with latents q is zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.density import Density
from tflens.inference.optimize import gauss_newton, jacobian

_REACH = 0.5  # either way along each direction, in units of its width, to difference Jacobians


class Bend(NamedTuple):
    """What takes v to u; or several, with a first axis of lenses.

    Attributes:
        center: `[dim]`.
        basis: B, `[dim, dim]`.
        bending: Q, `[dim, dim, dim]`, symmetric in its last two axes, zero unless both are below the first.
    """

    center: tf.Tensor
    basis: tf.Tensor
    bending: tf.Tensor

    def to_u(self, v: tf.Tensor) -> tf.Tensor:
        """Points `[..., n, dim]`, with the axis of lenses first if there are several."""
        return self.center[..., None, :] + tf.matmul(v + 0.5 * self._turned(v, v), self.basis, transpose_b=True)

    def slope(self, v: tf.Tensor) -> tf.Tensor:
        """du / dv at one point `[dim]`, `[dim, dim]`."""
        return self.basis + tf.matmul(self.basis, tf.tensordot(self.bending, v, 1))

    def _turned(self, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        dim = one.shape[-1]
        rows = tf.reshape(self.bending, [*self.bending.shape[:-3], dim * dim, dim])
        turned = tf.matmul(one, rows, transpose_b=True)
        return tf.reduce_sum(tf.reshape(turned, [*one.shape[:-1], dim, dim]) * other[..., None, :], -1)


def bend_of(target: Density, center: tf.Tensor) -> Bend:
    """The bend of a posterior at its optimum `[dim]`; none if the model has latents, only a whitening."""
    dim, dtype = center.shape[0], center.dtype
    # The smallest eigenvalues are those of the prior, 1.
    values, vectors = tf.linalg.eigh(tf.cast(gauss_newton(target, center).curvature, tf.float64))
    basis = tf.cast(vectors * tf.math.rsqrt(tf.maximum(values, 1)), dtype)
    if target.model.latent_dim:
        return Bend(center, basis, tf.zeros([dim, dim, dim], dtype))
    along = tf.matmul(basis, jacobian(target, center), transpose_a=True)

    def bending(direction: tf.Tensor) -> tf.Tensor:
        ahead, behind = (jacobian(target, center + sign * _REACH * direction) for sign in (1, -1))
        second = tf.matmul(basis, ahead - behind, transpose_a=True) / (2 * _REACH)
        return -tf.matmul(along, second, transpose_b=True)

    found = tf.transpose(tf.map_fn(bending, tf.transpose(basis)), [1, 2, 0])
    found = 0.5 * (found + tf.transpose(found, [0, 2, 1]))
    softer = np.tril(np.ones((dim, dim)), -1)
    found = tf.where(tf.math.is_finite(found), found, 0) * tf.constant(softer[:, :, None] * softer[:, None, :], dtype)
    return Bend(center, basis, found)


def curvature(target: Density, bend: Bend, v: tf.Tensor) -> tf.Tensor:
    """The Gauss-Newton matrix by v at one point v `[dim]`."""
    slope = bend.slope(v)
    return tf.matmul(slope, gauss_newton(target, bend.to_u(v[None])[0]).curvature @ slope, transpose_a=True)


class Straight:
    """The log posteriors of a density, of one lens or of several, in straight coordinates of their own.

    Args:
        density: of u; its data, and with them the bends, may change without anything being compiled again.
    """

    def __init__(self, density: Density) -> None:
        self._density = density
        dim, dtype, lenses = density.model.dim, density.model.dtype, density.lenses
        shapes = Bend((lenses, dim), (lenses, dim, dim), (lenses, dim, dim, dim))
        self._bends = Bend(*(tf.Variable(tf.zeros(shape, dtype), trainable=False) for shape in shapes))

    def straighten(self, lens: int, center: np.ndarray) -> None:
        """Takes the coordinates of a lens from its optimum `[dim]`."""
        found = self._density.program(_bend_of)(tf.constant(lens), tf.constant(center))
        for mine, new in zip(self._bends, found, strict=True):
            mine[lens].assign(new)

    def log_prob(self, v: tf.Tensor) -> tf.Tensor:
        """Log posterior `[batch]` at points `[batch, dim]`, as many of each lens."""
        return self._density.log_prob(self.to_u(v))

    def to_u(self, v: tf.Tensor) -> tf.Tensor:
        """Points `[batch, dim]`, as many of each lens."""
        dim = v.shape[-1]
        by_lens = tf.reshape(v, [self._density.lenses, v.shape[0] // self._density.lenses, dim])
        return tf.reshape(Bend(*(tf.convert_to_tensor(each) for each in self._bends)).to_u(by_lens), v.shape)

    def draws_to_u(self, lens: int, v: np.ndarray) -> np.ndarray:
        """Draws `[chains, draws, dim]` of a lens."""
        flat = tf.constant(v.reshape(-1, v.shape[-1]))
        return self._bend(lens).to_u(flat).numpy().reshape(v.shape)

    def curvatures(self, lens: int, points: np.ndarray) -> np.ndarray:
        """Gauss-Newton matrices `[n, dim, dim]` of a lens by v, at points v `[n, dim]`."""
        one = self._density.program(_curvature)
        return np.stack([one(tf.constant(lens), self._bend(lens), tf.constant(v)).numpy() for v in points])

    def progress(self, tell: Callable[[str, float, np.ndarray], Any]) -> Callable[[str, float, np.ndarray], None]:
        """Reports points v as points u."""
        return lambda stage, fraction, v: tell(stage, fraction, self.to_u(tf.constant(v)).numpy())

    def _bend(self, lens: int) -> Bend:
        return Bend(*(each[lens] for each in self._bends))


def _bend_of(density: Density, lens: tf.Tensor, center: tf.Tensor) -> Bend:
    return bend_of(density.of(lens), center)


def _curvature(density: Density, lens: tf.Tensor, bend: Bend, v: tf.Tensor) -> tf.Tensor:
    return curvature(density.of(lens), bend, v)
