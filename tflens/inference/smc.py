"""Tempered sequential Monte Carlo: particles from a known density to the posterior, in steps that they can follow.

For posteriors of several modes, between which chains do not move, and for the evidence. Particles are drawn from a
reference density, reweighted and resampled as the posterior takes its place by and by, and moved by Hamiltonian Monte
Carlo at every temperature (Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411; Neal 2001, Stat. Comput. 11,
125). Temperatures are chosen on the way (Jasra et al. 2011, Scand. J. Stat. 38, 1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import special

from tflens.errors import ParameterError
from tflens.inference import hmc
from tflens.inference.metric import whitening
from tflens.inference.progress import Progress, silent

# Below this, particles do not get around at their temperature, and stay where resampling has put them.
ACCEPTANCE_LOW = 0.3

_BLOCK = 64  # particles that move together
_TRANSITIONS = 3  # at every temperature
_EFFECTIVE = 0.5  # of the particles, after a change of temperature
_TARGET_ACCEPTANCE = 0.8
_QUARTER = np.pi / 2  # of the period of a unit Gaussian, which the particles are in their whitened coordinates
_FIRST_STEP = 0.5
_LAST_CHUNKS = 2  # of transitions, after the last resampling
_MOST_TEMPERATURES = 1000
_HOPELESS = 20.0  # nats below the best optimum
_SAME = 5.0  # posterior widths


class Reference(NamedTuple):
    """A mixture of Gaussians of equal weights, from which particles start.

    Attributes:
        mean: `[modes, dim]`.
        factor: lower Cholesky factors of their covariances, `[modes, dim, dim]`.
    """

    mean: np.ndarray
    factor: np.ndarray


class Particles(NamedTuple):
    """Draws of equal weight, and the evidence.

    Attributes:
        u: `[islands, particles, dim]`.
        log_prob: log posterior density there, as it was given, `[islands, particles]`.
        acceptance: mean probability with which the last moves of each were accepted, `[islands, particles]`.
        diverging: whether one of its last trajectories diverged, `[islands, particles]`.
        log_evidence: log of the integral of the posterior density, nats.
        log_evidence_error: its standard error, from the scatter of the islands, which are reweighted and resampled
            each by itself (but share temperatures and step sizes).
        temperatures: powers of the posterior, from 0 to 1, `[steps + 1]`.
        acceptances: mean acceptance of moves at each of them, `[steps]`.
        step_size: of the last moves, in whitened units.
        leapfrog_steps: mean number a transition of the last moves.
        gradients: gradient evaluations of all particles together.
    """

    u: np.ndarray
    log_prob: np.ndarray
    acceptance: np.ndarray
    diverging: np.ndarray
    log_evidence: float
    log_evidence_error: float
    temperatures: np.ndarray
    acceptances: np.ndarray
    step_size: float
    leapfrog_steps: float
    gradients: int


class Sampler:
    """A log density, bridged from a reference, and the compiled programs that move particles along.

    Args:
        log_prob: of `[particles, dim]`, returning `[particles]`; its integral is the evidence, so constants count.
        dim: number of coordinates.
        dtype: of the coordinates.
        modes: Gaussians that a reference has at most.
    """

    def __init__(
        self, log_prob: Callable[[tf.Tensor], tf.Tensor], dim: int, dtype: Any = "float32", modes: int = 1
    ) -> None:
        self.log_prob, self.dim, self.modes = log_prob, dim, modes
        self.dtype = tf.as_dtype(dtype).as_numpy_dtype
        self.temperature = tf.Variable(0.0, dtype=dtype, trainable=False)
        self._mean = tf.Variable(np.zeros((modes, dim)), dtype=dtype, trainable=False)
        self._inverse = tf.Variable(np.zeros((modes, dim, dim)), dtype=dtype, trainable=False)
        self._log_height = tf.Variable(np.zeros(modes), dtype=dtype, trainable=False)
        self.mover = hmc.Sampler(self._tempered, dim, dtype, _TRANSITIONS)
        self._score = tf.function(self._both, autograph=False)

    def begin(self, reference: Reference) -> None:
        """Takes another reference; what it has less than `modes` is filled up by components of no weight."""
        here = len(reference.mean)
        last = np.minimum(np.arange(self.modes), here - 1)
        inverse = np.linalg.inv(reference.factor)
        log_height = np.linalg.slogdet(inverse)[1] - 0.5 * self.dim * np.log(2 * np.pi) - np.log(here)
        self._mean.assign(reference.mean[last].astype(self.dtype))
        self._inverse.assign(inverse[last].astype(self.dtype))
        self._log_height.assign(np.where(np.arange(self.modes) < here, log_height[last], -np.inf).astype(self.dtype))

    def score(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density and log reference of points `[particles, dim]`, float64; -inf where one is not a number."""
        scores = [[value.numpy() for value in self._score(tf.constant(block))] for block in _blocks(u)]
        log_prob, log_reference = (np.concatenate(each)[: len(u)].astype(float) for each in zip(*scores, strict=True))
        return np.nan_to_num(log_prob, nan=-np.inf), log_reference

    def component(self, u: np.ndarray) -> np.ndarray:
        """The reference's component that each point `[particles, dim]` is nearest to, in its own widths."""
        delta = u[:, None] - self._mean.numpy()
        distance = np.einsum("kij,nkj->nki", self._inverse.numpy(), delta)
        squares = np.sum(distance**2, -1)
        return np.argmin(np.where(np.isfinite(self._log_height.numpy()), squares, np.inf), -1)

    def _both(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.log_prob(u), self._log_reference(u)

    def _tempered(self, u: tf.Tensor) -> tf.Tensor:
        return self.temperature * self.log_prob(u) + (1 - self.temperature) * self._log_reference(u)

    def _log_reference(self, u: tf.Tensor) -> tf.Tensor:
        delta = tf.einsum("kij,nkj->nki", self._inverse, u[:, None] - self._mean)
        return tf.reduce_logsumexp(self._log_height - 0.5 * tf.reduce_sum(delta**2, -1), -1)


def sample(
    sampler: Sampler,
    reference: Reference | None = None,
    *,
    islands: int = 8,
    particles: int = 300,
    seed: int = 0,
    progress: Progress = silent,
) -> Particles:
    """Takes particles from a reference to the posterior.

    The density at temperature b is posterior^b reference^(1 - b). With the prior for reference that is the posterior
    with a tempered likelihood; a reference that is nearer needs fewer temperatures, and finds the modes that it covers.
    The next temperature is the one at which the effective sample size has fallen to one half, found by bisection;
    resampling is systematic, within each of the islands. Moves are whitened by the covariance of the particles within
    the reference's components, so that modes far apart do not count as width.

    After the last temperature islands are weighed by the evidence that each has found, and all particles resampled
    and moved once more.

    Args:
        sampler: the density and the compiled programs.
        reference: N(0, I), the prior of the base space, if None.
        islands: independent repeats; the particles of each are one "chain".
        particles: of each island. Few for many dimensions means a poor covariance; better ten times as many, in all.
        seed: of everything random; the same seed gives the same particles.

    Example:
        >>> sampler = Sampler(lambda u: -0.5 * tf.reduce_sum(((u - 1) / 0.1)**2, -1), 2, "float64")
        >>> found = sample(sampler, islands=4, particles=100)
        >>> found.u.shape, bool(abs(found.log_evidence - np.log(2 * np.pi * 0.01)) < 0.5)
        ((4, 100, 2), True)
    """
    if reference is None:
        reference = Reference(np.zeros((1, sampler.dim)), np.eye(sampler.dim)[None])
    rng = np.random.default_rng([seed, 4])
    total = islands * particles
    chosen = rng.integers(0, len(reference.mean), total)
    epsilon = rng.normal(size=(total, sampler.dim))
    u = reference.mean[chosen] + np.einsum("nij,nj->ni", reference.factor[chosen], epsilon)
    u = u.astype(sampler.dtype)
    sampler.begin(reference)
    covariance = np.mean(reference.factor @ np.swapaxes(reference.factor, 1, 2), 0)
    log_evidence = np.zeros(islands)
    temperatures, acceptances = [0.0], []
    step_size, gradients = _FIRST_STEP, 0

    while temperatures[-1] < 1:
        if len(temperatures) > _MOST_TEMPERATURES:
            raise ParameterError(
                f"sequential Monte Carlo must reach the posterior within {_MOST_TEMPERATURES} temperatures, but is at "
                f"{temperatures[-1]:.2g}; give a reference that is nearer to it"
            )
        log_prob, log_reference = sampler.score(u)
        gradients += total
        slope = log_prob - log_reference
        temperature = _next_temperature(slope, temperatures[-1])
        log_weights = ((temperature - temperatures[-1]) * slope).reshape(islands, particles)
        log_evidence += special.logsumexp(log_weights, 1) - np.log(particles)
        kept = np.concatenate([i * particles + systematic(w, particles, rng) for i, w in enumerate(log_weights)])
        u = u[kept]
        temperatures.append(temperature)
        sampler.temperature.assign(temperature)
        covariance = _within(u, sampler.component(u), covariance)
        sampler.mover.whiten(u.mean(0), np.linalg.cholesky(covariance))
        moved = _move(sampler, u, step_size, rng)
        u, step_size, gradients = moved.u, moved.step_size, gradients + moved.gradients
        acceptances.append(float(moved.acceptance.mean()))
        progress("warm-up", 1 / (1 - np.log10(temperature)), u)

    # Every particle of an island counts for what its island has found.
    u = u[systematic(np.repeat(log_evidence, particles), total, rng)]
    for i in range(_LAST_CHUNKS):
        moved = _move(sampler, u, step_size, rng)
        u, step_size, gradients = moved.u, moved.step_size, gradients + moved.gradients
        progress("sampling", (i + 1) / _LAST_CHUNKS, u)
    each = np.exp(log_evidence - log_evidence.max())
    return Particles(
        u=u.reshape(islands, particles, -1),
        log_prob=moved.log_prob.reshape(islands, particles),
        acceptance=moved.acceptance.reshape(islands, particles),
        diverging=moved.diverging.reshape(islands, particles),
        log_evidence=float(np.log(each.mean()) + log_evidence.max()),
        log_evidence_error=float(each.std(ddof=1) / np.sqrt(islands) / each.mean()) if islands > 1 else np.inf,
        temperatures=np.array(temperatures),
        acceptances=np.array(acceptances),
        step_size=float(step_size),
        leapfrog_steps=moved.leapfrog_steps,
        gradients=gradients,
    )


def broadened(mean: np.ndarray, curvature: np.ndarray, power: float = 0.1) -> Reference:
    """Gaussians around optima, as wide as the posterior if its likelihood were raised to a power below one.

    What the data have narrowed down is made 1 / sqrt(power) times as wide as the Laplace approximation has it, what
    they say nothing of stays as wide as the prior N(0, I).

    Args:
        mean: optima, `[modes, dim]`.
        curvature: of the negative log posterior there, the prior's identity included, `[modes, dim, dim]`.
        power: of the likelihood.

    Example:
        >>> broadened(np.zeros((1, 2)), np.diag([1.0, 1001.0])[None]).factor[0].diagonal().round(3).tolist()
        [1.0, 0.1]
    """
    identity = np.eye(mean.shape[-1])
    softened = identity + power * (np.asarray(curvature, np.float64) - identity)
    return Reference(np.asarray(mean, np.float64), np.stack([whitening(each).numpy() for each in softened]))


def around_optima(
    mean: np.ndarray, log_prob: np.ndarray, curvature: Callable[[np.ndarray], np.ndarray], most: int
) -> Reference:
    """`broadened` Gaussians around optima, without those that are hopeless or the same as one before.

    Hopeless is an optimum `_HOPELESS` nats below the best; the same, one less than `_SAME` of its widths away.

    Args:
        mean: optima, best first, `[n, dim]`.
        log_prob: log posterior there, `[n]`.
        curvature: matrices `[n, dim, dim]` at points `[n, dim]`.
        most: Gaussians that are wanted.

    Example:
        >>> optima, heights = np.array([[0.0], [0.1], [9.0], [50.0]]), np.array([0.0, 0.0, -3.0, -300.0])
        >>> around_optima(optima, heights, lambda points: np.ones((len(points), 1, 1)), 8).mean
        array([[0.],
               [9.]])
    """
    curvatures = np.asarray(curvature(mean), np.float64)
    kept: list[int] = []
    for i, (point, height) in enumerate(zip(mean.astype(np.float64), log_prob, strict=True)):
        steps = point - mean[kept]
        far = np.einsum("ki,kij,kj->k", steps, curvatures[kept], steps) > _SAME**2
        if height >= log_prob[0] - _HOPELESS and far.all():
            kept.append(i)
    return broadened(mean[kept[:most]], curvatures[kept[:most]])


def systematic(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Indices `[n]` that a systematic resampling keeps, in ascending order: one random number for all of them.

    An index of weight w (of weights that sum to one) is kept floor(n w) or ceil(n w) times, n w times in the mean.

    Example:
        >>> systematic(np.log([0.5, 0.25, 0.25]), 4, np.random.default_rng(0))
        array([0, 0, 1, 2])
    """
    weights = np.exp(log_weights - log_weights.max())
    ends = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(ends, (rng.uniform() + np.arange(n)) / n), len(weights) - 1)


class _Moved(NamedTuple):
    """Particles after a chunk of transitions, `[particles, ...]`."""

    u: np.ndarray
    log_prob: np.ndarray
    acceptance: np.ndarray
    diverging: np.ndarray
    step_size: float
    leapfrog_steps: float
    gradients: int


def _move(sampler: Sampler, u: np.ndarray, step_size: float, rng: np.random.Generator) -> _Moved:
    """A chunk of transitions of all particles `[particles, dim]`, block by block; the step size follows them."""
    pieces = []
    for i, block in enumerate(_blocks(u)):
        piece = sampler.mover.move(
            tf.constant(sampler.mover.to_w(block)), np.array([step_size]), np.array([_QUARTER]), rng
        )
        pieces.append(piece)
        step_size *= np.exp((piece.acceptance.mean() - _TARGET_ACCEPTANCE) / np.sqrt(1 + i / 2))
        step_size = min(step_size, _QUARTER)
    return _Moved(
        u=np.concatenate([piece.u[-1] for piece in pieces])[: len(u)],
        log_prob=np.concatenate([piece.log_prob[-1] for piece in pieces])[: len(u)],
        acceptance=np.concatenate([piece.acceptance.mean(0) for piece in pieces])[: len(u)],
        diverging=np.concatenate([piece.diverging.any(0) for piece in pieces])[: len(u)],
        step_size=step_size,
        leapfrog_steps=float(np.mean([piece.leapfrog_steps for piece in pieces])),
        gradients=sum(piece.gradients for piece in pieces),
    )


def _blocks(u: np.ndarray) -> list[np.ndarray]:
    """Points `[particles, dim]` in blocks of one size; the last is filled up with its last point."""
    rows = np.minimum(np.arange(-(-len(u) // _BLOCK) * _BLOCK), len(u) - 1)
    return list(u[rows].reshape(-1, _BLOCK, u.shape[1]))


def _next_temperature(slope: np.ndarray, temperature: float) -> float:
    """The next one, at which weights exp(change of temperature * slope) leave `_EFFECTIVE` of the particles."""
    finite = int(np.isfinite(slope).sum())
    if not finite:
        raise ParameterError(
            f"sequential Monte Carlo: the log density must be finite at some of the particles, but is at none of "
            f"{len(slope)}; give a reference that is nearer to the posterior"
        )

    def effective(change: float) -> float:
        log_weights = change * slope
        return float(np.exp(2 * special.logsumexp(log_weights) - special.logsumexp(2 * log_weights)))

    low, high = 0.0, 1.0 - temperature
    if effective(high) >= _EFFECTIVE * finite:
        return 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= _EFFECTIVE * finite else (low, middle)
    return temperature + high


def _within(u: np.ndarray, component: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Covariance of particles `[particles, dim]` about the means of their components, drawn to what it was before
    (a temperature ago) where they are few."""
    delta = u.astype(np.float64)
    for each in np.unique(component):
        delta[component == each] -= delta[component == each].mean(0)
    dim, independent = u.shape[1], _EFFECTIVE * len(u)
    return (independent * (delta.T @ delta) / len(u) + dim * before) / (independent + dim)
