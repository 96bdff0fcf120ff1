"""The whole evaluation of one saved model on galaxies that it has never seen: G1 to G8 and L1 to L4, as records.

Every figure stands beside its null (what a perfect model would reach, as two halves of the data or training draws
show), an anchor from elsewhere, and two aims, "reach" and "beat".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens.datasets.pipeline import hst_psf, observed_galaxies
from tflens.datasets.records import Dataset
from tflens.errors import ParameterError
from tflens.galaxies.candidates import FlowPrior, GaussianPrior, Prior, fit_candidates
from tflens.galaxies.latent_metrics import c2st, importance_weighted_bounds, mean_and_error, sliced_wasserstein
from tflens.galaxies.metrics import (
    active_units,
    distribution_distances,
    log_power,
    noiseless_residual,
    peak_error,
    reduced_chi2,
    ssim,
    transfer,
)
from tflens.galaxies.morphology import failed_share, morphology_statistics
from tflens.galaxies.posterior import Draw, FlowPosterior, GaussianPosterior, Posterior
from tflens.galaxies.reconstruct import fit_latents
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.targets import Band, anchor_of, target_of, verdict
from tflens.measured import Record
from tflens.psf import PSF

Images = NDArray[np.float32]
Array = NDArray[np.floating]
Report = Callable[[str], None]

LOW: Band = (15.0, 50.0)
HIGH: Band = (100.0, 300.0)


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is measured.

    Args:
        galaxies: held-out galaxies, and as many prior samples.
        seed: of everything random.
        bands: ranges of S/N of the G figures; sharpness (G8) is measured in the last.
        latent_snr: range of S/N of the L figures; that of the training, to which the prior belongs.
        optimised: galaxies whose u is found by optimisation too.
        prior_draws: draws of q(z|x) for each training galaxy to which the candidates are fitted; as many as the flow
            was.
        latent_seeds: repetitions of L1 and L2.
        iwae_galaxies: galaxies of L4; 0 leaves it out.
        iwae_samples: K of L4.
        processes: that measure morphology.
        cache: folder for measured morphologies, or None.
    """

    galaxies: int = 2000
    seed: int = 0
    bands: tuple[Band, ...] = (LOW, HIGH)
    latent_snr: Band = LOW
    optimised: int = 128
    prior_draws: int = 4
    latent_seeds: int = 5
    iwae_galaxies: int = 1000
    iwae_samples: int = 500
    processes: int = 1
    cache: Path | None = None


@dataclass(frozen=True)
class Observed:
    """Galaxies as they are observed: `truth` before the PSF, `signal` after it, `image` with noise; `[N, n, n]`.

    `condition` is what a conditional flow is told of them, `[N, C]`.
    """

    truth: Images
    signal: Images
    image: Images
    sigma: Array
    condition: Array | None = None

    def __getitem__(self, part: slice) -> "Observed":
        condition = None if self.condition is None else self.condition[part]
        return Observed(self.truth[part], self.signal[part], self.image[part], self.sigma[part], condition)


@dataclass
class Evaluation:
    """The records, and what the figures are drawn from.

    Args:
        variant: name of the model.
        seed: of everything random.
        records: see `evaluate_galaxy_model`.
        observed: held-out galaxies by range of S/N.
        prior: prior samples by range of S/N.
        decoded: reconstructions before the PSF, from the mean of q, by range of S/N.
        seen: the same after the PSF.
        statistics: morphology of held-out galaxies and of prior samples, by range of S/N.
        sharpness: curves of G8: names to wave number and ratio.
        latents: draws of the aggregate posterior (`held-out`) and of the candidates, `[N, D]`.
    """

    variant: str
    seed: int = 0
    records: list[Record] = field(default_factory=list)
    observed: dict[Band, Observed] = field(default_factory=dict)
    prior: dict[Band, Observed] = field(default_factory=dict)
    decoded: dict[Band, Images] = field(default_factory=dict)
    seen: dict[Band, Images] = field(default_factory=dict)
    statistics: dict[Band, tuple[dict[str, Array], dict[str, Array]]] = field(default_factory=dict)
    sharpness: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    latents: dict[str, Array] = field(default_factory=dict)

    def add(
        self, id: str, value: float, spread: Sequence[float], null: float, n: int, band: Band | None, **keys: Any
    ) -> None:
        """A record; the aim is that of the model as it is shipped, with its flow and its encoder."""
        low = band[0] if band else None
        shipped = keys.get("prior", "flow") == "flow" and keys.get("method") != "u optimised"
        target = target_of(id, low, keys.get("over", "")) if shipped else None
        value, spread, null = float(value), [float(bound) for bound in spread], float(null)
        self.records.append(
            {
                "id": id,
                "variant": self.variant,
                "snr": band_name(band) if band else None,
                **keys,
                "value": value,
                "spread": spread,
                "null": null,
                "anchor": anchor_of(id, low),
                "n": n,
                "seed": self.seed,
                "reach": target.reach.to_json() if target else None,
                "beat": target.beat.to_json() if target else None,
                "verdict": verdict(target, *spread) if id == "G8" else verdict(target, value),
            }
        )


def evaluate_galaxy_model(
    model: GalaxyModel,
    train: Dataset,
    test: Dataset,
    variant: str,
    settings: EvaluationSettings | None = None,
    psf: Array | None = None,
    report: Report = lambda message: None,
) -> Evaluation:
    """All figures of one model.

    Args:
        model: trained.
        train: simulated galaxies that it was trained on, for the null and the candidate priors.
        test: held-out ones.
        variant: name of the model in the records.
        settings: how much is measured.
        psf: that all are observed with, `[odd, odd]`; `hst_psf` if None.
        report: called with a line for each step that begins.

    Returns:
        An evaluation whose records have the keys `id, variant, snr, value, spread, null, anchor, n, seed, reach, beat,
        verdict`, and where they apply `method`, `prior`, `over` and more. `spread` is the central 68 % over galaxies
        (G1 to G4), the lowest and highest over statistics or bands (G5, G7), wave numbers (G8) or seeds (L1, L2), or
        the mean -+ its standard error (L3, L4). The null of G5 and G7 is between halves of the held-out galaxies, n / 2
        each, and so larger by about sqrt(2) than that of n against n.

    Raises:
        ParameterError: the galaxies are real ones with noise of their own, there are fewer than 20 on either side, or
            the stamps are not the model's.
    """
    settings = settings or EvaluationSettings()
    for name, split in (("train", train), ("test", test)):
        if "sigma" in split.metadata:
            raise ParameterError(
                f"evaluate_galaxy_model: {name} must be simulated galaxies, whose truth is known; these have noise of "
                "their own"
            )
        if len(split.images) < 20 or split.images.shape[1:] != (model.stamp_size,) * 2:
            raise ParameterError(
                f"evaluate_galaxy_model: {name} must be at least 20 galaxies of {model.stamp_size} x "
                f"{model.stamp_size} pixels, got the shape {split.images.shape}"
            )
    evaluation = Evaluation(variant, settings.seed)
    work = _Work(model, hst_psf(model.pixel_scale) if psf is None else psf, settings, evaluation, report)
    galaxies = work.galaxies(test, settings.galaxies)
    for band in settings.bands:
        _measure_reconstructions(work, galaxies, band)
        _measure_population(work, galaxies, band)
    _measure_sharpness(evaluation, galaxies.truth, settings.bands[-1])
    _measure_latents(work, work.galaxies(train), galaxies)
    return evaluation


def held_out_figures(
    model: GalaxyModel, test: Dataset, band: Band = LOW, seed: int = 0, optimised: int = 128, psf: Array | None = None
) -> dict[str, float]:
    """The quick figures of a model, for the end of a training: G1 to G4 of reconstructions, and latent figures.

    Those with `optimised_` are of the first galaxies with u found by optimisation: what the decoder can draw, whatever
    the encoder makes of it. The latent ones are nats: the mean KL divergence of q to N(0, I), and the held-out
    negative log likelihood of draws of q under the flow and N(0, I).

    Args:
        model: trained.
        test: held-out simulated galaxies.
        band: range of S/N.
        seed: of the noise.
        optimised: galaxies whose u is found by optimisation; 0 leaves it out.
        psf: that they are observed with; `hst_psf` if None.
    """
    psf = hst_psf(model.pixel_scale) if psf is None else psf
    work = _Work(model, psf, EvaluationSettings(seed=seed), Evaluation(""), lambda message: None)
    galaxies = work.galaxies(test)
    observed = work.observe(galaxies, band, seed)
    figures = {"galaxies": float(len(galaxies.truth)), "snr_low": band[0], "snr_high": band[1]}
    parts = {"": (observed, work.decode(work.means(observed)))}
    if optimised:
        part = observed[:optimised]
        parts["optimised_"] = part, work.optimised(part)
    for prefix, (part, decoded) in parts.items():
        for id, values in _per_galaxy(part, work.seen(decoded)).items():
            figures[prefix + id] = float(_MIDDLE[id](values))
    draw = work.posterior(observed, seed)
    normal = GaussianPrior.standard(model.latent_dim)
    return {
        **figures,
        "mean_kl": float(draw.kl.sum(axis=1).mean()),
        "active_units": float(active_units(work.means(observed))),
        "flow_nll": -float(work.flow(galaxies).log_prob(draw.z, galaxies.condition).mean()),
        "standard_normal_nll": -float(normal.log_prob(draw.z).mean()),
    }


@dataclass(frozen=True)
class _Galaxies:
    """Galaxies before the PSF `[N, n, n]`, and what a conditional flow is told of them, `[N, C]`."""

    truth: Images
    condition: Array | None

    def __getitem__(self, part: slice) -> "_Galaxies":
        return _Galaxies(self.truth[part], None if self.condition is None else self.condition[part])


@dataclass(frozen=True)
class _Work:
    """A model and what its figures are made with; all of it in batches, in bounded memory."""

    model: GalaxyModel
    psf: Array
    settings: EvaluationSettings
    evaluation: Evaluation
    say: Report

    def report(self, message: str) -> None:
        self.say(f"{self.evaluation.variant}: {message}")

    def galaxies(self, split: Dataset, count: int | None = None) -> _Galaxies:
        condition = self.model.condition(split.metadata) if self.model.condition else None
        return _Galaxies(split.images, condition)[:count]

    def observe(self, galaxies: _Galaxies, band: Band, seed: int, psf: bool = True) -> Observed:
        """As they are, without symmetries, S/N log-uniform in the band."""
        kernel = self.psf if psf else None
        batches = observed_galaxies(galaxies.truth, kernel, _BATCH, seed=seed, snr_range=band, augment=False)
        parts = list(batches)
        signal, image, sigma = (np.concatenate([part[key] for part in parts]) for key in ("signal", "image", "sigma"))
        return Observed(galaxies.truth, signal, image, sigma, galaxies.condition)

    @cached_property
    def convolve(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """From what the decoder draws, `[...batch, n, n]`, to what is observed: a model without a PSF draws that."""
        if not self.model.before_psf:
            return tf.identity
        return PSF(self.psf, (self.model.stamp_size,) * 2, method="fft").convolve

    def seen(self, images: Images) -> Images:
        return np.concatenate([self.convolve(images[part]) for part in _batches(len(images))])

    def means(self, observed: Observed) -> Array:
        parts = _batches(len(observed.image))
        return np.concatenate([self.model.encode(observed.image[part], observed.sigma[part])[0] for part in parts])

    def posterior(self, observed: Observed, seed: int) -> Draw:
        """One draw of q(z|x) for each galaxy, as arrays."""
        draws = []
        for part in _batches(len(observed.image)):
            noise = tf.random.stateless_normal([len(observed.image[part]), self.model.latent_dim], [seed, part.start])
            draws.append(self.model.posterior(observed.image[part], observed.sigma[part]).draw(noise))
        return Draw(*(np.concatenate(values) for values in zip(*draws, strict=True)))

    def decode(self, z: Array) -> Images:
        return np.concatenate([self.model.decode(z[part]) for part in _batches(len(z))])

    def optimised(self, observed: Observed) -> Images:
        image, sigma = tf.constant(observed.image), tf.constant(observed.sigma)
        u = fit_latents(self.model, image, sigma, self.convolve, condition=observed.condition)
        return self.model.generate(u, observed.condition).numpy()

    def prior_samples(self, galaxies: _Galaxies, seed: int) -> Images:
        """As many as the galaxies; with a conditional flow, under their conditions."""
        return self.decode(self.flow(galaxies).sample(len(galaxies.truth), seed))

    def flow(self, galaxies: _Galaxies) -> FlowPrior:
        return FlowPrior(self.model, galaxies.condition)


def _measure_reconstructions(work: _Work, galaxies: _Galaxies, band: Band) -> None:
    evaluation, settings = work.evaluation, work.settings
    work.report(f"reconstructions at S/N {band_name(band)}")
    observed = work.observe(galaxies, band, settings.seed)
    decoded = work.decode(work.means(observed))
    evaluation.observed[band], evaluation.decoded[band] = observed, decoded
    methods = {"mean of q": (observed, decoded)}
    evaluation.seen[band] = work.seen(decoded)
    if settings.optimised:
        work.report(f"u by optimisation at S/N {band_name(band)}")
        part = observed[: settings.optimised]
        methods["u optimised"] = part, work.optimised(part)
    for method, (part, images) in methods.items():
        null = _per_galaxy(part, part.signal)
        for id, values in _per_galaxy(part, work.seen(images)).items():
            spread = np.percentile(values, [16, 84])
            middle = _MIDDLE[id]
            evaluation.add(id, middle(values), spread, middle(null[id]), len(values), band, method=method)


def _measure_population(work: _Work, galaxies: _Galaxies, band: Band) -> None:
    evaluation, settings = work.evaluation, work.settings
    work.report(f"morphology of the population at S/N {band_name(band)}")
    observed = evaluation.observed[band]
    samples = _Galaxies(work.prior_samples(galaxies, settings.seed), galaxies.condition)
    prior = work.observe(samples, band, settings.seed + 1, psf=work.model.before_psf)
    real, drawn = (
        morphology_statistics(part.image, part.sigma, work.psf, settings.processes, settings.cache)
        for part in (observed, prior)
    )
    evaluation.prior[band], evaluation.statistics[band] = prior, (real, drawn)
    failed = {"held-out": failed_share(real), "prior": failed_share(drawn)}
    power_real, power_drawn = log_power(observed.image), log_power(prior.image)
    for id, reference, sample, extra in (
        ("G5", real, drawn, {"failed": failed}),
        ("G7", power_real, power_drawn, {}),
    ):
        distances = distribution_distances(reference, sample)
        halves = distribution_distances(*({k: v[half::2] for k, v in reference.items()} for half in (0, 1)))
        known = [name for name in distances if np.isfinite(distances[name]) and np.isfinite(halves[name])]
        if not known:
            raise ParameterError(f"evaluate_galaxy_model: no statistic of {id} could be measured on these stamps")
        values, nulls = ([found[name] for name in known] for found in (distances, halves))
        extra["parts"] = {name: distances[name] if name in known else None for name in distances}
        spread = min(values), max(values)
        evaluation.add(id, np.mean(values), spread, np.mean(nulls), len(galaxies.truth), band, prior="flow", **extra)


def _measure_sharpness(evaluation: Evaluation, truth: Images, band: Band) -> None:
    halves = transfer(truth[::2], truth[1::2])
    evaluation.sharpness["two halves of the data"] = halves[0], halves[1]
    for method, images, null, at in (
        ("mean of q", evaluation.decoded[band], 1.0, band),
        ("prior samples", evaluation.prior[band].truth, _worst(halves[1]), None),
    ):
        k, ratio, geometric = transfer(truth, images)
        evaluation.sharpness[method] = k, ratio
        curves = {"wave_numbers": k.tolist(), "ratio": ratio.tolist(), "geometric": geometric.tolist()}
        evaluation.add("G8", _worst(ratio), (ratio.min(), ratio.max()), null, len(truth), at, method=method, **curves)


def _measure_latents(work: _Work, train: _Galaxies, test: _Galaxies) -> None:
    evaluation, settings = work.evaluation, work.settings
    band, seed = settings.latent_snr, settings.seed
    work.report(f"draws of q for {len(train.truth)} training galaxies")
    held_out = work.observe(test, band, seed)
    passes = [_training_draws(work, train, i) for i in range(settings.prior_draws)]
    work.report(f"candidate priors, fitted to {sum(map(len, passes))} draws")
    candidates = fit_candidates(np.concatenate(passes), work.flow(test), seed)
    _measure_two_samples(work, held_out, candidates, passes)

    target = work.posterior(held_out, seed).z
    log_probs = {name: candidate.log_prob(target, test.condition) for name, candidate in candidates.items()}
    best = max((name for name in candidates if name.startswith("mixture")), key=lambda name: log_probs[name].mean())
    for name, values in log_probs.items():
        comparisons = {"full Gaussian": "full Gaussian"} if name != "full Gaussian" else {}
        if name == "flow":
            comparisons[best] = f"best mixture ({best.removeprefix('mixture of ')})"
        for other, over in comparisons.items():
            gain, error = mean_and_error(values - log_probs[other])
            extra = {"prior": name, "over": over, "nll": -float(values.mean())}
            evaluation.add("L3", gain, (gain - error, gain + error), 0.0, len(target), band, **extra)
    if settings.iwae_galaxies:
        _measure_bounds(work, held_out[: settings.iwae_galaxies], candidates)


def _measure_two_samples(work: _Work, held_out: Observed, candidates: Mapping[str, Prior], passes: list[Array]) -> None:
    """L1 and L2 of each candidate, beside those of training draws."""
    settings = work.settings
    n = min(len(held_out.image), len(passes[0]))
    tests: dict[str, list[float]] = {name: [] for name in ("training draws", *candidates)}
    distances: dict[str, list[float]] = {name: [] for name in tests}
    for repetition in range(settings.latent_seeds):
        work.report(f"two-sample tests, {repetition + 1} of {settings.latent_seeds}")
        seed = 1000 * settings.seed + repetition
        target = work.posterior(held_out, seed).z[:n]
        chosen = np.random.default_rng(seed).permutation(len(passes[0]))[:n]
        samples = {"training draws": passes[repetition % len(passes)][chosen]}
        samples |= {name: candidate.sample(n, seed) for name, candidate in candidates.items()}
        if repetition == 0:
            work.evaluation.latents = {"held-out": target, **samples}
        for name, sample in samples.items():
            tests[name].append(c2st(target, sample, seed))
            distances[name].append(sliced_wasserstein(target, sample, seed=settings.seed))
    null_test, null_distance = np.mean(tests["training draws"]), np.mean(distances["training draws"])
    for name in candidates:
        accuracy, spread = np.mean(tests[name]), (min(tests[name]), max(tests[name]))
        work.evaluation.add("L1", accuracy, spread, null_test, n, settings.latent_snr, prior=name)
        ratios = np.array(distances[name]) / distances["training draws"]
        extra = {"prior": name, "distance": float(np.mean(distances[name])), "null_distance": float(null_distance)}
        ratio, spread = extra["distance"] / null_distance, (ratios.min(), ratios.max())
        work.evaluation.add("L2", ratio, spread, 1.0, n, settings.latent_snr, **extra)


def _measure_bounds(work: _Work, held_out: Observed, candidates: Mapping[str, Prior]) -> None:
    settings = work.settings

    def progress(done: int) -> None:
        if done % 100 == 0:
            work.report(f"importance-weighted bounds, {done} of {len(held_out.image)} galaxies")

    bounds = importance_weighted_bounds(
        held_out.image,
        held_out.sigma,
        work.model.latent_dim,
        _proposal(work.model),
        _likelihood(work),
        {name: candidate.log_prob for name, candidate in candidates.items()},
        condition=held_out.condition,
        samples=settings.iwae_samples,
        seed=settings.seed,
        progress=progress,
    )
    for name, values in bounds.items():
        if name != "N(0, I)":
            gain, error = mean_and_error(values - bounds["N(0, I)"])
            extra = {"prior": name, "over": "N(0, I)", "samples": settings.iwae_samples, "bound": float(values.mean())}
            work.evaluation.add(
                "L4", gain, (gain - error, gain + error), 0.0, len(values), settings.latent_snr, **extra
            )


def _proposal(model: GalaxyModel) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    def propose(image: tf.Tensor, sigma: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape, draws = tf.shape(noise), tf.shape(noise)[1]
        posterior = _repeated(model.posterior(image, sigma), draws)
        draw = posterior.draw(tf.reshape(noise, [-1, model.latent_dim]))
        return tf.reshape(draw.z, shape), tf.reshape(draw.log_prob, shape[:2])

    return propose


def _repeated(posterior: Posterior, times: tf.Tensor) -> Posterior:
    if isinstance(posterior, FlowPosterior):
        return FlowPosterior(_repeated(posterior.base, times), posterior.flow, tf.repeat(posterior.context, times, 0))
    return GaussianPosterior(tf.repeat(posterior.mean, times, 0), tf.repeat(posterior.scale, times, 0))


def _likelihood(work: _Work) -> Callable[..., tf.Tensor]:
    pixels = work.model.stamp_size**2

    def log_likelihood(image: tf.Tensor, sigma: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        residual = (image[:, None] - work.convolve(work.model.decode(z))) / sigma[:, None, None, None]
        constant = pixels * tf.math.log(sigma * np.sqrt(2 * np.pi))
        return -tf.reduce_sum(residual**2, (-2, -1)) / 2 - constant[:, None]

    return log_likelihood


def _training_draws(work: _Work, train: _Galaxies, number: int) -> Array:
    """One draw of q(z|x) for each training galaxy, each with a symmetry and noise of its own."""
    seed, band, model = work.settings.seed, work.settings.latent_snr, work.model
    batches = observed_galaxies(train.truth, work.psf, _BATCH, seed=seed, epoch=_EPOCH + number, snr_range=band)
    draws = []
    for i, batch in enumerate(batches):
        noise = tf.random.stateless_normal([len(batch["sigma"]), model.latent_dim], [seed, 1000 * (number + 1) + i])
        draws.append(model.posterior(batch["image"], batch["sigma"]).draw(noise).z)
    return np.concatenate(draws)


def _per_galaxy(observed: Observed, seen: Images) -> dict[str, Array]:
    """G1 to G4 of each galaxy, of the model's images after the PSF."""
    return {
        "G1": reduced_chi2(observed.image, seen, observed.sigma),
        "G2": noiseless_residual(observed.signal, seen, observed.sigma),
        "G3": ssim(observed.signal, seen),
        "G4": peak_error(observed.signal, seen),
    }


def band_name(band: Band) -> str:
    """A range of S/N in words.

    Example:
        >>> band_name((15.0, 50.0))
        '15-50'
    """
    return f"{band[0]:g}-{band[1]:g}"


_MIDDLE = {"G1": np.mean, "G2": np.median, "G3": np.mean, "G4": np.median}
_BATCH = 250
_EPOCH = 20_000  # of noise that no training has seen


def _batches(count: int) -> list[slice]:
    return [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]


def _worst(ratio: Array) -> float:
    """The ratio that is furthest from 1, as a factor."""
    return float(ratio[np.argmax(np.abs(np.log(ratio)))])
