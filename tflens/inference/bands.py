"""The fit of one lens in several bands."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tflens.bands import BandsModel, BandsTarget
from tflens.errors import ParameterError
from tflens.inference.clock import Clock
from tflens.inference.initial import glance
from tflens.inference.map import Optimum, draw_starts, polish, search
from tflens.inference.pipeline import LIKELY, RENDERING_ERROR, Fit, arc_mask, find_neighbours
from tflens.inference.posterior import assemble
from tflens.inference.progress import Monitor, Progress, unwatched, watch
from tflens.inference.samplers import SAMPLERS
from tflens.inference.settings import FitSettings
from tflens.model import LensTarget
from tflens.observation import Observation


@dataclass(frozen=True)
class BandsFit:
    """A finished fit of several bands.

    Attributes:
        model: what was fitted.
        optimum: where the starts ended, best first, in the joint base space.
        u: joint draws `[chains, draws, dim]`.
        fits: of each band by name, as if it had been fitted alone: but draws and optima are the joint ones, so that
            what is shared is the same in all.
    """

    model: BandsModel
    optimum: Optimum
    u: np.ndarray
    fits: Mapping[str, Fit]


def fit_bands(
    observations: Mapping[str, Observation],
    model: BandsModel,
    settings: FitSettings | None = None,
    monitor: Monitor = unwatched,
) -> BandsFit:
    """Fits one lens in several bands at once, by the stages of `tflens.inference.pipeline.fit`.

    Images may differ in shape, pixel scale, PSF and noise; they are to be aligned: what is shared has the same
    coordinates, arcsec from the middle of each image.

    Args:
        observations: by the names of the model's bands.
        model: the model.
        settings: `FitSettings()` if None.
        monitor: told of the progress; it sees the first band.

    Raises:
        ParameterError: a band has no observation, or no source.
    """
    settings = settings or FitSettings()
    if set(observations) != set(model.models):
        raise ParameterError(
            f"fit_bands needs an observation in each of {list(model.models)}, got {list(observations)}"
        )
    for band, each in model.models.items():
        if not each.sources:
            raise ParameterError(f"the lens cannot be fitted without a source: give the model of {band} one")
    clock = Clock()
    looks = {band: glance(observations[band]) for band in model.models}
    coarse = {band: LensTarget(each, observations[band], looks[band].frame) for band, each in model.models.items()}
    for band, target in coarse.items():
        target.use(looks[band].mask[target.frame])
    clock.lap("look")

    starts = model.join(
        {
            band: draw_starts(each, looks[band], settings.starts, np.random.default_rng([settings.seed, 0, i]))
            for i, (band, each) in enumerate(model.models.items())
        }
    )
    joint = BandsTarget(model, coarse)
    found = search(joint, starts, settings.search_steps, settings.survivors, _watch_first(monitor, joint))
    likely = found.u[:LIKELY]
    fine = {
        band: target.refined(
            settings.supersampling,
            target.refinement(model.of_band(band, likely).numpy(), settings.supersampling, RENDERING_ERROR),
        )
        for band, target in coarse.items()
    }
    joint = BandsTarget(model, fine)
    progress = _watch_first(monitor, joint)
    optimum = polish(joint, found, settings.polish_steps, progress)
    neighbours = {
        band: find_neighbours(target, model.of_band(band, optimum.u[0]).numpy()) for band, target in fine.items()
    }
    if any(each.any() for each in neighbours.values()):
        for band, target in fine.items():
            target.use(target.mask & ~neighbours[band])
        optimum = polish(joint, optimum, settings.polish_steps // 2, progress)
    clock.lap("optimize")

    chains = SAMPLERS[settings.sampler](joint).draw(optimum, settings, progress)
    clock.lap("sample")
    fits = {}
    for band, target in fine.items():
        own = optimum._replace(u=model.of_band(band, optimum.u).numpy())
        best = target.evaluate(own.u[0])
        posterior = assemble(target, chains._replace(u=model.of_band(band, chains.u).numpy()), settings.seed)
        fits[band] = Fit(
            observations[band],
            model.models[band],
            settings,
            target,
            target.mask,
            looks[band],
            own,
            best,
            arc_mask(target, best),
            posterior,
            clock.laps,
            refine=target.refine,
        )
    return BandsFit(model, optimum, chains.u, fits)


def _watch_first(monitor: Monitor, joint: BandsTarget) -> Progress:
    band, target = next(iter(joint.targets.items()))
    progress = watch(monitor, target)
    return lambda stage, fraction, points: progress(
        stage, fraction, joint.model.of_band(band, points).numpy().astype(joint.model.dtype)
    )
