"""Hamiltonian Monte Carlo, whitened by the curvature at the optimum: the second half of every fit."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import linalg

from tflens._tfp import mcmc
from tflens.inference.metric import metric_of, whitening
from tflens.inference.progress import Progress, silent

# Stan's convention: an energy error this large means that the trajectory left the region the integrator can follow.
DIVERGENCE = 1000.0

CHUNK = 5  # transitions between two looks of the host
QUARTER = np.pi / 2  # of the period of a unit Gaussian: a trajectory of this length forgets where it began
HALF = np.pi  # where coordinates are learned: what they leave bent mixes better for its cost on longer trajectories
FIRST_LEAPFROG, MAX_LEAPFROG = 48, 64
FIRST_STEP = 0.3
STABLE = 1.0  # first step of a window, in units of the narrowest width; leapfrog is unstable beyond 2
START = 0.3
JITTER = (0.7, 1.3)  # of a trajectory's length
TARGET_ACCEPTANCE = 0.9
# How far each window's metric goes from the mean curvature to the inverse of the chains' covariance.
TOWARDS_COVARIANCE = (0.5, 0.75, 1.0)
STRAIGHTEN_AFTER = 2  # windows: earlier, chains are still on their way from the optimum


Straighten = Callable[[int, np.ndarray, np.random.Generator], np.ndarray]
"""Changes the coordinates of a lens, and returns points `[n, dim]` in the new ones: see `sample_each`."""


class Chains(NamedTuple):
    """Draws, and what the sampler says of them.

    Attributes:
        u: `[chains, draws, dim]`.
        log_prob: `[chains, draws]`.
        acceptance: probability with which each proposal was accepted, `[chains, draws]`.
        diverging: whether the energy error of the trajectory exceeded `DIVERGENCE`, `[chains, draws]`.
        step_size: of the leapfrog integrator, in whitened units.
        leapfrog_steps: mean number a transition.
        gradients: gradient evaluations of all chains together, warm-up included.
        figures: what else a sampler has to tell of its draws, by name: numbers, vectors or text.
    """

    u: np.ndarray
    log_prob: np.ndarray
    acceptance: np.ndarray
    diverging: np.ndarray
    step_size: float
    leapfrog_steps: float
    gradients: int
    figures: Mapping[str, Any] = MappingProxyType({})


class Piece(NamedTuple):
    """Consecutive transitions of all chains.

    Attributes:
        w: whitened coordinates where the chains are, `[chains, dim]`.
        u: `[transitions, chains, dim]`.
        log_prob, acceptance: `[transitions, chains]`.
        diverging: `[transitions, chains]`.
        leapfrog_steps: mean number a transition.
        gradients: evaluations of all chains together.
    """

    w: tf.Tensor
    u: np.ndarray
    log_prob: np.ndarray
    acceptance: np.ndarray
    diverging: np.ndarray
    leapfrog_steps: float
    gradients: int


class Sampler:
    """A log density and the compiled program that draws from it, again and again as the density's data change.

    Args:
        log_prob: of `[chains, dim]`, returning `[chains]`.
        dim: number of coordinates.
        dtype: of the coordinates.
        transitions: of one call of the program.
        lenses: how many densities there are side by side, with as many chains `[lenses * chains, dim]` of each. Each
            has coordinates and a step size of its own; their trajectories have equally many steps.
    """

    def __init__(
        self,
        log_prob: Callable[[tf.Tensor], tf.Tensor],
        dim: int,
        dtype: Any = "float32",
        transitions: int = CHUNK,
        lenses: int = 1,
    ) -> None:
        self.log_prob = log_prob
        self.transitions, self.lenses = transitions, lenses
        self.origin = tf.Variable(np.zeros((lenses, dim)), dtype=dtype, trainable=False)
        self.factor = tf.Variable(np.tile(np.eye(dim), (lenses, 1, 1)), dtype=dtype, trainable=False)
        self.transit = tf.function(self._transit, autograph=False)

    def whiten(self, origin: np.ndarray, factor: np.ndarray, lens: int = 0) -> None:
        """Changes the coordinates w that the chains of a lens move in: u = origin + factor w."""
        self.origin[lens].assign(origin.astype(self.origin.dtype.as_numpy_dtype))
        self.factor[lens].assign(factor.astype(self.factor.dtype.as_numpy_dtype))

    def to_w(self, u: np.ndarray, lens: int = 0) -> np.ndarray:
        """Whitened coordinates of points `[n, dim]` of a lens."""
        factor, origin = (each[lens].numpy().astype(np.float64) for each in (self.factor, self.origin))
        return linalg.solve_triangular(factor, (u - origin).T, lower=True).T.astype(self.origin.dtype.as_numpy_dtype)

    def move(self, w: tf.Tensor, step_size: np.ndarray, trajectory: np.ndarray, rng: np.random.Generator) -> Piece:
        """A chunk of transitions of chains at `w`, on trajectories of about given lengths, in whitened units.

        Args:
            w: `[lenses * chains, dim]`.
            step_size: at the most, `[lenses]`; trajectories have as many steps as that of the lens that needs most.
            trajectory: `[lenses]`.
            rng: of the sampler.
        """
        wanted = trajectory / step_size
        leapfrog_steps = int(np.clip(round(wanted.max() * rng.uniform(*JITTER)), 1, MAX_LEAPFROG))
        points, u, density, log_accept = self.transit(
            w, self._of_chains(step_size * wanted / wanted.max(), w), tf.constant(leapfrog_steps), draw_seed(rng)
        )
        log_accept = np.nan_to_num(log_accept.numpy(), nan=-np.inf)
        return Piece(
            w=points[-1],
            u=u.numpy(),
            log_prob=density.numpy(),
            acceptance=np.exp(np.minimum(log_accept, 0.0)),
            diverging=log_accept < -DIVERGENCE,
            leapfrog_steps=leapfrog_steps,
            gradients=(leapfrog_steps * self.transitions + 1) * len(w),  # one more, where the chunk begins
        )

    def _transit(self, w: tf.Tensor, step_size: tf.Tensor, leapfrog_steps: tf.Tensor, seed: tf.Tensor) -> Any:
        points, (density, log_accept) = mcmc.sample_chain(
            self.transitions,
            w,
            kernel=mcmc.HamiltonianMonteCarlo(lambda w: self.log_prob(self._to_u(w)), step_size, leapfrog_steps),
            trace_fn=lambda _, results: (results.accepted_results.target_log_prob, results.log_accept_ratio),
            seed=seed,
        )
        return points, self._to_u(points), density, log_accept

    def _of_chains(self, of_lenses: np.ndarray, w: tf.Tensor) -> tf.Tensor:
        """Numbers `[lenses]` for each chain, `[lenses * chains, 1]`; a scalar if there is one lens."""
        if self.lenses == 1:
            return tf.constant(of_lenses[0], w.dtype)
        return tf.constant(np.repeat(of_lenses, w.shape[0] // self.lenses)[:, None], w.dtype)

    def _to_u(self, w: tf.Tensor) -> tf.Tensor:
        if self.lenses == 1:
            return self.origin[0] + tf.linalg.matvec(self.factor[0], w)
        by_lens = tf.reshape(w, [*w.shape[:-2], self.lenses, -1, w.shape[-1]])
        return tf.reshape(self.origin[:, None] + tf.matmul(by_lens, self.factor, transpose_b=True), w.shape)


def sample(
    sampler: Sampler,
    center: np.ndarray,
    curvature: Callable[[np.ndarray], np.ndarray],
    *,
    chains: int = 8,
    warmup: int = 120,
    draws: int = 300,
    rounds: int = 1,
    enough: Callable[[np.ndarray], bool] = lambda u: True,
    seed: int = 0,
    target_acceptance: float = TARGET_ACCEPTANCE,
    progress: Progress = silent,
) -> Chains:
    """Draws from a log density by HMC in coordinates in which it is nearly a unit Gaussian.

    The coordinates whiten a metric: at first the curvature at the center, around which the chains start; then, in
    three more windows of the warm-up, something between the mean curvature where the chains are and the inverse of
    their covariance. The curvature knows the stiff directions of a posterior at once, but where they turn from place
    to place, as those of a galaxy's latents do, its mean takes nearly everything for stiff, and the chains crawl;
    the covariance knows how wide the posterior is, once the chains have been around. Its estimate from few draws is
    drawn to the inverse of the mean curvature (Ledoit & Wolf 2004, J. Multivar. Anal. 88, 365).

    Trajectories are as long as a quarter of a period of the widest direction, which makes draws nearly independent
    (Neal 2011, Handbook of MCMC, ch. 5), and are jittered so that no period resonates. The step size follows the
    acceptance of all chains together (Robbins & Monro 1951, Ann. Math. Stat. 22, 400).

    Args:
        sampler: of the density, with its compiled program.
        center: `[dim]`, the optimum. Chains start from draws around it, of `START` times the width that its
            curvature tells: where a posterior is far from Gaussian, full draws would land where it has no mass.
        rounds: as long as its draws are not `enough`, a round becomes the warm-up of the next, which draws twice as
            many: at the most so many rounds.
        enough: whether draws `[chains, draws, dim]` are the last: they will do, or more of them would not help.
        curvature: positive definite matrices `[n, dim, dim]` at points `[n, dim]`: the Gauss-Newton (Fisher) matrix.
        seed: of the sampler; the same seed gives the same chains.
        target_acceptance: that the step size is adapted to. Where the posterior is narrower than elsewhere, steps that
            suit the rest of it leave a chain stuck for long: so more than the 0.65-0.8 that suit a Gaussian.
    """
    return sample_each(
        sampler,
        center[None],
        lambda _, points: curvature(points),
        chains=chains,
        warmup=warmup,
        draws=draws,
        rounds=rounds,
        enough=lambda each: enough(each[0]),
        seed=seed,
        target_acceptance=target_acceptance,
        progress=progress,
    )[0]


def sample_each(
    sampler: Sampler,
    centers: np.ndarray,
    curvature: Callable[[int, np.ndarray], np.ndarray],
    *,
    straighten: Straighten | None = None,
    chains: int = 8,
    warmup: int = 120,
    draws: int = 300,
    rounds: int = 1,
    enough: Callable[[list[np.ndarray]], bool] = lambda u: True,
    seed: int = 0,
    target_acceptance: float = TARGET_ACCEPTANCE,
    progress: Progress = silent,
) -> list[Chains]:
    """What `sample` does for several densities side by side, in one program.

    Args:
        sampler: of all densities.
        centers: `[lenses, dim]`.
        curvature: as for `sample`, of a lens given by its number.
        straighten: changes the coordinates u of a lens, given by its number, to better ones, from points
            `[n, dim]` where its chains have been, and returns these in the new ones: in the warm-up, once the chains
            have been around, and before every further round. From then on trajectories are half a period long.
        rounds, enough: as for `sample`, of the draws `[chains, draws, dim]` of every lens; a round is of all of them.
        seed: of all of them together: what a lens draws depends on those beside it.

    Returns:
        Of each lens.
    """
    (lenses, dim), dtype = centers.shape, centers.dtype
    rng = np.random.default_rng([seed, 1])
    for lens, center in enumerate(centers):
        sampler.whiten(center, whitening(curvature(lens, center[None])[0]).numpy(), lens)
    w = tf.constant(START * rng.standard_normal((lenses * chains, dim)), dtype)
    walk = _Walk(sampler, w, curvature, straighten, rng, target_acceptance, chains)
    *windows, last = windows_of(warmup)
    total, done = sum(windows) + last, 0
    for window, (chunks, towards_covariance) in enumerate(zip(windows, TOWARDS_COVARIANCE, strict=True)):
        seen = []
        for piece in walk.adapt(chunks):
            seen.append(piece.u)
            done += 1
            progress("warm-up", done / total, piece.u[-1])
        # The first part of a window is on its way from where the last one ended.
        walk.whiten(np.concatenate(seen[len(seen) // 3 :]), towards_covariance, anew=window >= STRAIGHTEN_AFTER)
    for chunk, piece in enumerate(walk.adapt(last)):
        progress("warm-up", (done + chunk + 1) / total, piece.u[-1])
    visited = None  # in the last round
    for number in range(rounds):
        if visited is not None:
            walk.whiten(visited, TOWARDS_COVARIANCE[-1], anew=True)
            for piece in walk.adapt(last):
                progress("sampling", number / rounds, piece.u[-1])
        kept = draws * 2**number
        pieces = []
        for chunk in range(chunks := max(1, int(np.ceil(kept / CHUNK)))):
            pieces.append(walk.move())
            progress("sampling", (number + (chunk + 1) / chunks) / rounds, pieces[-1].u[-1])
        visited = np.concatenate([piece.u for piece in pieces])
        traced = {
            name: np.split(np.swapaxes(np.concatenate([getattr(p, name) for p in pieces]), 0, 1)[:, :kept], lenses)
            for name in ("u", "log_prob", "acceptance", "diverging")
        }
        if number + 1 < rounds and enough(traced["u"]):
            progress("sampling", 1.0, pieces[-1].u[-1])
            break
    return [
        Chains(
            **{name: values[lens] for name, values in traced.items()},
            step_size=float(walk.step_size[lens]),
            leapfrog_steps=float(np.mean([piece.leapfrog_steps for piece in pieces])),
            gradients=walk.gradients // lenses,
            figures={"rounds": number + 1},
        )
        for lens in range(lenses)
    ]


class _Walk:
    """Chains on their way, `[lenses * chains, dim]`, and how they are tuned."""

    def __init__(
        self,
        sampler: Sampler,
        w: tf.Tensor,
        curvature: Callable[[int, np.ndarray], np.ndarray],
        straighten: Straighten | None,
        rng: np.random.Generator,
        target_acceptance: float,
        chains: int,
    ) -> None:
        self._sampler, self._w, self._rng = sampler, w, rng
        self._curvature, self._straighten = curvature, straighten
        self._target_acceptance, self._chains, self._lenses = target_acceptance, chains, len(w) // chains
        self.step_size = np.full(self._lenses, FIRST_STEP)
        self._trajectory = np.full(self._lenses, FIRST_STEP * FIRST_LEAPFROG)
        self.gradients = 0

    def move(self) -> Piece:
        """A chunk of transitions."""
        piece = self._sampler.move(self._w, self.step_size, self._trajectory, self._rng)
        self._w, self.gradients = piece.w, self.gradients + piece.gradients
        return piece

    def adapt(self, chunks: int) -> Iterator[Piece]:
        """Chunks of transitions, with the step size after each of them moved to what they accepted."""
        for chunk in range(chunks):
            piece = self.move()
            acceptance = piece.acceptance.reshape(-1, self._lenses, self._chains).mean((0, 2))
            self.step_size = self.step_size * np.exp((acceptance - self._target_acceptance) / np.sqrt(1 + chunk / 2))
            # One whose trajectories have more steps than it needs would ask for ever longer ones.
            if self._lenses > 1:
                self.step_size = np.minimum(self.step_size, self._trajectory)
            yield piece

    def whiten(self, visited: np.ndarray, towards_covariance: float, anew: bool) -> None:
        """New coordinates from where the chains have been, `[transitions, lenses * chains, dim]`; `anew`, straighter
        ones."""
        dim, dtype = self._w.shape[-1], self._w.dtype.as_numpy_dtype
        moved = []
        for lens, its in enumerate(np.split(visited.astype(np.float64), self._lenses, axis=1)):
            straighter = anew and self._straighten is not None
            if straighter:
                straight = self._straighten(lens, its.reshape(-1, dim).astype(dtype), self._rng)
                its = straight.reshape(its.shape).astype(np.float64)
            places = its[[len(its) // 2, -1]].reshape(-1, dim)
            curvatures = self._curvature(lens, places.astype(dtype)).astype(np.float64)
            metric = metric_of(its.reshape(-1, dim), curvatures, towards_covariance)
            self._sampler.whiten(its.mean((0, 1)), metric.whitening.numpy(), lens)
            moved.append(self._sampler.to_w(its[-1], lens))
            self.step_size[lens] = STABLE * float(metric.narrowest)
            self._trajectory[lens] = (HALF if straighter else QUARTER) * float(metric.widest)
        self._w = tf.constant(np.concatenate(moved))


def draw_seed(rng: np.random.Generator) -> tf.Tensor:
    """A seed for TensorFlow's stateless random numbers."""
    return tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32)


def windows_of(warmup: int) -> list[int]:
    """Lengths of the warm-up's four windows, in chunks; the last one only finds the step size."""
    chunks = max(4, warmup // CHUNK)
    ends = np.maximum(np.round(np.array([0.2, 0.5, 0.8, 1.0]) * chunks).astype(int), np.arange(1, 5))
    return [int(length) for length in np.diff(ends, prepend=0)]
