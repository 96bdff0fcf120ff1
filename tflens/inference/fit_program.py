"""A whole fit as one program of tensors, with no host between its stages: what a SavedModel can hold.

The stages are those of `tflens.inference.pipeline`, but for what asks other tools than TensorFlow's:
the first look, the masking of neighbours, finer sampling where it is needed, and the random field beside the source.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens._tfp import mcmc
from tflens.density import Density
from tflens.inference import hmc
from tflens.inference.map import climb_in_stages, descend, score
from tflens.inference.metric import metric_of
from tflens.inference.optimize import start_adam, start_levenberg_marquardt
from tflens.inference.settings import FitSettings
from tflens.inference.straight import bend_of, curvature

_SCREENED = 8  # points of the prior that are looked at for each start
_SPREAD = 0.7  # of these, in standard deviations of the prior


class Fitted(NamedTuple):
    """What the program gives.

    Attributes:
        u: the best optimum, `[dim]`.
        log_prob: log posterior there.
        agreeing: how many of the survivors ended within 2 nats of it.
        bad_gradients: of the search, how many were not finite.
        draws: `[chains, draws, dim]`.
        acceptance: mean probability with which proposals were accepted.
        divergences: how many trajectories left the region that the integrator can follow.
    """

    u: tf.Tensor
    log_prob: tf.Tensor
    agreeing: tf.Tensor
    bad_gradients: tf.Tensor
    draws: tf.Tensor
    acceptance: tf.Tensor
    divergences: tf.Tensor


def fit_program(target: Density, seed: tf.Tensor, settings: FitSettings) -> Fitted:
    """Fits a target within a program of tensors: starts from the prior, Adam, Levenberg-Marquardt, HMC.

    Args:
        target: of one lens, with a `model`; its data may be tensors of the program.
        seed: a whole number; the same gives the same fit on the same machine.
        settings: how long and how hard to look; its seed, supersampling, start and sampler do not count here.
    """
    dim, dtype = target.model.dim, target.model.dtype
    seed = tf.cast(seed, tf.int32)
    several = _SPREAD * tf.random.stateless_normal([_SCREENED * settings.starts, dim], [seed, 0], dtype=dtype)
    likely = _best_first(target.log_likelihood(several))[: settings.starts]
    state, value = climb_in_stages(target, start_adam(tf.gather(several, likely)), settings.search_steps)
    survivors = tf.gather(state.u, _best_first(value)[: settings.survivors])
    polished = descend(target, start_levenberg_marquardt(survivors), settings.polish_steps)
    log_prob = score(target, polished.u)
    best = _best_first(log_prob)[0]
    chains = _sample(target, polished.u[best], seed, settings)
    return Fitted(
        u=polished.u[best],
        log_prob=log_prob[best],
        agreeing=tf.reduce_sum(tf.cast(log_prob > log_prob[best] - 2.0, tf.int32)),
        bad_gradients=tf.reduce_sum(state.bad),
        **chains,
    )


class _Chain(NamedTuple):
    """The state of the sampler between two chunks; `visited` has what came out so far, in straight
    coordinates v (`tflens.inference.straight`), `[chunks, n, chains, dim]`."""

    w: tf.Tensor
    origin: tf.Tensor
    factor: tf.Tensor
    step_size: tf.Tensor
    trajectory: tf.Tensor
    visited: tf.Tensor
    acceptance: tf.Tensor
    divergences: tf.Tensor


def _sample(target: Density, center: tf.Tensor, seed: tf.Tensor, settings: FitSettings) -> dict[str, tf.Tensor]:
    """What `tflens.inference.hmc.sample` does, adaptation included, in one loop over chunks of transitions."""
    dim, dtype = target.model.dim, center.dtype
    ends = np.cumsum(hmc.windows_of(settings.warmup))
    warm, total = int(ends[-1]), int(ends[-1]) + -(-settings.draws // hmc.CHUNK)
    begins = tf.constant([0, *ends], tf.int32)
    bend = bend_of(target, center)

    def to_v(w: tf.Tensor, state: _Chain) -> tf.Tensor:
        return state.origin + tf.linalg.matvec(state.factor, w)

    def move(i: tf.Tensor, state: _Chain) -> tuple[tf.Tensor, _Chain]:
        window = tf.reduce_sum(tf.cast(i >= begins[1:], tf.int32))
        chunk = tf.cast(i - begins[window], dtype)
        jitter = tf.random.stateless_uniform([], [seed, 2 * i + 1], *hmc.JITTER, dtype)
        leapfrog_steps = tf.cast(tf.round(state.trajectory / state.step_size * jitter), tf.int32)
        points, log_accept = mcmc.sample_chain(
            hmc.CHUNK,
            state.w,
            kernel=mcmc.HamiltonianMonteCarlo(
                lambda w: target.log_prob(bend.to_u(to_v(w, state))),
                state.step_size,
                tf.clip_by_value(leapfrog_steps, 1, hmc.MAX_LEAPFROG),
            ),
            trace_fn=lambda _, results: results.log_accept_ratio,
            seed=tf.stack([seed, 2 * i + 2]),
        )
        log_accept = tf.where(tf.math.is_nan(log_accept), tf.constant(-np.inf, dtype), log_accept)
        accepted = tf.reduce_mean(tf.exp(tf.minimum(log_accept, 0)))
        rate = tf.exp((accepted - hmc.TARGET_ACCEPTANCE) / tf.sqrt(1 + chunk / 2))
        sampling = i >= warm
        diverging = tf.reduce_sum(tf.cast(log_accept < -hmc.DIVERGENCE, tf.int32))
        state = state._replace(
            w=points[-1],
            step_size=tf.where(sampling, state.step_size, state.step_size * rate),
            visited=tf.tensor_scatter_nd_update(state.visited, [[i]], to_v(points, state)[None]),
            acceptance=state.acceptance + tf.where(sampling, accepted, 0) / (total - warm),
            divergences=state.divergences + tf.where(sampling, diverging, 0),
        )
        ending = tf.reduce_any(tf.equal(i + 1, begins[1:-1]))
        return i + 1, tf.cond(ending, lambda: whiten_anew(i + 1, window, state), lambda: state)

    def whiten_anew(end: tf.Tensor, window: tf.Tensor, state: _Chain) -> _Chain:
        # The first part of a window is on its way from where the last one ended.
        begin = begins[window] + (end - begins[window]) // 3
        settled = tf.reshape(state.visited[begin:end], [-1, settings.chains, dim])
        last = settled[-1]
        places = tf.concat([settled[tf.shape(settled)[0] // 2], last], 0)
        curvatures = tf.map_fn(lambda v: curvature(target, bend, v), places)
        draws = tf.cast(tf.reshape(settled, [-1, dim]), tf.float64)
        towards = tf.gather(tf.constant(hmc.TOWARDS_COVARIANCE, tf.float64), window)
        metric = metric_of(draws, tf.cast(curvatures, tf.float64), towards)
        origin = tf.reduce_mean(draws, 0)
        w = tf.linalg.triangular_solve(metric.whitening, tf.transpose(tf.cast(last, tf.float64) - origin))
        return state._replace(
            w=tf.cast(tf.transpose(w), dtype),
            origin=tf.cast(origin, dtype),
            factor=tf.cast(metric.whitening, dtype),
            step_size=tf.cast(hmc.STABLE * metric.narrowest, dtype),
            trajectory=tf.cast(hmc.QUARTER * metric.widest, dtype),
        )

    _, state = tf.while_loop(
        lambda i, _: i < total,
        move,
        (
            tf.constant(0),
            _Chain(
                w=hmc.START * tf.random.stateless_normal([settings.chains, dim], [seed, 1], dtype=dtype),
                origin=tf.zeros_like(center),
                factor=tf.eye(dim, dtype=dtype),
                step_size=tf.constant(hmc.FIRST_STEP, dtype),
                trajectory=tf.constant(hmc.FIRST_STEP * hmc.FIRST_LEAPFROG, dtype),
                visited=tf.zeros([total, hmc.CHUNK, settings.chains, dim], dtype),
                acceptance=tf.zeros([], dtype),
                divergences=tf.constant(0),
            ),
        ),
    )
    draws = tf.reshape(state.visited[warm:], [-1, settings.chains, dim])[: settings.draws]
    return {
        "draws": bend.to_u(tf.transpose(draws, [1, 0, 2])),
        "acceptance": state.acceptance,
        "divergences": state.divergences,
    }


def _best_first(log_prob: tf.Tensor) -> tf.Tensor:
    lowest = tf.constant(-np.inf, log_prob.dtype)
    return tf.argsort(tf.where(tf.math.is_nan(log_prob), lowest, log_prob), direction="DESCENDING")
