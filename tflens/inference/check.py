"""Whether a fit can be trusted: its convergence, its residuals and its priors, checked and put into words.

Every check has a null distribution, that of a good fit of data which the model describes, and a limit that is stated
with its reason. Where the null is known, the limit is passed by one good fit in a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from tflens.inference.convergence import ESS_FEW, ESS_GOOD, R_HAT_APART, R_HAT_FAILED, R_HAT_GOOD, convergence_of
from tflens.names import is_mass

if TYPE_CHECKING:
    from tflens.inference.pipeline import Fit

Level = Literal["ok", "note", "warning", "failure"]

LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "failure")

# The mean of a chain of few independent draws scatters by less than one of its own sigma.
ODDS = 3.0
# Outside of this range steps are so long that chains stick, or so short that work is wasted; the optimum lies between
# 0.65 and 0.9 (Beskos et al. 2013, Bernoulli 19, 1501; Betancourt et al. 2014, arXiv:1411.6669).
ACCEPTANCE_STUCK, ACCEPTANCE_LOW, ACCEPTANCE_HIGH = 0.1, 0.5, 0.99
# Two points agree in log posterior within what a unit of two or so of its parameters is worth; a solution this much
# worse than the best, and no more, would still hold a percent of the probability.
SAME_OPTIMUM, RIVAL, RIVAL_DISTANCE = 2.0, 5.0, 5.0
# As much again as the noise: what is missing in the arcs is then no detail.
CHI2_FAILED = 2.0
# Significant is not yet important: chi^2 per pixel this close to 1, and correlations this small, are no concern.
CHI2_CLOSE, CORRELATION_SMALL = 0.05, 0.05
EDGE_MEDIAN, EDGE_INTERVAL = 3.0, 4.0
BAD_GRADIENTS = 0.01
RARE = 1e-3

_MUCH_BESIDE = 0.5  # of the source's brightness: what its network may leave to a random field
_LEAST_PAIRS = 100  # of pixels, to tell the correlation of the noise from


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        level: "ok"; "note", worth knowing; "warning", results are to be used with care; "failure", not to be used.
        value: what was measured, None if there was nothing to measure.
        limit: what it was compared with: the limit that it passed, or the first that it could have passed.
        words: what was found, what it means, what to do.

    Example:
        >>> Finding("ess", "ok", 900.0, 400.0, "enough draws").passed
        True
    """

    name: str
    level: Level
    value: float | None
    limit: float | None
    words: str

    @property
    def passed(self) -> bool:
        """Whether it is neither a warning nor a failure."""
        return self.level in ("ok", "note")


def check(fit: "Fit") -> list[Finding]:
    """Everything that tells a good fit from a bad one; `docs/checks.md` lists the checks.

    Args:
        fit: of `tflens.fit`.

    Returns:
        One finding for each check, passed or not, in the order: chains, sampler, starts, residuals, priors.
    """
    draws, sampler = fit.posterior.data.posterior, fit.posterior.data.sample_stats
    u, log_prob = draws["u"].to_numpy(), sampler["lp"].to_numpy()
    names, best = fit.model.names, fit.best
    arcs, used = fit.arcs, fit.mask
    faint = best.lens_light - best.lens_light[used].min() < fit.target.noise
    parameters = fit.model.dim + len(fit.model.amplitude_names)
    gradients = fit.settings.starts * fit.settings.search_steps
    findings = [
        *convergence(u, names),
        chains_apart(u, log_prob, names),
        *(
            [surrogate(sampler.attrs["pareto_k"])]
            if "pareto_k" in sampler.attrs
            else sampler_health(sampler["acceptance_rate"].to_numpy(), sampler["diverging"].to_numpy())
        ),
        starts_agree(fit.optimum.u, fit.optimum.log_prob, u, log_prob, names),
        not_finite(u, fit.optimum.log_prob, fit.optimum.bad_gradients, gradients),
        *goodness(best.whitened, arcs, used, parameters),
        *whiteness(best.whitened, arcs, used & ~arcs & faint, fit.observation.noise_correlation is not None),
        prior_edge(u[..., : len(names)], names),
    ]
    if fit.model.latent_dim:
        findings.append(latent_norm(u[..., len(names) :]))
    if fit.compiled.modes:
        findings.append(discrepancy(0.0 if fit.discrepancy is None else fit.discrepancy.strength))
    return findings


def failed(findings: Sequence[Finding]) -> bool:
    """Whether the results must not be used.

    Example:
        >>> failed([Finding("ess", "warning", 80.0, 100.0, "few draws")])
        False
    """
    return any(finding.level == "failure" for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """All findings in one sentence.

    Example:
        >>> verdict([Finding("ess", "warning", 80.0, 100.0, "few draws"), Finding("r_hat_mass", "ok", 1.0, 1.01, "")])
        'to be used with care: 1 of 2 checks warns (ess)'
    """

    def names(level: Level) -> list[str]:
        return [finding.name for finding in findings if finding.level == level]

    for level, meaning, one, several in (
        ("failure", "this fit failed, do not use it", "failed", "failed"),
        ("warning", "to be used with care", "warns", "warn"),
    ):
        if found := names(level):
            verb = one if len(found) == 1 else several
            return f"{meaning}: {len(found)} of {len(findings)} checks {verb} ({', '.join(found)})"
    return f"nothing speaks against this fit: {len(findings)} checks passed"


def in_words(findings: Sequence[Finding]) -> str:
    """The verdict and then every finding, worst first, a line each.

    Example:
        >>> print(in_words([Finding("ess", "ok", 900.0, 400.0, "enough draws: 900")]))
        nothing speaks against this fit: 1 checks passed
        ok       enough draws: 900
    """
    return "\n".join([verdict(findings), *(f"{f.level:<7}  {f.words}" for f in worst_first(findings))])


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """The same findings, failures before warnings before notes; otherwise in their order."""
    return sorted(findings, key=lambda finding: -LEVELS.index(finding.level))


# The chains -----------------------------------------------------------------------------------------------------------


def convergence(u: np.ndarray, names: Sequence[str]) -> list[Finding]:
    """Rank-normalised split R-hat, the larger of bulk and folded, and the smaller of bulk and tail effective sample
    size (Vehtari et al. 2021, Bayesian Analysis 16, 667, sections 4.1-4.3).

    Chains that disagree about the mass are a failure; about the light or the source, whose many parameters one rarely
    wants one by one, a warning. Both figures are of the base space, where the sampler works; ranks are the same for a
    parameter that is a monotonic function of its u.

    Args:
        u: draws, `[chains, draws, dim]`.
        names: of the first entries of u, in the model's form (`lens.theta_E`); those that follow are latents.

    Returns:
        Findings `r_hat_mass` (if there is a mass), `r_hat_rest` (if there is anything else) and `ess`.

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4, 500, 2))
        >>> [finding.level for finding in convergence(u, ["lens.theta_E"])]
        ['ok', 'ok', 'ok']
    """
    labels = _labels(names, u.shape[-1])
    r_hat, bulk, tail = convergence_of(u)
    mass = np.array([is_mass(label) for label in labels])
    findings = []
    for name, what, chosen, level in (
        ("r_hat_mass", "the lens mass", mass, "failure"),
        ("r_hat_rest", "light and source", ~mass, "warning"),
    ):
        if chosen.any():
            worst = np.flatnonzero(chosen)[np.argmax(r_hat[chosen])]
            findings.append(_r_hat(name, what, labels[worst], float(r_hat[worst]), level))
    worst = int(np.argmin(np.minimum(bulk, tail)))
    kind, size = ("bulk", bulk[worst]) if bulk[worst] <= tail[worst] else ("tail", tail[worst])
    ess = f"smallest effective sample size {size:.0f} ({kind}, {labels[worst]}) of {u.shape[0] * u.shape[1]} draws"
    if size >= ESS_GOOD:
        findings.append(Finding("ess", "ok", float(size), ESS_GOOD, f"enough draws: {ess}"))
    elif size >= ESS_FEW:
        meaning = "medians are good to a tenth of their sigma, ends of 95 % intervals less; take more --draws for those"
        findings.append(Finding("ess", "note", float(size), ESS_GOOD, f"rather few draws: {ess}; {meaning}"))
    else:
        meaning = "medians are uncertain by more than a tenth of their sigma; take more --draws"
        findings.append(Finding("ess", "warning", float(size), ESS_FEW, f"too few draws: {ess}; {meaning}"))
    return findings


def chains_apart(u: np.ndarray, log_prob: np.ndarray, names: Sequence[str]) -> Finding:
    """Chains that sit somewhere else than the others: more than `ODDS` widths of a chain from the chains' median.

    R-hat tells that chains disagree; this tells which, about what, and how much less probable it is where they are.

    Args:
        u: draws, `[chains, draws, dim]`.
        log_prob: log posterior of each draw, `[chains, draws]`.
        names: of the first entries of u.

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4, 50, 1))
        >>> u[2] += 9
        >>> chains_apart(u, np.zeros((4, 50)), ["lens.theta_E"]).words[:55]
        'chain 3 of 4 sits apart from the others in lens.theta_E'
    """
    labels = _labels(names, u.shape[-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        means, widths = u.mean(1), np.median(u.std(1), axis=0)
        distance = np.abs(means - np.median(means, axis=0)) / widths
    distance = np.where(np.isfinite(means).all(1, keepdims=True), np.nan_to_num(distance, nan=0.0), np.inf)
    apart = (distance > ODDS).any(1)
    largest = float(distance.max())
    if not apart.any():
        return Finding(
            "chains", "ok", largest, ODDS, f"no chain sits apart from the others: {largest:.1f} of its widths at most"
        )
    about = np.flatnonzero((distance > ODDS).any(0))
    mass = [labels[i] for i in about if is_mass(labels[i])]
    which = ", ".join(str(i + 1) for i in np.flatnonzero(apart))
    place = f"chain{'s'[: apart.sum() - 1]} {which} of {len(u)} {'sits' if apart.sum() == 1 else 'sit'} apart"
    lower = float(log_prob[~apart].mean() - log_prob[apart].mean()) if not apart.all() else np.nan
    height = (
        f" (log posterior {abs(lower):.1f} {'lower' if lower > 0 else 'higher'} there)" if np.isfinite(lower) else ""
    )
    if mass:
        words = f"{place} from the others in {_some(mass)}{height}: there is more than one solution, or chains are "
        words += "stuck; intervals mean nothing; take more --starts and --warmup, and compare the solutions"
        return Finding("chains", "failure", largest, ODDS, words)
    words = f"{place} from the others in {_some([labels[i] for i in about])}{height}, but all agree on the mass: "
    words += "the light or the source has more than one solution; take more --warmup before you use it"
    return Finding("chains", "warning", largest, ODDS, words)


def sampler_health(acceptance: np.ndarray, diverging: np.ndarray) -> list[Finding]:
    """Mean acceptance of transitions, and how many trajectories diverged (left the region the integrator can follow).

    Args:
        acceptance: probability of each transition, `[chains, draws]`.
        diverging: whether it diverged, `[chains, draws]`.

    Example:
        >>> [f.level for f in sampler_health(np.full((4, 50), 0.8), np.zeros((4, 50), bool))]
        ['ok', 'ok']
    """
    mean, number, share = float(np.mean(acceptance)), int(diverging.sum()), float(np.mean(diverging))
    if not mean >= ACCEPTANCE_STUCK:
        words = f"chains hardly move: mean acceptance {mean:.2f}; draws are no posterior; take more --warmup"
        accepted = Finding("acceptance", "failure", mean, ACCEPTANCE_STUCK, words)
    elif mean < ACCEPTANCE_LOW:
        words = f"steps are too long: mean acceptance {mean:.2f}; narrow parts of the posterior may be missed, so "
        accepted = Finding("acceptance", "warning", mean, ACCEPTANCE_LOW, words + "take more --warmup")
    elif mean > ACCEPTANCE_HIGH:
        words = f"steps are shorter than they need to be: mean acceptance {mean:.3f}; nothing is wrong, only slow"
        accepted = Finding("acceptance", "note", mean, ACCEPTANCE_HIGH, words)
    else:
        accepted = Finding("acceptance", "ok", mean, ACCEPTANCE_LOW, f"steps suit the posterior: acceptance {mean:.2f}")
    if not number:
        return [accepted, Finding("divergences", "ok", 0.0, 0.0, "no trajectory diverged")]
    words = f"{number} of {diverging.size} trajectories diverged ({share:.1%}): the sampler shuns a narrow part of the "
    words += "posterior, and intervals may be too narrow; take more --warmup"
    return [accepted, Finding("divergences", "warning", float(number), 0.0, words)]


# The starts -----------------------------------------------------------------------------------------------------------


def starts_agree(
    starts: np.ndarray, starts_log_prob: np.ndarray, u: np.ndarray, log_prob: np.ndarray, names: Sequence[str]
) -> Finding:
    """Whether more than one start found the best optimum, and whether another one comes close to it.

    Starts agree if their log posteriors are within `SAME_OPTIMUM` of the best. A rival is an optimum less than `RIVAL`
    below the best, and more than `RIVAL_DISTANCE` posterior sigma away in a parameter of the mass: the chains, which
    all begin at the best one, do not know of it.

    Args:
        starts: where the starts ended, `[starts, dim]`.
        starts_log_prob: log posterior there, `[starts]`.
        u: draws, `[chains, draws, dim]`.
        log_prob: log posterior of each draw, `[chains, draws]`.
        names: of the first entries of u.

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4, 50, 1))
        >>> starts_agree(np.zeros((3, 1)), np.array([0.0, -0.1, -70.0]), u, -u[..., 0]**2, ["lens.theta_E"]).words
        '2 of 3 polished starts reached the best optimum'
    """
    heights = np.where(np.isfinite(starts_log_prob), starts_log_prob, -np.inf)
    best, count = int(np.argmax(heights)), len(heights)
    agreeing = int(np.sum(heights > heights[best] - SAME_OPTIMUM))
    reached = f"{agreeing} of {count} polished starts reached the best optimum"
    mass = [i for i, name in enumerate(names) if is_mass(name)]
    with np.errstate(invalid="ignore"):
        width = np.std(u[..., mass], axis=(0, 1))
    away = np.abs(starts[:, mass] - starts[best, mass]) > RIVAL_DISTANCE * width
    rivals = np.flatnonzero((heights > heights[best] - RIVAL) & away.any(1))
    if len(rivals):
        parameters = _some([names[i] for i in np.array(mass)[away[rivals].any(0)]])
        words = f"{len(rivals)} of {count} polished starts ended elsewhere in {parameters}, with a log posterior only "
        words += f"{heights[best] - heights[rivals].max():.1f} below the best: a second solution that the chains, "
        words += "which begin at the best, do not know; fit again with other --seed and compare"
        return Finding("starts", "warning", float(agreeing), 2.0, words)
    if count == 1:
        words = "only one start was polished, so nothing tells whether a better optimum was missed; more --survivors do"
        return Finding("starts", "note", 1.0, 2.0, words)
    if agreeing < 2:
        words = f"only {reached}: a better one may have been missed; take more --starts or --search-steps"
        return Finding("starts", "warning", float(agreeing), 2.0, words)
    higher = float(np.max(log_prob, initial=-np.inf, where=np.isfinite(log_prob)) - heights[best])
    if higher > SAME_OPTIMUM:
        words = f"{reached}, but the chains found one with a log posterior {higher:.1f} higher: the figure of the best "
        words += "model is not of the best, though draws may be good; take more --polish-steps"
        return Finding("starts", "note", float(agreeing), 2.0, words)
    return Finding("starts", "ok", float(agreeing), 2.0, reached)


def not_finite(u: np.ndarray, starts_log_prob: np.ndarray, bad_gradients: int, gradients: int) -> Finding:
    """Numbers that were lost on the way: draws (a failure), starts, and gradients of the search (which are skipped).

    Args:
        u: draws, `[chains, draws, dim]`.
        starts_log_prob: log posterior where the starts ended, `[starts]`.
        bad_gradients, gradients: how many of the search were not finite, and how many there were.

    Example:
        >>> not_finite(np.zeros((2, 9, 1)), np.zeros(3), 0, 480).words
        'every number was finite'
    """
    draws = int(np.sum(~np.isfinite(u).all(-1)))
    starts = int(np.sum(~np.isfinite(starts_log_prob)))
    lost = float(draws + starts + bad_gradients)
    tell = "please report it with the configuration"
    if draws:
        words = f"{draws} of {u.shape[0] * u.shape[1]} draws are not finite: the model broke down; {tell}"
        return Finding("not_finite", "failure", lost, 0.0, words)
    parts = [f"{starts} of {len(starts_log_prob)} polished starts were lost"] if starts else []
    parts += [f"{bad_gradients} of {gradients} gradients were skipped"] if bad_gradients else []
    if not parts:
        return Finding("not_finite", "ok", 0.0, 0.0, "every number was finite")
    level: Level = "warning" if starts or bad_gradients > BAD_GRADIENTS * gradients else "note"
    meaning = f"the search saw less than it should have; {tell}" if level == "warning" else "too few to matter"
    return Finding("not_finite", level, lost, 0.0, f"{' and '.join(parts)}, being not finite: {meaning}")


# The residuals --------------------------------------------------------------------------------------------------------


def goodness(residual: np.ndarray, arcs: np.ndarray, used: np.ndarray, parameters: int) -> list[Finding]:
    """chi^2 in the arcs, and over all used pixels, against its distribution.

    Of n pixels chi^2 is, for the truth, a draw from chi^2_n, and for the best of p parameters from about chi^2_(n-p);
    so the upper limit is the 99.9 % quantile of the former, the lower one the 0.1 % quantile of the latter.

    Args:
        residual: (data - model) / noise, whitened if the noise is correlated, `[ny, nx]`.
        arcs, used: pixels, `[ny, nx]`, True = counts.
        parameters: how many were fitted, amplitudes included.

    Returns:
        Findings `chi2_arcs` and `chi2`.

    Example:
        >>> residual = np.random.default_rng(0).normal(size=(40, 50))
        >>> [f.level for f in goodness(residual, residual > -9, residual > -9, 15)]
        ['ok', 'ok']
    """
    number, everything = int(arcs.sum()), int(used.sum())
    chi2 = float(np.mean(residual[used] ** 2))
    high = max(1 + CHI2_CLOSE, _chi2_limit(everything))
    least = max(everything - parameters, 1)
    low = min(1 - CHI2_CLOSE, float(stats.chi2.ppf(RARE, least)) / least) * least / everything
    text = f"chi^2 per pixel {chi2:.2f} in all ({everything} pixels)"
    if not number:
        words = "there are no arcs, neither in the model nor in what it leaves over: nothing tells of a lens; look at "
        words += "the figure, and whether the image holds the lens and the noise map is right"
        in_arcs = Finding("chi2_arcs", "failure", None, None, words)
    else:
        in_arcs = _goodness_in_arcs(float(np.mean(residual[arcs] ** 2)), number)
    if chi2 < low:
        words = (
            f"{text}, below {low:.2f}: the noise map says more than there is, as those of drizzled images often do, "
        )
        words += "and intervals follow it; take --noise-scale auto with --noise-correlation auto"
        return [in_arcs, Finding("chi2", "warning", chi2, low, words)]
    if not chi2 <= high:
        words = f"{text}, above {high:.2f}: some light is not explained, or the noise map too small; look where the "
        return [
            in_arcs,
            Finding("chi2", "note", chi2, high, words + "residual is, and mask what is no part of the lens"),
        ]
    return [in_arcs, Finding("chi2", "ok", chi2, high, f"the image is explained: {text}")]


def _goodness_in_arcs(chi2: float, number: int) -> Finding:
    limit = max(1 + CHI2_CLOSE, _chi2_limit(number))
    text = f"chi^2 per pixel {chi2:.2f} in the arcs ({number} pixels)"
    if not chi2 <= CHI2_FAILED:
        if limit >= CHI2_FAILED:  # so few pixels that even this can be noise
            words = f"{text}: too few pixels to judge; look at the figure"
            return Finding("chi2_arcs", "warning", chi2, CHI2_FAILED, words)
        words = f"arcs not explained: {text}, as much again as the noise or more; the lens may be wrong altogether; "
        words += "look at the figure, mask what is no part of the lens, take more --starts"
        return Finding("chi2_arcs", "failure", chi2, CHI2_FAILED, words)
    if chi2 > limit:
        words = f"arcs not fully explained: {text}, noise alone stays below {limit:.2f}; intervals do not include what "
        words += "the model lacks; look at the residual, try another source"
        return Finding("chi2_arcs", "warning", chi2, limit, words)
    return Finding("chi2_arcs", "ok", chi2, limit, f"arcs explained: {text}")


def autocorrelation(residual: np.ndarray, mask: np.ndarray, lag: int) -> tuple[float, int]:
    """Correlation of pixels `lag` apart along rows and columns, over pairs that both lie in a mask.

    Products of different pairs of independent pixels are uncorrelated, even if they share a pixel. So under white
    noise the correlation times the root of the number of pairs has mean 0 and variance 1.

    Args:
        residual: `[ny, nx]`, of mean 0; what the mask excludes may be NaN.
        mask: `[ny, nx]`, True = counts.
        lag: in pixels.

    Returns:
        The correlation, 0 if there are no pairs, and the number of pairs.

    Example:
        >>> autocorrelation(np.array([[1.0, -1.0, 1.0, -1.0]]), np.ones((1, 4), bool), 1)
        (-1.0, 3)
    """
    values = np.where(mask, residual, 0.0)
    pairs = int(np.sum(mask[:, :-lag] & mask[:, lag:]) + np.sum(mask[:-lag] & mask[lag:]))
    power = float(np.sum(values**2))
    if not pairs or not power:
        return 0.0, pairs
    total = np.sum(values[:, :-lag] * values[:, lag:]) + np.sum(values[:-lag] * values[lag:])
    return float(total / pairs / (power / mask.sum())), pairs


def whiteness(
    residual: np.ndarray, arcs: np.ndarray, sky: np.ndarray | None = None, whitened: bool = False
) -> list[Finding]:
    """Whether what is left in the arcs is white: correlation at lags of one and two pixels, as a z-score.

    A wrong lens or source leaves patches, which are correlated long before chi^2 shows them. The larger of the two
    z-scores counts, its limit is passed by white noise once in a thousand; a fit, following the noise, makes
    correlations negative rather than positive, so fewer fits pass it. If the noise is itself correlated, as in
    drizzled images, and the likelihood does not know it, arcs are compared with the sky of the same image; not so if
    chi^2 tells that there is more than noise in the sky.

    Args:
        residual: (data - model) / noise, whitened if the likelihood takes the noise for correlated, `[ny, nx]`.
        arcs: pixels of the arcs, `[ny, nx]`.
        sky: pixels without any light, `[ny, nx]`; if None, the noise is taken to be white.
        whitened: whether the residual was whitened; for the words alone, its null is the same.

    Returns:
        Findings `whiteness`, and `noise` if there is enough sky with nothing but noise in it.

    Example:
        >>> residual = np.random.default_rng(0).normal(size=(40, 50))
        >>> whiteness(residual, residual > -9)[0].level
        'ok'
    """
    limit = float(stats.norm.isf(RARE / 2))
    lags = (1, 2)
    in_sky = [autocorrelation(residual, sky, lag) for lag in lags] if sky is not None else [(0.0, 0)] * 2
    witness = sky is not None and min(pairs for _, pairs in in_sky) >= _LEAST_PAIRS and _is_noise(residual[sky])
    correlated = witness and any(r * np.sqrt(pairs) > limit and r > CORRELATION_SMALL for r, pairs in in_sky)
    in_arcs = [autocorrelation(residual, arcs, lag) for lag in lags]
    scores = []
    for (r, pairs), (expected, sky_pairs) in zip(in_arcs, in_sky, strict=True):
        variance = 1 / max(pairs, 1)
        if correlated:
            # Bartlett's (1946) variance of an autocorrelation, with those that were measured, in both directions.
            variance = (variance + 1 / sky_pairs) * (1 + 4 * sum(found**2 for found, _ in in_sky))
        scores.append((r - (expected if correlated else 0.0)) / np.sqrt(variance))
    worst = int(np.argmax(scores))
    score, r = float(scores[worst]), in_arcs[worst][0]
    excess = r - (in_sky[worst][0] if correlated else 0.0)
    beside = f", {in_sky[worst][0]:.2f} in the sky" if correlated else ""
    text = f"pixels {('one', 'two')[worst]} apart correlate by {r:.2f}{beside} (z = {score:.1f})"
    if min(pairs for _, pairs in in_arcs) < _LEAST_PAIRS:
        words = "the arcs are too small to tell whether their residuals are white; look at the figure"
        findings = [Finding("whiteness", "note", score, limit, words)]
    elif score <= limit or excess <= CORRELATION_SMALL:
        findings = [Finding("whiteness", "ok", score, limit, f"what is left in the arcs is like noise: {text}")]
    else:
        words = (
            f"patches are left in the arcs: {text}, noise alone stays below z = {limit:.1f}; intervals do not include "
        )
        words += "what the model lacks; look at the residual, check the PSF, try another source"
        findings = [Finding("whiteness", "warning", score, limit, words)]
    if correlated:
        noise = ", ".join(f"{found:.2f}" for found, _ in in_sky)
        sky_noise = f"({noise} for pixels one and two apart, in the sky)"
        if whitened:
            words = (
                f"the noise of the image is more correlated than the fit takes it to be {sky_noise}: intervals are too "
            )
            words += "narrow; take --noise-correlation auto, or a kernel from a larger image of the same kind"
        else:
            words = f"the noise of the image is correlated {sky_noise}, as after drizzling, and the fit takes it for "
            words += "white: intervals are too narrow; take --noise-correlation auto"
        findings.append(Finding("noise", "warning", max(found for found, _ in in_sky), CORRELATION_SMALL, words))
    elif witness:
        value = max(found for found, _ in in_sky)
        words = "the noise of the image is " + ("correlated as the fit takes it to be" if whitened else "white")
        findings.append(Finding("noise", "ok", value, CORRELATION_SMALL, words))
    return findings


def surrogate(pareto_k: float) -> Finding:
    """Whether a variational fit is near the posterior: the shape k of the Pareto tail of the importance ratios between
    the two. Above 0.7 the ratios say nothing any more, not even how far off it is (Vehtari et al. 2024, J. Mach. Learn.
    Res. 25, 72; Yao et al. 2018, arXiv:1802.02538).

    Args:
        pareto_k: of the draws of the surrogate.

    Example:
        >>> surrogate(0.9).level, surrogate(0.3).level
        ('failure', 'ok')
    """
    limit = 0.7
    if pareto_k <= limit:
        words = f"the variational fit is near the posterior: Pareto k = {pareto_k:.2f}"
        return Finding("surrogate", "ok", pareto_k, limit, words)
    words = (
        f"the variational fit is not the posterior: Pareto k = {pareto_k:.2f}, must be below {limit}; its intervals "
    )
    words += "are too narrow or in the wrong place; take --sampler hmc, or vi-iaf with more --warmup"
    return Finding("surrogate", "failure", pareto_k, limit, words)


# The priors -----------------------------------------------------------------------------------------------------------


def latent_norm(latents: np.ndarray) -> Finding:
    """The posterior mean of |u|^2 over a source's latents against chi^2_D: is it a galaxy that the prior knows?

    The null is that the truth was drawn from the prior. Then |u|^2 of the truth is chi^2_D, and so is that of one draw
    from each lens's posterior: truth and draw are exchangeable (Cook et al. 2006, J. Comput. Graph. Stat. 15, 675). The
    mean over one lens's draws is the expectation of such a variable given the data. It has the same mean D, and by
    Jensen's inequality is spread less about it: between chi^2_D, if the data tell everything, and D exactly, if they
    tell nothing. Its limit, the 99.9 % quantile of chi^2_D, is therefore passed by one good lens in a thousand at most
    if posteriors are about Gaussian, and for D = 50 by one in a hundred whatever they are (Chernoff's bound). A small
    norm is no alarm: little was asked of the source.

    Args:
        latents: draws, `[..., D]`.

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4, 300, 48))
        >>> latent_norm(u).words
        'a source like the galaxies that the prior knows: |u|^2 / D = 1.00 (1 is typical)'
        >>> latent_norm(1.5 * u).level
        'warning'
    """
    dim = latents.shape[-1]
    norm = float(np.mean(np.sum(np.square(latents, dtype=np.float64), -1)) / dim)
    limit = _chi2_limit(dim)
    if norm <= limit:
        words = f"a source like the galaxies that the prior knows: |u|^2 / D = {norm:.2f} (1 is typical)"
        return Finding("latent_norm", "ok", norm, limit, words)
    words = f"a source unlike the galaxies that the prior knows: |u|^2 / D = {norm:.2f}, 1 is typical and {limit:.2f} "
    words += "passed by one in a thousand; its shape, and the lens with it, may be distorted; compare --source sersic"
    return Finding("latent_norm", "warning", norm, limit, words)


def discrepancy(strength: float) -> Finding:
    """How much the source has beside what its network draws (`tflens.inference.discrepancy`).

    Args:
        strength: standard deviation of that field relative to the brightness of the source; 0 if there is none.

    Example:
        >>> discrepancy(0.0).words, discrepancy(0.12).level, discrepancy(0.65).level
        ('the network can draw the source: no field beside it is needed', 'note', 'warning')
    """
    if strength == 0:
        words = "the network can draw the source: no field beside it is needed"
        return Finding("discrepancy", "ok", strength, _MUCH_BESIDE, words)
    words = f"the network cannot draw all of the source: a field beside it varies by {strength:.0%} of the brightness, "
    if strength <= _MUCH_BESIDE:
        return Finding("discrepancy", "note", strength, _MUCH_BESIDE, words + "and intervals allow for it")
    words += "more than a correction; intervals allow for it, but compare --source sersic"
    return Finding("discrepancy", "warning", strength, _MUCH_BESIDE, words)


def prior_edge(u: np.ndarray, names: Sequence[str]) -> Finding:
    """Parameters whose posterior sits at the edge of their prior: median beyond 3, or 95 % interval beyond 4 sigma.

    u is standard normal under the prior. Of 20 parameters drawn from it, one is beyond 3 in one lens of 19: a warning
    need not mean an error, but the prior then has a say in the result.

    Args:
        u: draws of the named parameters, `[..., parameters]`.
        names: theirs.

    Example:
        >>> u = np.random.default_rng(0).normal(size=(4, 300, 2)) * 0.1 + [0.0, -3.5]
        >>> prior_edge(u, ["lens.theta_E", "lens.gamma"]).words[:50]
        'at the edge of the prior: lens.gamma (-3.5 sigma);'
    """
    if not names:
        return Finding("prior_edge", "ok", None, EDGE_MEDIAN, "there are no priors to be at the edge of")
    with np.errstate(invalid="ignore"):
        low, median, high = np.quantile(u.reshape(-1, len(names)), [0.025, 0.5, 0.975], axis=0)
    middle, reach = np.abs(median), np.maximum(-low, high)
    inside = (middle <= EDGE_MEDIAN) & (reach <= EDGE_INTERVAL)
    if inside.all():
        words = f"every parameter is inside its prior, at most {middle.max():.1f} sigma from the middle"
        return Finding("prior_edge", "ok", float(middle.max()), EDGE_MEDIAN, words)
    value, limit = (reach.max(), EDGE_INTERVAL) if middle.max() <= EDGE_MEDIAN else (middle.max(), EDGE_MEDIAN)
    outside = [f"{names[i]} ({median[i]:+.1f} sigma)" for i in np.flatnonzero(~inside)]
    words = f"at the edge of the prior: {_some(outside)}; the prior has a say in the result; if you believe the value, "
    words += "give a wider prior, else look what the model lacks"
    return Finding("prior_edge", "warning", float(value), limit, words)


def _is_noise(residual: np.ndarray) -> bool:
    """Whether pixels hold no more than noise, by their chi^2."""
    return bool(np.mean(residual**2) <= max(1 + CHI2_CLOSE, _chi2_limit(residual.size)))


def _chi2_limit(n: int) -> float:
    """The 99.9 % quantile of chi^2_n / n."""
    return float(stats.chi2.isf(RARE, n)) / n


def _labels(names: Sequence[str], dim: int) -> list[str]:
    return [*names, *(f"source latent {i + 1}" for i in range(dim - len(names)))]


def _some(names: Sequence[str], most: int = 4) -> str:
    """Names in a list, the first few of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _r_hat(name: str, what: str, parameter: str, value: float, beyond: Level) -> Finding:
    text = f"largest R-hat {value:.3f} ({parameter})"
    if value < R_HAT_GOOD:
        return Finding(name, "ok", value, R_HAT_GOOD, f"chains agree on {what}: {text}")
    if value <= R_HAT_FAILED:
        words = f"chains nearly agree on {what}: {text}, better below {R_HAT_GOOD}; take more --draws for a publication"
        return Finding(name, "note", value, R_HAT_GOOD, words)
    text = text if np.isfinite(value) else f"{parameter} never moved or is not finite"
    words = f"chains disagree on {what}: {text}, must be below {R_HAT_FAILED}; its intervals depend on the chain; "
    if R_HAT_APART < value < np.inf:
        words += "so far apart that longer ones would not meet: look whether the starts agree, and try --sampler smc"
    else:
        words += "take more --rounds"
    return Finding(name, beyond, value, R_HAT_FAILED, words)
