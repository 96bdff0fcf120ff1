"""The No-U-Turn Sampler (Hoffman & Gelman 2014, J. Mach. Learn. Res. 15, 1593): trajectories find their own length.

Coordinates, warm-up and step size are those of `tflens.inference.hmc.sample`, which takes a `Sampler` of this file as
well as its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tflens._tfp import mcmc
from tflens.inference import hmc

_MAX_TREE_DEPTH = 7  # trajectories of up to 127 steps


class Sampler(hmc.Sampler):
    """What `hmc.Sampler` is, with trajectories that end where they turn back.

    Chains move in one batch, which waits for the longest of their trajectories: the gradients that are counted are
    those that were computed, whether or not a chain still had use for them.

    Args:
        log_prob: of `[chains, dim]`, returning `[chains]`.
        dim: number of coordinates.
        dtype: of the coordinates.

    Example:
        >>> sampler = Sampler(lambda u: -0.5 * tf.reduce_sum(u**2, -1), 2, "float64")
        >>> curvature = lambda points: np.repeat(np.eye(2)[None], len(points), 0)
        >>> chains = hmc.sample(sampler, np.zeros(2), curvature, chains=3, warmup=20, draws=20)
        >>> chains.u.shape, int(chains.diverging.sum())
        ((3, 20, 2), 0)
    """

    def __init__(self, log_prob: Callable[[tf.Tensor], tf.Tensor], dim: int, dtype: Any = "float32") -> None:
        super().__init__(log_prob, dim, dtype)
        self._evaluations = tf.Variable(0, trainable=False)

    def move(self, w: tf.Tensor, step_size: np.ndarray, trajectory: np.ndarray, rng: np.random.Generator) -> hmc.Piece:
        """A chunk of transitions of chains at `w`; a trajectory's length is not asked for."""
        points, u, density, log_accept, diverging, leapfrog_steps, evaluations = self.transit(
            w, self._of_chains(step_size, w), hmc.draw_seed(rng)
        )
        return hmc.Piece(
            w=points[-1],
            u=u.numpy(),
            log_prob=density.numpy(),
            acceptance=np.exp(np.minimum(np.nan_to_num(log_accept.numpy(), nan=-np.inf), 0.0)),
            diverging=diverging.numpy(),
            leapfrog_steps=float(np.mean(leapfrog_steps)),
            gradients=int(evaluations) * len(w),
        )

    def _transit(self, w: tf.Tensor, step_size: tf.Tensor, seed: tf.Tensor) -> Any:
        self._evaluations.assign(0)
        points, traced = mcmc.sample_chain(
            self.transitions,
            w,
            kernel=mcmc.NoUTurnSampler(
                self._counted, step_size, max_tree_depth=_MAX_TREE_DEPTH, max_energy_diff=hmc.DIVERGENCE
            ),
            trace_fn=lambda _, results: (
                results.target_log_prob,
                results.log_accept_ratio,
                results.has_divergence,
                results.leapfrogs_taken,
            ),
            seed=seed,
        )
        return points, self._to_u(points), *traced, self._evaluations.read_value()

    def _counted(self, w: tf.Tensor) -> tf.Tensor:
        self._evaluations.assign_add(1)
        return self.log_prob(self._to_u(w))
