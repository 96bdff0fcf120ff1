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
astray: with latents q is zero at first, and then what is learned from where a sampler has been (`couplings`), with the
same two properties.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.bands import BandsTarget
from tflens.density import Density
from tflens.inference.couplings import Couplings, Teacher, unlearned
from tflens.inference.metric import metric_of
from tflens.inference.optimize import gauss_newton, jacobian, slopes_of

_REACH = 0.5  # either way along each direction, in units of its width, to difference Jacobians

# Of what is learned: where Jacobians tell the patterns in the image that are known best, how many of them, and at how
# many points their slopes are computed, around draws by so much of the posterior's width.
_PLACES, _PATTERNS, _POINTS, _AROUND = 24, 8, 768, 0.1
_AT_ONCE = 4


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
        return self.line(v + 0.5 * self._turned(v, v))

    def line(self, v: tf.Tensor) -> tf.Tensor:
        """What `to_u` would give without bending."""
        return self.center[..., None, :] + tf.matmul(v, self.basis, transpose_b=True)

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
        density: of u; its data, and with them the coordinates, may change without anything being compiled again.

    Attributes:
        learns: whether there is something to `learn`: a model with latents, in one band.
    """

    def __init__(self, density: Density) -> None:
        self._density = density
        dim, dtype, lenses = density.model.dim, density.model.dtype, density.lenses
        shapes = Bend((lenses, dim), (lenses, dim, dim), (lenses, dim, dim, dim))
        self._bends = Bend(*(tf.Variable(tf.zeros(shape, dtype), trainable=False) for shape in shapes))
        self._slope = tf.function(self._to_u_and_slope, autograph=False)
        self.learns = bool(density.model.latent_dim) and not isinstance(density, BandsTarget)
        if self.learns:
            self._unlearned = unlearned(dim, np.random.default_rng(0))
            self._couplings = Couplings(
                *(tf.Variable(np.stack([each] * lenses), dtype=dtype, trainable=False) for each in self._unlearned)
            )
            self._teacher = Teacher(dim, dtype)

    def straighten(self, lens: int, center: np.ndarray) -> None:
        """Takes the coordinates of a lens from its optimum `[dim]`; what was learned of another one is forgotten."""
        found = self._density.program(_bend_of)(tf.constant(lens), tf.constant(center))
        self._take(lens, found, self._unlearned if self.learns else ())

    def learn(self, lens: int, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Learns better coordinates of a lens, see `couplings`; `log_prob` and all else is in them from then on.

        Args:
            lens: its number.
            v: points `[n, dim]` where its sampler has been.
            rng: of what is learned.

        Returns:
            The points in the new coordinates, `[n, dim]`.
        """
        u = self.draws_to_u(lens, v[None])[0].astype(np.float64)
        jacobians = [self._jacobian(lens, each) for each in rng.choice(u, _PLACES)]
        curvatures = np.stack([each.astype(np.float64) @ each.T for each in jacobians]) + np.eye(u.shape[-1])
        basis = metric_of(u, curvatures, 1.0).whitening.numpy()
        basis = basis @ np.linalg.eigh(basis.T @ curvatures.mean(0) @ basis)[1][:, ::-1]
        points = rng.choice(u, _POINTS) + _AROUND * rng.standard_normal((_POINTS, len(basis))) @ basis.T
        slopes = self._slopes(lens, points, _patterns(basis, jacobians))
        center = u.mean(0)
        to_w = np.linalg.inv(basis).T
        couplings = self._teacher.learn((points - center) @ to_w, slopes @ basis, basis, rng)
        self._take(lens, (center, basis, np.zeros(self._bends.bending.shape[1:])), couplings)
        return couplings.inverse(tf.constant((u - center) @ to_w, self._density.model.dtype)).numpy()

    def log_prob(self, v: tf.Tensor) -> tf.Tensor:
        """Log posterior `[batch]` at points `[batch, dim]`, as many of each lens."""
        return self._density.log_prob(self.to_u(v))

    def to_u(self, v: tf.Tensor) -> tf.Tensor:
        """Points `[batch, dim]`, as many of each lens."""
        lenses = self._density.lenses
        if lenses == 1:
            return self._of_lens(0, v)  # without an axis of lenses, over which products are slow
        by_lens = tf.reshape(v, [lenses, v.shape[0] // lenses, v.shape[-1]])
        return tf.reshape(self._of_lens(slice(None), by_lens), v.shape)

    def draws_to_u(self, lens: int, v: np.ndarray) -> np.ndarray:
        """Draws `[chains, draws, dim]` of a lens."""
        return self._of_lens(lens, tf.constant(v.reshape(-1, v.shape[-1]))).numpy().reshape(v.shape)

    def curvatures(self, lens: int, points: np.ndarray) -> np.ndarray:
        """Gauss-Newton matrices `[n, dim, dim]` of a lens by v, at points v `[n, dim]`."""
        found = []
        for v in points:
            u, slope = (each.numpy() for each in self._slope(tf.constant(lens), tf.constant(v)))
            slopes = slope.T.astype(np.float64) @ self._jacobian(lens, u)
            found.append(slopes @ slopes.T + slope.T @ slope)
        return np.stack(found)

    def progress(self, tell: Callable[[str, float, np.ndarray], Any]) -> Callable[[str, float, np.ndarray], None]:
        """Reports points v as points u."""
        return lambda stage, fraction, v: tell(stage, fraction, self.to_u(tf.constant(v)).numpy())

    def _take(self, lens: int, bend: Sequence[Any], couplings: Sequence[Any]) -> None:
        variables = [*self._bends, *(self._couplings if self.learns else ())]
        for mine, new in zip(variables, [*bend, *couplings], strict=True):
            mine[lens].assign(tf.cast(new, mine.dtype))

    def _of_lens(self, lens: int | slice | tf.Tensor, v: tf.Tensor) -> tf.Tensor:
        """Points `[n, dim]` of one lens; or of all, `[lenses, n, dim]`."""
        bend = Bend(*(each[lens] for each in self._bends))
        if not self.learns:
            return bend.to_u(v)
        return bend.line(Couplings(*(each[lens] for each in self._couplings)).forward(v))

    def _to_u_and_slope(self, lens: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """u `[dim]` of one point v, and du / dv."""
        v = v[None]
        with tf.GradientTape() as tape:
            tape.watch(v)
            u = self._of_lens(lens, v)
        return u[0], tape.batch_jacobian(u, v)[0]

    def _jacobian(self, lens: int, u: np.ndarray) -> np.ndarray:
        """Derivatives `[dim, residuals]` at one point u."""
        u = tf.constant(u, self._density.model.dtype)
        return self._density.program(_jacobian)(tf.constant(lens), u).numpy()

    def _slopes(self, lens: int, points: np.ndarray, patterns: np.ndarray) -> np.ndarray:
        """`optimize.slopes_of` at points `[n, dim]` of each of the patterns, `[n, k, dim]`, float64."""
        dtype = self._density.model.dtype
        one = self._density.program(_slopes)
        together = tf.constant(np.tile(patterns, (_AT_ONCE, 1)), dtype)
        found = [
            one(tf.constant(lens), tf.constant(np.repeat(each, len(patterns), 0), dtype), together).numpy()
            for each in np.split(points, len(points) // _AT_ONCE)
        ]
        return np.concatenate(found).reshape(len(points), len(patterns), -1).astype(np.float64)


def _patterns(basis: np.ndarray, jacobians: Sequence[np.ndarray]) -> np.ndarray:
    """What changes most in the residuals, `[k, residuals]`, along the columns of a basis."""
    strongest = []
    for each in jacobians:
        along = basis.T @ each
        strongest.append(np.linalg.eigh(along @ along.T)[1][:, : -_PATTERNS - 1 : -1].T @ along)
    return np.linalg.svd(np.concatenate(strongest), full_matrices=False)[2][:_PATTERNS]


def _bend_of(density: Density, lens: tf.Tensor, center: tf.Tensor) -> Bend:
    return bend_of(density.of(lens), center)


def _jacobian(density: Density, lens: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    return jacobian(density.of(lens), u)


def _slopes(density: Density, lens: tf.Tensor, u: tf.Tensor, patterns: tf.Tensor) -> tf.Tensor:
    return slopes_of(density.of(lens), u, patterns)
