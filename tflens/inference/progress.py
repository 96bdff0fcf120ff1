"""How a running fit tells what it is doing."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from tflens.model import Evaluation, LensTarget

# What optimisers and samplers call between compiled chunks: the name of the stage, the fraction of it that is done,
# and the current points in base space, `[n, dim]`, the best first where they differ in worth.
Progress = Callable[[str, float, np.ndarray], None]


def silent(stage: str, fraction: float, points: np.ndarray) -> None:
    """Reports nothing."""


STAGES = ("look", "search", "polish", "warm-up", "sampling")


@dataclass(frozen=True)
class Status:
    """Where a fit stands. What it can tell of the points is computed when it is asked for, and once.

    Attributes:
        stage: one of `STAGES`. The polish may run twice.
        fraction: of the stage, 0 to 1.
        points: current points in base space, `[n, dim]`, the best first where they differ in worth; empty in the
            first look.
        target: the log posterior, which turns points into parameters and images; None in the first look.
    """

    stage: str
    fraction: float
    points: np.ndarray
    target: LensTarget | None = None

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """Physical parameters of the points by name, `[n]` each; none in the first look."""
        if self.target is None:
            return {}
        return {name: value.numpy() for name, value in self.target.model.physical(tf.constant(self.points)).items()}

    @cached_property
    def log_prob(self) -> float:
        """Log posterior of the first point, up to a constant; NaN in the first look."""
        return self._score[0]

    @cached_property
    def chi2(self) -> float:
        """Mean squared residual of the first point over the used pixels; NaN in the first look."""
        return self._score[1]

    @cached_property
    def best(self) -> Evaluation | None:
        """The model at the first point; None in the first look."""
        return None if self.target is None else self.target.evaluate(self.points[0])

    @cached_property
    def _score(self) -> tuple[float, float]:
        if self.target is None:
            return float("nan"), float("nan")
        point = tf.constant(self.points[:1])
        solution = self.target.linear(point)
        log_prob = float((solution.log_likelihood + self.target.log_volume(point) + self.target.log_prior(point))[0])
        return log_prob, float(tf.reduce_sum(solution.residual**2)) / np.count_nonzero(self.target.mask)


# What a whole fit calls. It runs in the fit's own thread: what it takes, the fit waits for.
Monitor = Callable[[Status], None]


def unwatched(status: Status) -> None:
    """Shows nothing."""


def watch(monitor: Monitor, target: LensTarget) -> Progress:
    """The `Progress` that tells a monitor of a fit of `target`."""
    return lambda stage, fraction, points: monitor(Status(stage, fraction, points, target))
