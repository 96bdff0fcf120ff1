"""The ways from an optimum to a posterior, by name: what `FitSettings.sampler` chooses from.

Each is a class made with a target, whose instances keep what they compile for the next lens of that target.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import tensorflow as tf

from tflens.density import Density
from tflens.inference import hmc, nuts, smc, variational
from tflens.inference.convergence import ESS_FEW, R_HAT_APART, R_HAT_FAILED, convergence_of
from tflens.inference.map import Optimum
from tflens.inference.optimize import gauss_newton
from tflens.inference.progress import Progress
from tflens.inference.straight import Straight
from tflens.model import LensTarget
from tflens.names import is_mass

_MODES = 8  # optima that sequential Monte Carlo can start from
_ADAM_STEPS = 5  # of a variational fit for each transition of the warm-up


class Effort(Protocol):
    """How much of everything, and the seed: what a sampler asks of `FitSettings`."""

    @property
    def seed(self) -> int: ...

    @property
    def chains(self) -> int: ...

    @property
    def warmup(self) -> int: ...

    @property
    def draws(self) -> int: ...

    @property
    def rounds(self) -> int: ...


class Sampler(Protocol):
    """Draws from the posterior of a target."""

    def draw(self, optimum: Optimum, effort: Effort, progress: Progress) -> hmc.Chains:
        """Draws `[chains, draws, dim]`; independent ones are dealt out to chains."""


class MarkovChains:
    """Hamiltonian Monte Carlo, or the No-U-Turn Sampler, from the best optimum, in straight coordinates.

    Several lenses, if the density is of several, are sampled side by side (`tflens.inference.hmc.sample_each`).
    """

    def __init__(self, density: Density, make: Callable[..., hmc.Sampler], name: str) -> None:
        self._straight, self._name = Straight(density), name
        self._mass = [place for place, each in enumerate(density.model.names) if is_mass(each)]
        self._sampler = make(self._straight.log_prob, density.model.dim, density.model.dtype)

    def draw(self, optimum: Optimum, effort: Effort, progress: Progress) -> hmc.Chains:
        return self.draw_each([optimum], effort, progress)[0]

    def draw_each(self, optima: Sequence[Optimum], effort: Effort, progress: Progress) -> list[hmc.Chains]:
        """Of each lens."""
        for lens, optimum in enumerate(optima):
            self._straight.straighten(lens, optimum.u[0])
        found = hmc.sample_each(
            self._sampler,
            np.stack([np.zeros_like(optimum.u[0]) for optimum in optima]),
            self._straight.curvatures,
            straighten=self._straight.learn if self._straight.learns else None,
            chains=effort.chains,
            warmup=effort.warmup,
            draws=effort.draws,
            rounds=effort.rounds,
            enough=lambda each: all(self._settled(lens, v) for lens, v in enumerate(each)),
            seed=effort.seed,
            progress=self._straight.progress(progress),
        )
        return [
            chains._replace(
                u=self._straight.draws_to_u(lens, chains.u), figures={"sampler": self._name, **chains.figures}
            )
            for lens, chains in enumerate(found)
        ]

    def _settled(self, lens: int, v: np.ndarray) -> bool:
        """Whether a further round is of no use: the chains of a lens, `[chains, draws, dim]`, agree on its mass so far
        that its check can pass, or so little that it will not. One that never moved may, once it is tuned."""
        if not self._mass:
            return True
        found = convergence_of(self._straight.draws_to_u(lens, v)[..., self._mass])
        agree = (found.r_hat < R_HAT_FAILED).all() and (found.ess > ESS_FEW).all()
        all_moved = np.ptp(v, axis=1).any(-1).all()
        return bool(agree or (all_moved and found.r_hat.max() > R_HAT_APART))


class SequentialMonteCarlo:
    """Particles from broad Gaussians around all optima that count, `draws` of them in each of `chains` islands."""

    def __init__(self, target: LensTarget) -> None:
        self._target = target
        self._sampler = smc.Sampler(normalized(target), target.model.dim, target.model.dtype, _MODES)

    def draw(self, optimum: Optimum, effort: Effort, progress: Progress) -> hmc.Chains:
        found = smc.sample(
            self._sampler,
            smc.around_optima(optimum.u, optimum.log_prob, partial(_curvatures, self._target), _MODES),
            islands=effort.chains,
            particles=effort.draws,
            seed=effort.seed,
            progress=progress,
        )
        return hmc.Chains(
            u=found.u,
            log_prob=found.log_prob + _constant(self._target),
            acceptance=found.acceptance,
            diverging=found.diverging,
            step_size=found.step_size,
            leapfrog_steps=found.leapfrog_steps,
            gradients=found.gradients,
            figures={
                "sampler": "smc",
                "log_evidence": found.log_evidence,
                "log_evidence_error": found.log_evidence_error,
                "lowest_acceptance": float(found.acceptances.min()),
                "temperatures": found.temperatures,
            },
        )


class VariationalFit:
    """A surrogate of the posterior: a Gaussian, or a flow on top of it; `chains` times `draws` independent draws."""

    def __init__(self, target: LensTarget, name: str, flow: bool) -> None:
        self._target, self._name = target, name
        self._variational = variational.Variational(normalized(target), target.model.dim, target.model.dtype, flow)

    def draw(self, optimum: Optimum, effort: Effort, progress: Progress) -> hmc.Chains:
        found = variational.fit(
            self._variational,
            optimum.u[0],
            _curvatures(self._target, optimum.u[:1])[0],
            steps=_ADAM_STEPS * effort.warmup,
            draws=effort.chains * effort.draws,
            seed=effort.seed,
            progress=progress,
        )
        shape = (effort.chains, effort.draws)
        return hmc.Chains(
            u=found.u.reshape(*shape, -1),
            log_prob=found.log_prob.reshape(shape) + _constant(self._target),
            acceptance=np.ones(shape),
            diverging=np.zeros(shape, bool),
            step_size=0.0,
            leapfrog_steps=0.0,
            gradients=found.gradients,
            figures={
                "sampler": self._name,
                "elbo": found.elbo,
                "elbo_error": found.elbo_error,
                "pareto_k": found.pareto_k,
                "bad_steps": found.bad_steps,
                "elbo_history": found.history,
            },
        )


SAMPLERS: Mapping[str, Callable[[LensTarget], Sampler]] = {
    "hmc": partial(MarkovChains, make=hmc.Sampler, name="hmc"),
    "nuts": partial(MarkovChains, make=nuts.Sampler, name="nuts"),
    "smc": SequentialMonteCarlo,
    "vi-gaussian": partial(VariationalFit, name="vi-gaussian", flow=False),
    "vi-iaf": partial(VariationalFit, name="vi-iaf", flow=True),
}


def normalized(target: LensTarget) -> Callable[[tf.Tensor], tf.Tensor]:
    """log_prob of a target with the prior's constant, which the target leaves out: log likelihood + log N(u; 0, I).

    Its integral is the evidence in units of the density that the target's likelihood leaves out, the noise's:
    prod (2 pi sigma^2)^(-1/2) over the used pixels, the same for all models of one image and mask.
    """
    return lambda u: target.log_prob(u) - _constant(target)


def _constant(target: LensTarget) -> float:
    """What the log prior of a target leaves out."""
    return float(0.5 * target.model.dim * np.log(2 * np.pi))


def _curvatures(target: LensTarget, points: np.ndarray) -> np.ndarray:
    """Gauss-Newton matrices `[n, dim, dim]` at points `[n, dim]`."""
    one = target.program(_curvature)
    return np.stack([one(tf.constant(u)).numpy() for u in points])


def _curvature(target: LensTarget, u: tf.Tensor) -> tf.Tensor:
    return gauss_newton(target, u).curvature
