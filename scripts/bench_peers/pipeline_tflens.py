"""This package: the stages of `tflens.inference.pipeline.fit`.

`fit` itself first looks for the light of the lens, of which this workload has none; the rest of it is here.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from pipeline import NAMES, POSITIVE, PRIORS, START, Clock, Problem, Result
from workloads import LIGHT, PIXEL_SCALE

from tflens.quiet import import_tensorflow_quietly  # isort: split

import_tensorflow_quietly()

# ruff: noqa: E402
import tensorflow as tf

from tflens._tfp import tfd
from tflens.inference.map import polish, search
from tflens.inference.posterior import assemble
from tflens.inference.samplers import SAMPLERS
from tflens.inference.settings import FitSettings
from tflens.light import Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation
from tflens.parameters import log_normal, normal

SETTINGS = FitSettings(
    starts=48, search_steps=240, survivors=8, polish_steps=24, chains=8, warmup=120, draws=300, supersampling=1
)
_LIGHT = {"source_e1": "e1", "source_e2": "e2", "source_x": "center_x", "source_y": "center_y"}


def run(problem: Problem, seed: int, clock: Clock, settings: FitSettings = SETTINGS) -> Result:
    """Image to posterior."""
    settings = replace(settings, seed=seed)
    clock.lap("import")
    names = [_full_name(name) for name in NAMES]
    noise = np.ones_like(problem.image)
    observation = Observation(problem.image, noise, problem.kernel, pixel_scale=PIXEL_SCALE)
    model = LensModel(lens=[EPL(), Shear()], lens_light=[], source=Sersic(), sky=False, priors=_priors())
    target = LensTarget(model, observation)
    starts = START * np.random.default_rng([seed, 0]).standard_normal((settings.starts, model.dim))
    found = search(target, starts.astype(model.dtype), settings.search_steps, settings.survivors)
    clock.lap("search")
    optimum = polish(target, found, settings.polish_steps)
    clock.lap("polish")
    warm = Clock()

    def progress(stage: str, fraction: float, points: np.ndarray) -> None:
        if stage == "warm-up":
            warm.lap(stage)

    begun = clock.last
    chains = SAMPLERS[settings.sampler](target).draw(optimum, settings, progress)
    clock.lap("sample")
    sampling = (clock.last - warm.last) / (clock.last - begun)
    posterior = assemble(target, chains, seed)
    draws = np.stack([posterior.data.posterior[name].to_numpy() for name in names], -1)
    clock.lap("finish")
    gradients = settings.starts * settings.search_steps + chains.gradients
    # Of the polish; and of the metric, once at the optimum and at two draws of each chain in three windows.
    jacobians = settings.polish_steps // 2 * (settings.survivors + 3) + 1 + 6 * settings.chains
    return Result(draws, clock.stages, sampling, gradients, jacobians, _words(settings))


def _priors() -> dict[str, Any]:
    """The priors by the model's names; those of an ellipticity's two components stand together."""
    priors: dict[str, Any] = {}
    for name, (loc, scale) in PRIORS.items():
        if name != "amp":
            priors[_full_name(name)] = log_normal(float(np.exp(loc)), scale) if name in POSITIVE else normal(loc, scale)
    for label in ("lens", "source"):
        first = PRIORS["e1" if label == "lens" else "source_e1"]
        del priors[f"{label}.e1"], priors[f"{label}.e2"]
        priors[f"{label}.e1,e2"] = lambda dtype, scale=first[1]: tfd.MultivariateNormalDiag(
            tf.zeros(2, dtype), tf.fill([2], tf.constant(scale, dtype))
        )
    return priors


def _full_name(name: str) -> str:
    if name in ("gamma1", "gamma2"):
        return f"shear.{name}"
    return f"source.{_LIGHT.get(name, name)}" if name in LIGHT else f"lens.{name}"


def _words(settings: FitSettings) -> str:
    return (
        f"{settings.starts} starts x {settings.search_steps} Adam steps, {settings.survivors} polished in "
        f"{settings.polish_steps} steps, {settings.chains} chains x ({settings.warmup} + {settings.draws})"
    )
