"""Maximum a posteriori by many starts: the first half of every fit."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tflens.inference.initial import Glance
from tflens.inference.optimize import (
    AdamState,
    LMState,
    adam,
    levenberg_marquardt_step,
    start_adam,
    start_levenberg_marquardt,
)
from tflens.inference.progress import Progress, silent
from tflens.model import LensModel, LensTarget

_FINALISTS = 3
_CHUNK = 4  # Levenberg-Marquardt steps between two looks of the host


class Optimum(NamedTuple):
    """What the starts found.

    Attributes:
        u: end points, best first, `[survivors, dim]`.
        log_prob: log posterior there, `[survivors]`.
        bad_gradients: how many gradients over all starts and steps were not finite.
    """

    u: np.ndarray
    log_prob: np.ndarray
    bad_gradients: int


def draw_starts(model: LensModel, look: Glance, n: int, rng: np.random.Generator) -> np.ndarray:
    """Starting points `[n, dim]`: the prior, contracted to half its width so that no start is hopeless, with the
    Einstein radius drawn where the image shows light that the lens does not explain (within 15 %), and the lens light
    near what a first look found."""
    u = 0.5 * rng.standard_normal((n, model.dim))
    radii = rng.choice(look.radii, size=n, p=look.weights) * np.exp(0.15 * rng.standard_normal(n))
    known = {name: value for name, value in look.light.items() if name in model.names}
    for i, radius in enumerate(radii):
        values = known | ({"lens.theta_E": float(radius)} if "lens.theta_E" in model.names else {})
        fixed = model.base(values)
        u[i] = np.where(fixed != 0, fixed + 0.05 * u[i], u[i])
    return u.astype(model.dtype)


def search(target: LensTarget, starts: np.ndarray, steps: int, survivors: int, progress: Progress = silent) -> Optimum:
    """Climbs from every start by Adam with a tempered likelihood, and keeps the best.

    The temperature falls from 30 to 1 over the first half of the steps, so that early on only the gross features of
    the image count and the starts can cross what would be barriers at full strength.
    """
    chunk = max(1, steps // 12)
    state = start_adam(tf.constant(starts))
    climb = target.program(_climb)
    for first in range(0, steps, chunk):
        fraction = first / steps
        rates = tf.fill([chunk], tf.constant(0.06 * (1 - 0.8 * fraction), starts.dtype))
        cooling = tf.constant(30.0 ** -max(0.0, 1 - 2 * fraction), starts.dtype)
        state, value = climb(state, rates, cooling)
        progress("search", min(1.0, (first + chunk) / steps), state.u.numpy()[_best_first(value.numpy())])
    order = _best_first(value.numpy())[:survivors]
    return Optimum(state.u.numpy()[order], value.numpy()[order], int(tf.reduce_sum(state.bad)))


def polish(target: LensTarget, optimum: Optimum, steps: int, progress: Progress = silent) -> Optimum:
    """Takes every point to the bottom of its basin by Levenberg-Marquardt, and sorts them anew.

    Most of the way down is quick, and only the best few points need the last steps: all take the first half of them,
    `_FINALISTS` the second.
    """
    descend, score = target.program(_descend), target.program(_score)

    def run(u: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        state = start_levenberg_marquardt(tf.constant(u))
        for done in range(first, last, _CHUNK):
            state = descend(state)
            points = state.u.numpy()[_best_first(-state.objective.numpy())]
            progress("polish", min(1.0, (done + _CHUNK) / steps), points)
        return state.u.numpy(), score(state.u).numpy()

    u, log_prob = run(optimum.u, 0, steps // 2)
    order = _best_first(log_prob)
    u, log_prob = u[order], log_prob[order]
    u[:_FINALISTS], log_prob[:_FINALISTS] = run(u[:_FINALISTS], steps // 2, steps)
    order = _best_first(log_prob)
    return Optimum(u[order], log_prob[order], optimum.bad_gradients)


def _climb(target: LensTarget, state: AdamState, rates: tf.Tensor, cooling: tf.Tensor) -> tuple[AdamState, tf.Tensor]:
    return adam(lambda u: target.value_and_gradient(u, cooling), state, rates)


def _descend(target: LensTarget, state: LMState) -> LMState:
    return tf.while_loop(
        lambda i, _: i < _CHUNK,
        lambda i, state: (i + 1, levenberg_marquardt_step(target, state)),
        (tf.constant(0), state),
    )[1]


def _score(target: LensTarget, u: tf.Tensor) -> tf.Tensor:
    return target.log_likelihood(u) + target.log_prior(u)


def _best_first(log_prob: np.ndarray) -> np.ndarray:
    return np.argsort(-np.nan_to_num(log_prob, nan=-np.inf), kind="stable")
