"""From an observation to a posterior: a first look, many starts, a polish, and a sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from scipy import ndimage

from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.inference import hmc
from tflens.inference.check import Finding, check
from tflens.inference.clock import Clock
from tflens.inference.discrepancy import (
    MODES,
    Discrepancy,
    allow_for_discrepancy,
    applies_to,
    find_discrepancy,
)
from tflens.inference.initial import (
    Glance,
    bulge_and_disc,
    centered_priors,
    find_center,
    glance,
    light_target,
    smooth_noise,
)
from tflens.inference.map import Optimum, draw_starts, polish, polish_each, search, search_each
from tflens.inference.posterior import Posterior, assemble
from tflens.inference.progress import Monitor, Status, unwatched, watch
from tflens.inference.reach import check_reach
from tflens.inference.samplers import SAMPLERS, MarkovChains, Sampler
from tflens.inference.settings import FitSettings
from tflens.inference.starter import Starter
from tflens.lens_batch import LensBatch
from tflens.light import LightProfile
from tflens.mass import EPL, Shear
from tflens.model import Evaluation, LensModel, LensTarget
from tflens.observation import Observation
from tflens.refinement import standard_room

LIKELY = 3  # points of the search for which pixels are sampled finely enough
# The largest in a pixel, in units of the noise: of a lens by itself, and of lenses that share programs, where what one
# needs is paid for by all that have its room.
RENDERING_ERROR, _SHARED_RENDERING_ERROR = 0.05, 0.1


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes:
        observation, model, settings: what was fitted, with what, how.
        compiled: the log posterior's programs, which lenses of one `Fitter` share: `target` has this lens's data.
        mask: the pixels that were fitted, `[ny, nx]` of the frame.
        look: the first look at the image.
        optimum: where the starts ended, best first.
        best: the model at the best optimum.
        arcs: pixels of the arcs, see `arc_mask`.
        posterior: the draws.
        seconds: wall time of each stage; of lenses that were fitted together, of all of them.
        discrepancy: what the source has beside what its network draws; None if that is enough.
        refine: into how many parts along its side each pixel was divided, `[ny, nx]` of the frame; None if none was.
    """

    observation: Observation
    model: LensModel
    settings: FitSettings
    compiled: LensTarget
    mask: np.ndarray
    look: Glance
    optimum: Optimum
    best: Evaluation
    arcs: np.ndarray
    posterior: Posterior
    seconds: dict[str, float]
    discrepancy: Discrepancy | None = None
    refine: np.ndarray | None = None

    @property
    def target(self) -> LensTarget:
        """The log posterior that was explored. It is good until another lens of the same `Fitter` is fitted, or its
        `target` asked for: ask for it where it is used."""
        if self.compiled.observation is not self.observation or not np.array_equal(self.compiled.mask, self.mask):
            self.compiled.observe(self.observation)
            self.compiled.use(self.mask)
        if self.compiled.discrepancy is not self.discrepancy:
            self.compiled.forgive(self.discrepancy)
        if self.refine is not None and not np.array_equal(self.compiled.refine, self.refine):
            self.compiled.refine_by(self.refine)
        return self.compiled

    def check(self) -> list[Finding]:
        """Whether the fit can be trusted, in words: see `tflens.inference.check`."""
        return check(self)

    def diagnostics(self) -> dict[str, Any]:
        """What tells a good fit from a bad one: chi^2 per used pixel (all, and in the arcs), agreement of the starts,
        convergence of the chains, gradients that were not finite, and |u|^2 / D of the source's latents, which is 1
        for a galaxy that the network knows and larger for one that it does not."""
        draws = self.posterior.data.posterior["u"].to_numpy()
        latents = draws.reshape(-1, self.model.dim)[:, self.model.physical_dim :]
        latent_norm = float(np.mean(np.sum(latents**2, -1)) / latents.shape[-1]) if latents.size else None
        return {
            "chi2": self.best.chi2,
            "chi2_arcs": float(np.mean(self.best.whitened[self.arcs] ** 2)) if self.arcs.any() else None,
            "arc_pixels": int(self.arcs.sum()),
            "used_pixels": int(self.mask.sum()),
            "starts_agreeing": int(np.sum(self.optimum.log_prob > self.optimum.log_prob[0] - 2.0)),
            "starts_polished": len(self.optimum.log_prob),
            "bad_gradients": self.optimum.bad_gradients,
            "latent_norm": latent_norm,
            "discrepancy": 0.0 if self.discrepancy is None else self.discrepancy.strength,
            **self.posterior.diagnostics,
        }


def fit(
    observation: Observation,
    model: LensModel | None = None,
    settings: FitSettings | None = None,
    monitor: Monitor = unwatched,
) -> Fit:
    """Fits a strong lens: mass, lens light and source at once, and samples the posterior.

    1. A first look finds the lens and where there is light it does not explain; a disc around it is fitted, without
       neighbours.
    2. Many starts, drawn broadly, climb by Adam with a tempered likelihood; the best are polished by
       Levenberg-Marquardt, with pixels sampled so finely that rendering errors stay below 1/20 of the noise.
    3. Neighbours that the model cannot be meant to explain are masked, and the survivors polished again.
    4. If the data ask for it, a random field is allowed for beside the galaxy that the network draws, and the survivors
       are polished again (`tflens.inference.discrepancy.allow_for_discrepancy`).
    5. Hamiltonian Monte Carlo runs from the optimum, whitened at first by the Gauss-Newton matrix there, then by what
       its chains have seen (`tflens.inference.hmc.sample`), which with a neural source also teaches it straighter
       coordinates (`tflens.inference.couplings`), in as many rounds as are of use (`FitSettings.rounds`); or
       another of `tflens.inference.samplers.SAMPLERS`.

    Args:
        observation: the data.
        model: `default_model` if None: power law with shear, bulge and disc, a neural source.
        settings: `FitSettings()` if None.
        monitor: told of the progress between compiled chunks, with a `Status`.

    Raises:
        ParameterError: the model has no source, or a prior that does not reach into the image.
    """
    if model is not None:
        return Fitter(model, settings).fit(observation, monitor)
    # Without a model the lens is looked for first, so that the model knows where it is.
    return Fitter(default_model(find_center(observation)), settings).fit(observation, monitor)


class Fitter:
    """Fits of lenses with one model, one after another.

    Lenses whose images have one shape, pixel scale and PSF share what is compiled: the first fit takes most of a
    minute longer than those after it. What `fit` does is told there.

    Args:
        model: of every lens.
        settings: `FitSettings()` if None.
        crop: whether only the pixels around a lens are computed. Faster for one lens in a large image; but then the
            shape is that lens's own, and nothing can be shared. Lenses that share have rendering errors of up to 0.1
            of the noise in a pixel, others of 0.05.
        refine: how finely pixels are sampled from the polish on, `[ny, nx]`: `Fit.refine` of a lens whose fit is to be
            repeated, without those before it that led to it. For the whole image, without `crop`.

    Raises:
        ParameterError: the model has no source.
    """

    def __init__(
        self,
        model: LensModel,
        settings: FitSettings | None = None,
        crop: bool = True,
        refine: np.ndarray | None = None,
    ) -> None:
        if not model.sources:
            raise ParameterError("a lens cannot be fitted without a source: give LensModel a source")
        self.model, self.settings, self.crop = model, settings or FitSettings(), crop
        self._refine = refine
        self._compiled: _Compiled | None = None
        self._starter: Starter | None = None

    def fit(self, observation: Observation, monitor: Monitor = unwatched, seed: int | None = None) -> Fit:
        """Fits one lens.

        Args:
            observation: the data.
            monitor: told of the progress.
            seed: instead of that of the settings.
        """
        settings = self.settings if seed is None else replace(self.settings, seed=seed)
        clock = Clock()
        shared, look = self._look(observation, monitor)
        coarse = shared.coarse
        clock.lap("look")

        starts = self._starts(observation, look, settings, np.random.default_rng([settings.seed, 0]))
        found = search(coarse, starts, settings.search_steps, settings.survivors, watch(monitor, coarse))
        target = shared.finer(shared.refinement(found.u[:LIKELY], settings.supersampling), settings.supersampling)
        progress = watch(monitor, target)
        optimum = polish(target, found, settings.polish_steps, progress)
        neighbours = find_neighbours(target, optimum.u[0])
        if neighbours.any():
            target.use(target.mask & ~neighbours)
            optimum = polish(target, optimum, settings.polish_steps // 2, progress)
        if target.modes:
            optimum = allow_for_discrepancy(target, optimum, settings.polish_steps // 2, progress)
        clock.lap("optimize")

        chains = shared.sampler_of(target).draw(optimum, settings, progress)
        clock.lap("sample")
        return self._finish(observation, settings, target, look, optimum, chains, clock)

    def fit_together(
        self, observations: Sequence[Observation], monitor: Monitor = unwatched, seed: int | None = None
    ) -> list[Fit]:
        """Fits several lenses side by side: every stage is one program over all of them.

        For a device that is fast only if it has much to do at once. What a lens draws depends on those beside it
        (through the number of steps of their trajectories), not its posterior.

        Args:
            observations: of one shape, pixel scale and PSF, their noise white or correlated alike.
            monitor: told of the progress.
            seed: instead of that of the settings.

        Raises:
            ParameterError: they do not share these; the lenses are cropped (`crop`), or the sampler is not "hmc".
        """
        settings = self.settings if seed is None else replace(self.settings, seed=seed)
        if self.crop or settings.sampler != "hmc":
            raise ParameterError(
                f"Fitter.fit_together needs crop=False and the sampler hmc, got crop={self.crop} and "
                f"{settings.sampler!r}: fit these lenses one by one"
            )
        clock = Clock()
        looks = []
        for number, observation in enumerate(observations):
            before = self._compiled
            shared, look = self._look(observation, monitor)
            if number and shared is not before:
                raise ParameterError(
                    f"Fitter.fit_together: {observation.name!r} differs from the lenses before it in shape, pixel "
                    "scale, PSF, or in whether its noise is correlated; fit them apart"
                )
            looks.append(look)
        clock.lap("look")

        coarse = shared.together(shared.coarse, observations, [look.mask for look in looks])
        starts = np.concatenate(
            [
                self._starts(observation, look, settings, np.random.default_rng([settings.seed, 0, lens]))
                for lens, (observation, look) in enumerate(zip(observations, looks, strict=True))
            ]
        )
        optima = search_each(coarse, starts, settings.search_steps, settings.survivors, watch(monitor, coarse.target))
        refine = None  # one map for all
        for lens, each in enumerate(optima):
            coarse.see(lens)
            refine = shared.refinement(each.u[:LIKELY], settings.supersampling, refine)
        target = shared.finer(refine, settings.supersampling)
        batch = shared.together(target, observations, [look.mask for look in looks])
        progress = watch(monitor, target)
        optima = polish_each(batch, optima, settings.polish_steps, progress)
        for lens, each in enumerate(optima):
            batch.see(lens)
            target.use(target.mask & ~find_neighbours(target, each.u[0]))
            batch.take(lens)
        optima = polish_each(batch, optima, settings.polish_steps // 2, progress)
        # What `allow_for_discrepancy` does for one lens, but for its last rounds.
        for goes_with_lens in (False, True) if target.modes else ():
            for lens, each in enumerate(optima):
                batch.see(lens)
                found = find_discrepancy(target, each.u[0])
                target.forgive(found if found is None or goes_with_lens else found.at_rest())
                batch.take(lens)
            optima = polish_each(batch, optima, settings.polish_steps // 2, progress)
        clock.lap("optimize")

        each_chains = shared.sampler_of(batch).draw_each(optima, settings, progress)
        clock.lap("sample")
        fits = []
        for lens, (observation, look, optimum, chains) in enumerate(
            zip(observations, looks, optima, each_chains, strict=True)
        ):
            batch.see(lens)
            fits.append(self._finish(observation, settings, target, look, optimum, chains, clock))
        return fits

    def _look(self, observation: Observation, monitor: Monitor) -> "tuple[_Compiled, Glance]":
        """The first look at a lens, and the programs for it, which see it."""
        check_reach(self.model, observation)
        monitor(Status("look", 0.0, np.zeros((0, 0))))
        shared = None if self.crop else self._compiled
        if shared and not shared.coarse.suits(observation):
            shared = None
        light = shared.light if shared else light_target(observation)
        look = glance(observation, light)
        if shared is None:
            frame = look.frame if self.crop else None
            shared = self._compiled = _Compiled(
                light,
                LensTarget(self.model, observation, frame),
                SAMPLERS[self.settings.sampler],
                self.crop,
                self._refine,
            )
        shared.coarse.observe(observation)
        shared.coarse.use(look.mask[shared.coarse.frame])
        monitor(Status("look", 1.0, np.zeros((0, 0))))
        return shared, look

    def _starts(
        self, observation: Observation, look: Glance, settings: FitSettings, rng: np.random.Generator
    ) -> np.ndarray:
        guesses = None
        if settings.start == "network":
            if self._starter is None:
                self._starter = Starter.load()
            guesses = self._starter.draw(observation, look.center, settings.starts, rng)
        return draw_starts(self.model, look, settings.starts, rng, guesses)

    def _finish(
        self,
        observation: Observation,
        settings: FitSettings,
        target: LensTarget,
        look: Glance,
        optimum: Optimum,
        chains: hmc.Chains,
        clock: Clock,
    ) -> Fit:
        posterior = assemble(target, chains, settings.seed)
        best = target.evaluate(optimum.u[0])
        arcs = arc_mask(target, best)
        clock.lap("assemble")
        return Fit(
            observation,
            self.model,
            settings,
            target,
            target.mask,
            look,
            optimum,
            best,
            arcs,
            posterior,
            dict(clock.laps),
            target.discrepancy,
            target.refine,
        )


class _Compiled:
    """The programs of a fit, for all lenses of one shape.

    Attributes:
        light: for the first look.
        coarse: for the search, one sample a pixel.
        sampler: of the finer target.
    """

    def __init__(
        self,
        light: LensTarget,
        coarse: LensTarget,
        make_sampler: Callable[[LensTarget], Sampler],
        alone: bool,
        refine: np.ndarray | None,
    ) -> None:
        self.light, self.coarse, self._alone, self._refine = light, coarse, alone, refine
        self._make_sampler = make_sampler
        self._modes = MODES if applies_to(coarse.model) else 0
        self._fine: dict[frozenset[tuple[int, int]], LensTarget] = {}
        self._batches: dict[tuple[LensTarget, int], LensBatch] = {}
        self._samplers: dict[LensTarget | LensBatch, Sampler | MarkovChains] = {}

    def refinement(self, u: np.ndarray, supersampling: int, at_least: np.ndarray | None = None) -> np.ndarray | None:
        """Which pixels models near `u` of the lens that is seen need more finely, none less than `at_least`; None where
        there is nothing finer."""
        if supersampling == 1:
            return None
        refine = self._refine
        if refine is None:
            tolerance = RENDERING_ERROR if self._alone else _SHARED_RENDERING_ERROR
            refine = self.coarse.refinement(u, supersampling, tolerance)
        return refine if at_least is None else np.maximum(refine, at_least)

    def finer(self, refine: np.ndarray | None, supersampling: int) -> LensTarget:
        """A target sampled by a map, of the lens that is seen. Lenses whose maps are about as large share one."""
        if refine is None:
            return self.coarse
        room = None if self._alone else standard_room(refine)
        key = frozenset((room or {}).items())
        fine = self._fine.get(key)
        if fine is None:
            fine = self._fine[key] = self.coarse.refined(supersampling, refine, self._modes, room)
        else:
            fine.observe(self.coarse.observation)
            fine.use(self.coarse.mask)
            fine.refine_by(refine)
        return fine

    def together(
        self, target: LensTarget, observations: Sequence[Observation], masks: Sequence[np.ndarray]
    ) -> LensBatch:
        """A batch of lenses that share a target's programs; the last one of that target and as many lenses if there is
        one."""
        key = target, len(observations)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = LensBatch(target, len(observations))
        for lens, (observation, mask) in enumerate(zip(observations, masks, strict=True)):
            target.observe(observation)
            target.use(mask)
            batch.take(lens)
        return batch

    def sampler_of(self, density: LensTarget | LensBatch) -> Sampler | MarkovChains:
        """The sampler of a target or of a batch, made once."""
        if density not in self._samplers:
            self._samplers[density] = (
                MarkovChains(density, partial(hmc.Sampler, lenses=density.lenses), "hmc")
                if isinstance(density, LensBatch)
                else self._make_sampler(density)
            )
        return self._samplers[density]


def default_model(center: tuple[float, float] = (0.0, 0.0), source: LightProfile | None = None) -> LensModel:
    """Elliptical power law with external shear, a `bulge_and_disc` of lens light, a sky, and a source.

    Args:
        center: of the lens's light, arcsec. The mass is centred there within 0.05 arcsec, the light within 0.1 arcsec
            (one standard deviation of the prior).
        source: `NeuralSource()` if None.
    """
    lens_light, priors = bulge_and_disc(center, 0.1)
    return LensModel(
        lens=[EPL(), Shear()],
        lens_light=lens_light,
        source=source or NeuralSource(),
        priors=centered_priors(["lens"], center, 0.05) | priors,
    )


def arc_mask(target: LensTarget, best: Evaluation) -> np.ndarray:
    """Pixels of the arcs, `[ny, nx]`: where the model puts lensed light above the noise, **or** the data have
    significant light that the model's lens light does not explain. So a fit cannot hide arcs by ignoring them."""
    excess = np.where(target.mask, (target.image - best.lens_light) / target.noise, 0.0)
    significant = smooth_noise(excess, target.observation.noise_correlation) > 3.0
    return target.mask & ((best.lensed_source > target.noise) | significant)


def find_neighbours(target: LensTarget, u: np.ndarray) -> np.ndarray:
    """Pixels of objects that are left in the residual outside the arcs, `[ny, nx]`.

    An object counts as a neighbour where a connected residual above 5 sigma lies wholly beyond 1.25 theta_E, and the
    model puts no light of the source there.
    """
    best = target.evaluate(u)
    values = {name: float(value[0]) for name, value in target.model.physical(tf.constant(u[None])).items()}
    if "lens.theta_E" not in values:
        return np.zeros(target.mask.shape, bool)
    x, y = target.grid.coordinates()
    radius = np.hypot(x - values["lens.center_x"], y - values["lens.center_y"])
    smooth = smooth_noise(np.nan_to_num(best.residual), target.observation.noise_correlation)
    labels, count = ndimage.label(smooth > 5.0)
    found = np.zeros(target.mask.shape, bool)
    for label in range(1, count + 1):
        blob = labels == label
        if radius[blob].min() > 1.25 * values["lens.theta_E"] and (best.lensed_source[blob] < target.noise[blob]).all():
            found |= ndimage.binary_dilation(blob, iterations=3)
    # The margin around a neighbour must not eat into arcs that pass close by.
    return found & target.mask & (best.lensed_source < target.noise)
