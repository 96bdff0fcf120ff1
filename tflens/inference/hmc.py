"""Hamiltonian Monte Carlo, whitened by the curvature at the optimum: the second half of every fit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens._tfp import mcmc
from tflens.inference.progress import Progress, silent

# Stan's convention: an energy error this large means that the trajectory left the region the integrator can follow.
DIVERGENCE = 1000.0

_CHUNK = 20  # transitions between two looks of the host
_TRAJECTORY = 4.0  # in whitened units; a curved posterior is wider than its curvature says
_MAX_LEAPFROG = 32
_FIRST_STEP = 0.4
_START = 0.3


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
    """

    u: np.ndarray
    log_prob: np.ndarray
    acceptance: np.ndarray
    diverging: np.ndarray
    step_size: float
    leapfrog_steps: float
    gradients: int


def sample(
    log_prob: Callable[[tf.Tensor], tf.Tensor],
    center: np.ndarray,
    curvature: Callable[[np.ndarray], np.ndarray],
    *,
    chains: int = 8,
    warmup: int = 300,
    draws: int = 400,
    seed: int = 0,
    target_acceptance: float = 0.85,
    progress: Progress = silent,
) -> Chains:
    """Draws from a log density by HMC in coordinates in which it is nearly a unit Gaussian.

    The coordinates whiten a curvature: at first that at the center, around which the chains start; then, in two more
    windows of the warm-up, its mean over the chains' positions. A mean of Fisher matrices knows the stiff directions
    of a curved posterior as no covariance of a few hundred correlated draws does. In each window the step size is
    adapted anew (Hoffman & Gelman 2014, JMLR 15, 1593). The number of leapfrog steps is jittered, so that no period of
    the posterior resonates.

    Args:
        log_prob: of `[chains, dim]`, returning `[chains]`.
        center: `[dim]`, the optimum. Chains start from draws around it, of `_START` times the width that its
            curvature tells: where a posterior is far from Gaussian, full draws would land where it has no mass.
        curvature: positive definite matrices `[n, dim, dim]` at points `[n, dim]`: the Gauss-Newton (Fisher) matrix.
        seed: of the sampler; the same seed gives the same chains.
        target_acceptance: that the step size is adapted to.
    """
    dim = len(center)
    dtype = center.dtype
    rng = np.random.default_rng([seed, 1])
    origin = tf.Variable(center, trainable=False)
    factor = tf.Variable(_factor(curvature(center[None])[0], dtype), trainable=False)

    def to_u(w: tf.Tensor) -> tf.Tensor:
        return origin + tf.matmul(w, factor, transpose_b=True)

    def kernel(step_size: tf.Tensor, leapfrog_steps: tf.Tensor) -> mcmc.TransitionKernel:
        return mcmc.HamiltonianMonteCarlo(lambda w: log_prob(to_u(w)), step_size, leapfrog_steps)

    def adaptive(leapfrog_steps: tf.Tensor) -> mcmc.TransitionKernel:
        return mcmc.DualAveragingStepSizeAdaptation(
            kernel(tf.constant(_FIRST_STEP, dtype), leapfrog_steps),
            num_adaptation_steps=2**30,
            target_accept_prob=tf.constant(target_acceptance, dtype),
        )

    @tf.function(autograph=False)
    def adapt(w: tf.Tensor, results: Any, leapfrog_steps: tf.Tensor, seed: tf.Tensor) -> Any:
        return mcmc.sample_chain(
            _CHUNK,
            w,
            previous_kernel_results=results,
            kernel=adaptive(leapfrog_steps),
            trace_fn=lambda _, results: results.new_step_size,
            return_final_kernel_results=True,
            seed=seed,
        )

    @tf.function(autograph=False)
    def transit(w: tf.Tensor, step_size: tf.Tensor, leapfrog_steps: tf.Tensor, seed: tf.Tensor) -> Any:
        return mcmc.sample_chain(
            _CHUNK,
            w,
            kernel=kernel(step_size, leapfrog_steps),
            trace_fn=lambda _, results: (results.accepted_results.target_log_prob, results.log_accept_ratio),
            seed=seed,
        )

    gradients = 0

    def choose_leapfrog(step_size: float) -> tf.Tensor:
        nonlocal gradients
        steps = int(np.clip(round(_TRAJECTORY / step_size * rng.uniform(0.7, 1.3)), 1, _MAX_LEAPFROG))
        gradients += steps * _CHUNK * chains
        return tf.constant(steps)

    def new_seed() -> tf.Tensor:
        return tf.constant(rng.integers(0, 2**31 - 1, 2), tf.int32)

    w = tf.constant(_START * rng.standard_normal((chains, dim)), dtype)
    windows = _windows(warmup)
    done = 0
    for index, chunks in enumerate(windows):
        step_size = _FIRST_STEP
        results = tf.function(adaptive(tf.constant(1)).bootstrap_results, autograph=False)(w)
        history = []
        for _ in range(chunks):
            points, step_sizes, results = adapt(w, results, choose_leapfrog(step_size), new_seed())
            w = points[-1]
            step_size = float(step_sizes[-1])
            history.append(points.numpy())
            done += 1
            progress("warm-up", done / sum(windows), to_u(w).numpy())
        if index < len(windows) - 1:
            u = to_u(w).numpy()
            origin.assign(u.mean(0))
            factor.assign(_factor(curvature(u).mean(0), dtype))
            w = tf.constant(np.linalg.solve(factor.numpy(), (u - origin.numpy()).T).T, dtype)
    step_size = float(tf.exp(tf.nest.flatten(results.log_averaging_step)[0]))

    kept: list[tuple[np.ndarray, ...]] = []
    used_steps = []
    chunks = max(1, int(np.ceil(draws / _CHUNK)))
    for i in range(chunks):
        leapfrog_steps = choose_leapfrog(step_size)
        used_steps.append(int(leapfrog_steps))
        points, (density, log_accept) = transit(w, tf.constant(step_size, dtype), leapfrog_steps, new_seed())
        w = points[-1]
        u = to_u(tf.reshape(points, [-1, dim])).numpy().reshape(points.shape)
        kept.append((u, density.numpy(), log_accept.numpy()))
        progress("sampling", (i + 1) / chunks, u[-1])
    u, density, log_accept = (np.swapaxes(np.concatenate(part), 0, 1)[:, :draws] for part in zip(*kept, strict=True))
    log_accept = np.nan_to_num(log_accept, nan=-np.inf)
    return Chains(
        u=u,
        log_prob=density,
        acceptance=np.exp(np.minimum(log_accept, 0.0)),
        diverging=log_accept < -DIVERGENCE,
        step_size=step_size,
        leapfrog_steps=float(np.mean(used_steps)),
        gradients=gradients,
    )


def _windows(warmup: int) -> list[int]:
    """Lengths of the warm-up's three windows, in chunks: one, two and three sixths of it."""
    chunks = max(3, warmup // _CHUNK)
    first, second = max(1, chunks // 6), max(1, chunks // 3)
    return [first, second, chunks - first - second]


def _factor(curvature: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The lower Cholesky factor of the inverse of `curvature` `[dim, dim]`."""
    return np.linalg.cholesky(np.linalg.inv(np.asarray(curvature, np.float64))).astype(dtype)
