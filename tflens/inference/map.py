"""Maximum a posteriori by many starts: the first half of every fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.density import Density
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
from tflens.model import LensModel

_FINALISTS = 3
_FARTHEST = 4.0  # from the median that a search begins, in standard deviations of the prior
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


def draw_starts(
    model: LensModel,
    look: Glance,
    n: int,
    rng: np.random.Generator,
    guesses: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Starting points `[n, dim]`: the prior, contracted to half its width so that no start is hopeless, with the
    Einstein radius drawn where the image shows light that the lens does not explain (within 15 %), and the lens light
    near what a first look found.

    With guesses, values `[n]` by parameter (`tflens.inference.starter`), three of four starts take theirs.
    """
    u = 0.5 * rng.standard_normal((n, model.dim))
    radii = rng.choice(look.radii, size=n, p=look.weights) * np.exp(0.15 * rng.standard_normal(n))
    known = {name: value for name, value in look.light.items() if name in model.names}
    for i, radius in enumerate(radii):
        values = known | ({"lens.theta_E": float(radius)} if "lens.theta_E" in model.names else {})
        if guesses and i % 4:
            values = {name: float(guesses[name][i]) for name in model.names if name in guesses} | known
        # A guess may lie where a prior has no mass.
        fixed = np.clip(np.nan_to_num(model.base(values)), -_FARTHEST, _FARTHEST)
        u[i] = np.where(fixed != 0, fixed + 0.05 * u[i], u[i])
    return u.astype(model.dtype)


def search(target: Density, starts: np.ndarray, steps: int, survivors: int, progress: Progress = silent) -> Optimum:
    """Climbs from every start by Adam with a tempered likelihood, and keeps the best.

    The temperature falls from 30 to 1 over the first half of the steps, so that early on only the gross features of
    the image count and the starts can cross what would be barriers at full strength.
    """
    return search_each(target, starts, steps, survivors, progress)[0]


def search_each(
    target: Density, starts: np.ndarray, steps: int, survivors: int, progress: Progress = silent
) -> list[Optimum]:
    """What `search` does for each of a target's lenses, from starts `[lenses * n, dim]`."""
    state = start_adam(tf.constant(starts))
    climb = target.program(_climb)
    for done, rates, cooling in _stages(steps, starts.dtype):
        state, value = climb(state, rates, cooling)
        progress("search", min(1.0, done / steps), state.u.numpy()[_best_first(value.numpy())])
    return [
        _sorted(u, value, int(bad.sum()), survivors)
        for u, value, bad in zip(
            *(np.split(x.numpy(), target.lenses) for x in (state.u, value, state.bad)), strict=True
        )
    ]


def polish(target: Density, optimum: Optimum, steps: int, progress: Progress = silent) -> Optimum:
    """Takes every point to the bottom of its basin by Levenberg-Marquardt, and sorts them anew.

    Most of the way down is quick, and only the best few points need the last steps: all take the first half of them,
    `_FINALISTS` the second.
    """
    return polish_each(target, [optimum], steps, progress)[0]


def polish_each(target: Density, optima: Sequence[Optimum], steps: int, progress: Progress = silent) -> list[Optimum]:
    """What `polish` does for each of a target's lenses, with equally many points of each."""
    down, scored = target.program(descend), target.program(score)

    def run(optima: Sequence[Optimum], first: int, last: int) -> list[Optimum]:
        state = start_levenberg_marquardt(tf.constant(np.concatenate([each.u for each in optima])))
        for done in range(first, last, _CHUNK):
            state = down(state)
            points = state.u.numpy()[_best_first(-state.objective.numpy())]
            progress("polish", min(1.0, (done + _CHUNK) / steps), points)
        ends = zip(*(np.split(x, len(optima)) for x in (state.u.numpy(), scored(state.u).numpy())), strict=True)
        return [_sorted(u, value, each.bad_gradients) for (u, value), each in zip(ends, optima, strict=True)]

    half = run(optima, 0, steps // 2)
    finalists = [Optimum(u[:_FINALISTS], value[:_FINALISTS], bad) for u, value, bad in half]
    return [
        _sorted(
            np.concatenate([last.u, each.u[_FINALISTS:]]),
            np.concatenate([last.log_prob, each.log_prob[_FINALISTS:]]),
            each.bad_gradients,
        )
        for last, each in zip(run(finalists, steps // 2, steps), half, strict=True)
    ]


def _sorted(u: np.ndarray, log_prob: np.ndarray, bad_gradients: int, most: int | None = None) -> Optimum:
    order = _best_first(log_prob)[:most]
    return Optimum(u[order], log_prob[order], bad_gradients)


def climb_in_stages(target: Density, state: AdamState, steps: int) -> tuple[AdamState, tf.Tensor]:
    """All of a search's steps within one program: the state after them and the log posteriors `[starts]` there."""
    stages = [stage[1:] for stage in _stages(steps, state.u.dtype.as_numpy_dtype)]
    rates, cooling = (tf.stack(each) for each in zip(*stages, strict=True))

    def stage(i: tf.Tensor, state: AdamState, _: tf.Tensor) -> tuple[tf.Tensor, AdamState, tf.Tensor]:
        return i + 1, *_climb(target, state, rates[i], cooling[i])

    nothing = tf.zeros(tf.shape(state.u)[:1], state.u.dtype)
    return tf.while_loop(lambda i, *_: i < len(stages), stage, (tf.constant(0), state, nothing))[1:]


def _stages(steps: int, dtype: Any) -> Iterator[tuple[int, tf.Tensor, tf.Tensor]]:
    """Of a search: steps done after each stage, its learning rates, and the power of the likelihood in it."""
    chunk = max(1, steps // 12)
    for first in range(0, steps, chunk):
        fraction = first / steps
        rates = tf.fill([chunk], tf.constant(0.06 * (1 - 0.8 * fraction), dtype))
        yield first + chunk, rates, tf.constant(30.0 ** -max(0.0, 1 - 2 * fraction), dtype)


def _climb(target: Density, state: AdamState, rates: tf.Tensor, cooling: tf.Tensor) -> tuple[AdamState, tf.Tensor]:
    return adam(lambda u: target.value_and_gradient(u, cooling), state, rates)


def descend(target: Density, state: LMState, steps: int = _CHUNK) -> LMState:
    """Levenberg-Marquardt steps of every start within one program."""
    return tf.while_loop(
        lambda i, _: i < steps,
        lambda i, state: (i + 1, levenberg_marquardt_step(target, state)),
        (tf.constant(0), state),
    )[1]


def score(target: Density, u: tf.Tensor) -> tf.Tensor:
    """Log posteriors `[batch]` without their gradients."""
    return target.log_likelihood(u) + target.log_prior(u)


def _best_first(log_prob: np.ndarray) -> np.ndarray:
    return np.argsort(-np.nan_to_num(log_prob, nan=-np.inf), kind="stable")
