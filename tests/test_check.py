"""The checks of a fit: their false alarms under the null by simulation, and that each fires on what it is there for."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, signal, stats
from small_fit import SETTINGS, small_fit

from tflens.inference.check import (
    LEVELS,
    RARE,
    Finding,
    autocorrelation,
    chains_apart,
    check,
    convergence,
    failed,
    goodness,
    in_words,
    latent_norm,
    not_finite,
    prior_edge,
    sampler_health,
    starts_agree,
    verdict,
    whiteness,
    worst_first,
)
from tflens.whitening import whiten, whitening_taps

NAMES = ("lens.theta_E", "shear.gamma1", "light1.R_sersic")
DIM = len(NAMES) + 4  # with latents
SHAPE = (60, 52)


def rng(seed=0):
    return np.random.default_rng(seed)


def white(chains=4, draws=400, dim=DIM, seed=0):
    return rng(seed).normal(size=(chains, draws, dim))


def autoregressive(memory, chains=8, draws=300, dim=5, seed=0):
    """Unit normal draws whose neighbours correlate by `memory`: sampler's effective size is (1-m)/(1+m) of theirs."""
    noise = rng(seed).normal(size=(draws, chains, dim))
    u = noise.copy()
    for i in range(1, draws):
        u[i] = memory * u[i - 1] + np.sqrt(1 - memory**2) * noise[i]
    return np.swapaxes(u, 0, 1)


def ring(shape=SHAPE, low=12, high=20):
    y, x = np.indices(shape)
    radius = np.hypot(x - shape[1] / 2, y - shape[0] / 2)
    return (radius > low) & (radius < high)


def by_name(findings):
    found = {finding.name: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def binomial_bounds(n, p):
    """What a count of n trials stays within, but for one in 10^5."""
    return stats.binom.ppf(5e-6, n, p), stats.binom.isf(5e-6, n, p)


class TestConvergence:
    def levels(self, u):
        return {finding.name: finding.level for finding in convergence(u, NAMES)}

    def test_independent_draws_pass(self):
        for seed in range(20):
            assert self.levels(white(8, 300, seed=seed)) == {"r_hat_mass": "ok", "r_hat_rest": "ok", "ess": "ok"}

    @pytest.mark.parametrize(
        ("index", "name", "level"),
        [
            (0, "r_hat_mass", "failure"),
            (1, "r_hat_mass", "failure"),
            (2, "r_hat_rest", "warning"),
            (5, "r_hat_rest", "warning"),
        ],
    )
    def test_a_shifted_chain_is_seen_and_named(self, index, name, level):
        u = white()
        u[1, :, index] += 1.5
        found = by_name(convergence(u, NAMES))
        assert found[name].level == level
        assert found[name].value > found[name].limit == 1.05
        assert (NAMES[index] if index < 3 else "source latent 3") in found[name].words
        other = "r_hat_rest" if name == "r_hat_mass" else "r_hat_mass"
        assert found[other].level == "ok"

    def test_more_rounds_are_advised_where_they_help(self):
        near, far = white(), white()
        near[1, :, 0] += 1.5
        far[..., 0] += 5 * np.arange(4)[:, None]
        for u, words in ((near, "take more --rounds"), (far, "would not meet: look whether the starts agree")):
            assert words in by_name(convergence(u, NAMES))["r_hat_mass"].words

    def test_a_chain_of_another_width_is_seen(self):
        """By the folded draws alone: all means are the same."""
        u = white()
        u[1, :, 0] *= 4
        assert self.levels(u)["r_hat_mass"] == "failure"

    def test_a_drift_that_all_chains_share_is_seen(self):
        """By splitting alone: all chains are alike."""
        u = white()
        u[..., 0] += np.linspace(-1, 1, u.shape[1])
        assert self.levels(u)["r_hat_mass"] == "failure"

    def test_a_small_shift_is_a_note(self):
        u = white(4, 4000)
        u[1, :, 0] += 0.35
        found = by_name(convergence(u, NAMES))
        assert found["r_hat_mass"].level == "note"
        assert found["r_hat_mass"].limit == 1.01 < found["r_hat_mass"].value < 1.05

    @pytest.mark.parametrize(("memory", "level"), [(0.0, "ok"), (0.8, "note"), (0.95, "warning")])
    def test_effective_sample_size(self, memory, level):
        found = by_name(convergence(autoregressive(memory), NAMES))["ess"]
        assert found.level == level
        assert found.limit == (100 if level == "warning" else 400)

    def test_effective_sample_size_of_an_autoregression(self):
        """(1 - m) / (1 + m) of the draws; in the tails more, so that the bulk is the least."""
        found = by_name(convergence(autoregressive(0.8, draws=6000), NAMES))["ess"]
        expected = 8 * 6000 / 9
        assert 0.85 * expected < found.value < 1.02 * expected
        assert "bulk" in found.words

    def test_tails_that_are_seldom_visited_are_seen(self):
        """Heavy-tailed and slow only out there: the bulk mixes at once."""
        generator = rng(11)
        outside = np.repeat(generator.random((4, 20)) < 0.06, 100, axis=1)
        u = np.where(outside, 5 + generator.random((4, 2000)), generator.normal(size=(4, 2000)))[..., None]
        found = by_name(convergence(u, NAMES[:1]))["ess"]
        assert "tail" in found.words
        assert found.level == "note"

    def test_chains_that_never_moved_fail(self):
        found = by_name(convergence(np.zeros((4, 50, 3)), NAMES))
        assert found["r_hat_mass"].level == "failure"
        assert "never moved" in found["r_hat_mass"].words
        assert "take more --rounds" in found["r_hat_mass"].words

    def test_draws_that_are_not_finite_fail(self):
        u = white()
        u[0, 3, 5] = np.nan
        assert self.levels(u) == {"r_hat_mass": "failure", "r_hat_rest": "warning", "ess": "warning"}

    def test_without_latents_or_mass(self):
        assert [f.name for f in convergence(white(dim=2), NAMES[:2])] == ["r_hat_mass", "ess"]
        assert [f.name for f in convergence(white(dim=1), NAMES[2:])] == ["r_hat_rest", "ess"]


class TestChainsApart:
    def test_slow_chains_are_no_alarm(self):
        """With 8 effective draws a chain, they disagree by what R-hat is there to tell."""
        for seed in range(20):
            u = autoregressive(0.95, seed=seed)
            assert chains_apart(u, np.zeros(u.shape[:2]), NAMES).level == "ok"

    @pytest.mark.parametrize(("index", "level"), [(1, "failure"), (2, "warning"), (6, "warning")])
    def test_another_solution_is_told_with_its_chains_and_height(self, index, level):
        u, log_prob = white(), np.zeros((4, 400))
        u[[1, 3], :, index] += 12
        u[:, :, index] *= 0.1
        u[0, :, index] += 0.02
        u, log_prob = np.concatenate([u, u[:1], u[:1]]), np.concatenate([log_prob] * 2)[:6]
        log_prob[[1, 3]] -= 7.5
        found = chains_apart(u, log_prob, NAMES)
        assert found.level == level
        assert found.words.startswith("chains 2, 4 of 6 sit apart")
        assert "7.5 lower" in found.words
        assert [*NAMES, *(f"source latent {i}" for i in range(1, 5))][index] in found.words

    def test_a_stuck_chain_and_a_lost_one(self):
        u = white()
        u[2] = 20.0
        assert "chain 3 of 4 sits apart" in chains_apart(u, np.zeros((4, 400)), NAMES).words
        u[2, 7] = np.nan
        assert "chain 3 of 4 sits apart" in chains_apart(u, np.zeros((4, 400)), NAMES).words


class TestSampler:
    def levels(self, acceptance, diverging=0):
        flags = np.zeros((4, 50), bool)
        flags.flat[:diverging] = True
        return [finding.level for finding in sampler_health(np.full((4, 50), acceptance), flags)]

    def test_acceptance(self):
        expected = {0.0: "failure", 0.05: "failure", 0.3: "warning", 0.65: "ok", 0.9: "ok", 0.999: "note"}
        assert {value: self.levels(value)[0] for value in expected} == expected
        assert self.levels(np.nan)[0] == "failure"

    def test_divergences(self):
        assert self.levels(0.8, 0)[1] == "ok"
        assert self.levels(0.8, 1)[1] == "warning"
        found = sampler_health(np.ones((4, 50)), np.eye(4, 50, dtype=bool))[1]
        assert found.value == 4
        assert "4 of 200 trajectories diverged (2.0%)" in found.words


class TestStarts:
    U = white()
    LOG_PROB = -np.abs(white()[..., 0])

    def found(self, heights, starts=None, log_prob=LOG_PROB):
        starts = np.zeros((len(heights), len(NAMES))) if starts is None else starts
        return starts_agree(starts, np.array(heights, float), self.U, log_prob, NAMES)

    def test_agreement_is_counted(self):
        found = self.found([0.0, -0.5, -1.9, -2.1, -300.0])
        assert (found.level, found.value) == ("ok", 3)
        assert found.words.startswith("3 of 5")

    def test_a_start_that_is_alone_at_the_top(self):
        found = self.found([0.0, -40.0, -41.0])
        assert (found.level, found.value) == ("warning", 1)
        assert self.found([0.0]).level == "note"

    def test_a_rival(self):
        starts = np.zeros((3, len(NAMES)))
        starts[1, 1] = 7.0
        found = self.found([0.0, -1.0, -1.5], starts)
        assert found.level == "warning"
        assert "shear.gamma1, with a log posterior only 1.0 below" in found.words
        assert self.found([0.0, -9.0, -1.5], starts).level == "ok"
        # The light, and what the chains cover, do not make one.
        assert self.found([0.0, -1.0, -1.5], starts[:, [0, 2, 1]]).level == "ok"
        assert self.found([0.0, -1.0, -1.5], 0.3 * starts).level == "ok"

    def test_chains_that_climb_above_the_optimum(self):
        found = self.found([0.0, -0.1], log_prob=self.LOG_PROB + 50)
        assert found.level == "note"
        assert "higher" in found.words

    def test_lost_starts_do_not_agree(self):
        assert self.found([0.0, np.nan, np.nan]).value == 1


class TestNotFinite:
    def test_levels(self):
        u, starts = white(), np.zeros(8)
        broken, lost = u.copy(), starts.copy()
        broken[0, :3, 2], lost[5] = np.inf, np.nan
        assert not_finite(u, starts, 0, 1000).level == "ok"
        assert not_finite(u, starts, 9, 1000).level == "note"
        assert not_finite(u, starts, 11, 1000).level == "warning"
        assert not_finite(u, lost, 0, 1000).level == "warning"
        found = not_finite(broken, lost, 4, 1000)
        assert (found.level, found.value) == ("failure", 8)
        assert "3 of 1600 draws" in found.words


class TestGoodness:
    def test_false_alarms_of_the_truth(self):
        generator, arcs, used = rng(), ring(), np.ones(SHAPE, bool)
        levels = [[f.level for f in goodness(generator.normal(size=SHAPE), arcs, used, 0)] for _ in range(3000)]
        in_arcs = sum(level[0] != "ok" for level in levels)
        low, high = binomial_bounds(3000, RARE)
        assert low <= in_arcs <= high
        # All pixels have to be beyond 5 % as well, which is 2 sigma here.
        assert sum(level[1] != "ok" for level in levels) <= high

    def test_a_fit_that_follows_the_noise_is_no_alarm(self):
        """Residuals of a linear model of p parameters have chi^2_(n-p)."""
        generator, used = rng(1), np.ones((20, 30), bool)
        basis = np.linalg.qr(generator.normal(size=(600, 120)))[0]
        for _ in range(300):
            noise = generator.normal(size=600)
            residual = (noise - basis @ (basis.T @ noise)).reshape(used.shape)
            assert [f.level for f in goodness(residual, used, used, 120)] == ["ok", "ok"]

    @pytest.mark.parametrize(("factor", "level"), [(1.0, "ok"), (1.3, "warning"), (2.5, "failure")])
    def test_arcs_that_are_not_explained(self, factor, level):
        arcs, used = ring(), np.ones(SHAPE, bool)
        residual = rng().normal(size=SHAPE)
        residual[arcs] *= np.sqrt(factor / np.mean(residual[arcs] ** 2))
        found = by_name(goodness(residual, arcs, used, 20))["chi2_arcs"]
        assert (found.level, found.value) == (level, pytest.approx(factor))

    def test_a_noise_map_that_is_too_large_or_too_small(self):
        arcs, used, residual = ring(), np.ones(SHAPE, bool), rng().normal(size=SHAPE)
        assert by_name(goodness(0.7 * residual, arcs, used, 20))["chi2"].level == "warning"
        assert by_name(goodness(1.2 * residual, arcs, used, 20))["chi2"].level == "note"

    def test_no_arcs(self):
        used = np.ones(SHAPE, bool)
        found = by_name(goodness(rng().normal(size=SHAPE), ~used, used, 20))["chi2_arcs"]
        assert (found.level, found.value) == ("failure", None)
        assert "no arcs" in found.words

    def test_few_pixels_are_judged_mildly(self):
        arcs = np.zeros(SHAPE, bool)
        arcs[3, 4:10] = True
        found = goodness(np.full(SHAPE, 1.6), arcs, np.ones(SHAPE, bool), 20)[0]
        assert (found.level, found.value) == ("warning", pytest.approx(2.56))

    def test_a_model_that_is_not_finite_fails(self):
        used = np.ones(SHAPE, bool)
        found = goodness(np.full(SHAPE, np.nan), ring(), used, 20)
        assert found[0].level == "failure"
        assert found[1].level == "note"


class TestWhiteness:
    def test_null_distribution(self):
        """z has mean 0 and variance 1, the lags are uncorrelated, and one in a thousand is an alarm at most."""
        generator, arcs, alarms = rng(2), ring(), 0
        scores = []
        for _ in range(4000):
            residual = generator.normal(size=SHAPE)
            pairs = [autocorrelation(residual, arcs, lag) for lag in (1, 2)]
            scores.append([r * np.sqrt(n) for r, n in pairs])
            alarms += whiteness(residual, arcs)[0].level != "ok"
        scores = np.array(scores)
        np.testing.assert_allclose(scores.mean(0), 0, atol=4 / np.sqrt(4000))
        np.testing.assert_allclose(scores.std(0), 1, atol=4 / np.sqrt(2 * 4000))
        assert abs(np.corrcoef(scores.T)[0, 1]) < 4 / np.sqrt(4000)
        assert alarms <= binomial_bounds(4000, RARE)[1]
        limit = whiteness(residual, arcs)[0].limit
        low, high = binomial_bounds(4000, RARE)
        assert low <= np.sum(scores.max(1) > limit) <= high

    def test_correlation_of_smoothed_noise(self):
        """A moving average over two pixels correlates by 1/2 along itself and by 0 across: 1/4 of all pairs."""
        noise = rng(3).normal(size=(300, 401))
        residual = (noise[:, 1:] + noise[:, :-1]) / np.sqrt(2)
        mask = np.ones(residual.shape, bool)
        r, pairs = autocorrelation(residual, mask, 1)
        assert pairs == 300 * 399 + 299 * 400
        assert r == pytest.approx(0.25, abs=5 / np.sqrt(pairs))
        assert autocorrelation(residual, mask, 2)[0] == pytest.approx(0, abs=5 / np.sqrt(pairs))

    def test_masked_pixels_do_not_count(self):
        arcs, residual = ring(), rng(4).normal(size=SHAPE)
        hidden = np.where(arcs, residual, np.nan)
        for lag in (1, 2):
            assert autocorrelation(hidden, arcs, lag) == autocorrelation(residual, arcs, lag)
        left, right = np.indices((1, 12))[1] < 5, np.indices((1, 12))[1] > 6
        assert autocorrelation(np.ones((1, 12)), left | right, 2)[1] == 3 + 3
        assert autocorrelation(np.ones((1, 12)), left, 6) == (0.0, 0)

    def test_the_mean_square_does_not_matter(self):
        arcs, residual = ring(), rng(5).normal(size=SHAPE)
        first, again = (whiteness(scale * residual, arcs)[0].value for scale in (1.0, 0.3))
        assert first == pytest.approx(again, rel=1e-12)

    def test_patches_below_the_noise_are_seen_before_chi2_sees_them(self):
        arcs, used = ring(), np.ones(SHAPE, bool)
        generator, levels = rng(6), []
        for _ in range(100):
            patches = ndimage.gaussian_filter(generator.normal(size=SHAPE), 1.5)
            residual = generator.normal(size=SHAPE) + 0.35 * arcs * patches / patches.std()
            found = whiteness(residual, arcs, used & ~arcs) + goodness(residual, arcs, used, 0)
            levels.append([finding.level for finding in found])
        in_arcs, noise, chi2, _ = zip(*levels, strict=True)
        assert noise.count("ok") == 100
        assert in_arcs.count("warning") > 50
        assert in_arcs.count("warning") > 2 * chi2.count("warning") > 0

    def test_correlated_noise_is_told_from_patches(self):
        """As after drizzling: correlated everywhere. Then only what correlates more in the arcs is an alarm."""
        arcs, generator = ring(), rng(7)
        sky, alarms = ~arcs, 0
        for _ in range(1000):
            noise = ndimage.gaussian_filter(generator.normal(size=SHAPE), 0.5)
            found = by_name(whiteness(noise / noise.std(), arcs, sky))
            assert found["noise"].level == "warning"
            alarms += found["whiteness"].level == "warning"
        assert alarms <= 5
        patches = ndimage.gaussian_filter(generator.normal(size=SHAPE), 1.5)
        found = by_name(whiteness(noise / noise.std() + arcs * patches / patches.std(), arcs, sky))
        assert found["whiteness"].level == "warning"
        assert "in the sky" in found["whiteness"].words

    def test_a_sky_that_is_not_explained_excuses_nothing(self):
        patches = ndimage.gaussian_filter(rng(12).normal(size=SHAPE), 1.5)
        residual = rng(13).normal(size=SHAPE) + patches / patches.std()
        found = by_name(whiteness(residual, ring(), ~ring()))
        assert found["whiteness"].level == "warning"
        assert "noise" not in found

    def test_whitened_residuals_have_the_null_of_white_ones(self):
        """Correlated noise of an image with bad pixels, whitened: chi^2 and correlations stay within their limits as
        often as those of white noise, and the words are those of whitened residuals."""
        arcs, used, generator = ring(), rng(14).random(SHAPE) > 0.05, rng(15)
        response = np.array([[0.0, 0.1, 0.3], [0.0, 1.0, 0.2], [0.2, 0.1, 0.0]])
        kernel = signal.correlate(response, response)
        noise = generator.normal(size=(1500, SHAPE[0] + 2, SHAPE[1] + 2))
        noise = signal.fftconvolve(noise, response[None], mode="valid", axes=(1, 2)) / np.sqrt(kernel.max())
        taps = whitening_taps(np.ones(SHAPE), used, kernel / kernel.max())
        residuals = whiten(tf.constant(noise), tf.constant(taps)).numpy()
        arcs, sky = arcs & used, ~arcs & used
        scores = np.array([[autocorrelation(r, arcs, lag)[0] for lag in (1, 2)] for r in residuals])
        pairs = np.array([autocorrelation(residuals[0], arcs, lag)[1] for lag in (1, 2)])
        np.testing.assert_allclose((scores * np.sqrt(pairs)).mean(0), 0, atol=4 / np.sqrt(1500) + 0.1)
        np.testing.assert_allclose((scores * np.sqrt(pairs)).std(0), 1, atol=4 / np.sqrt(2 * 1500) + 0.02)
        found = [whiteness(r, arcs, sky, whitened=True) + goodness(r, arcs, used, 0) for r in residuals]
        alarms = {f.name: sum(by_name(each)[f.name].level != "ok" for each in found) for f in found[0]}
        assert set(alarms) == {"whiteness", "noise", "chi2_arcs", "chi2"}
        assert max(alarms.values()) <= binomial_bounds(1500, RARE)[1]
        assert by_name(found[0])["noise"].words == "the noise of the image is correlated as the fit takes it to be"

    def test_words_name_the_option(self):
        arcs, noise = ring(), ndimage.gaussian_filter(rng(16).normal(size=SHAPE), 0.5)
        noise /= noise.std()
        white, whitened = (by_name(whiteness(noise, arcs, ~arcs, known))["noise"] for known in (False, True))
        assert white.level == whitened.level == "warning"
        assert "takes it for white" in white.words
        assert "more correlated than the fit takes it to be" in whitened.words
        assert all("--noise-correlation auto" in found.words for found in (white, whitened))
        too_large = by_name(goodness(0.7 * noise, arcs, arcs | ~arcs, 0))["chi2"]
        assert "--noise-scale auto" in too_large.words

    def test_too_few_pairs(self):
        arcs = np.zeros(SHAPE, bool)
        arcs[:5, :5] = True
        findings = whiteness(np.ones(SHAPE), arcs, arcs)
        assert [finding.level for finding in findings] == ["note"]

    def test_a_model_that_is_not_finite_does_not_pass(self):
        assert whiteness(np.full(SHAPE, np.nan), ring())[0].level == "warning"


class TestLatentNorm:
    DIM = 24

    def lenses(self, information, count=2000, draws=60):
        """|u|^2 of posterior draws for truths from the prior: each latent was measured with its own precision.

        The posterior of u ~ N(0, 1) given y = u + e, e ~ N(0, 1/information), is N(y w, 1 - w), w = i / (1 + i).
        """
        generator = rng(8)
        weight = information / (1 + information)
        truth = generator.normal(size=(count, self.DIM))
        data = truth + generator.normal(size=truth.shape) / np.sqrt(information)
        spread = np.sqrt(1 - weight) * generator.normal(size=(draws, count, self.DIM))
        return np.swapaxes(data * weight + spread, 0, 1)

    @pytest.mark.parametrize("information", [1e-6, 1.0, 1e6, np.geomspace(1e-3, 1e3, DIM)])
    def test_false_alarms_whatever_the_data_tell(self, information):
        found = [latent_norm(draws) for draws in self.lenses(information)]
        norms = np.array([finding.value for finding in found])
        assert norms.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / self.DIM / len(norms)))
        assert norms.var() < 1.2 * 2 / self.DIM
        assert sum(not finding.passed for finding in found) <= binomial_bounds(len(found), RARE)[1]

    def test_limit_is_that_of_the_truth_itself(self):
        truths = rng(9).normal(size=(20000, 1, self.DIM))
        alarms = sum(np.sum(truth**2) / self.DIM > latent_norm(truths[0]).limit for truth in truths)
        low, high = binomial_bounds(20000, RARE)
        assert 0 < low <= alarms <= high

    def test_a_source_from_elsewhere_is_an_alarm(self):
        strange = 1.6 * self.lenses(30.0, 200)
        found = [latent_norm(draws) for draws in strange]
        assert np.mean([finding.level == "warning" for finding in found]) > 0.7
        assert latent_norm(np.zeros((3, 5, self.DIM))).level == "ok"

    def test_one_strange_latent_is_enough(self):
        u = 0.3 * rng().normal(size=(4, 100, self.DIM)) + 0.9
        assert latent_norm(u).level == "ok"
        u[..., 7] += 6
        assert latent_norm(u).level == "warning"


class TestPriorEdge:
    def test_draws_of_the_prior_pass(self):
        assert prior_edge(white()[..., :3], NAMES).level == "ok"

    def test_false_alarms(self):
        """Of n well measured parameters drawn from the prior, one is beyond 3 in 1 - 0.9973^n of the lenses."""
        names = [f"lens.p{i}" for i in range(20)]
        truths = rng(10).normal(size=(4000, 20))
        alarms = sum(not prior_edge(truth + np.zeros((2, 3, 20)), names).passed for truth in truths)
        low, high = binomial_bounds(4000, 1 - (1 - 2 * stats.norm.sf(3)) ** 20)
        assert low <= alarms <= high

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_a_median_beyond_three(self, sign):
        u = 0.1 * white()[..., :3]
        u[..., 1] += sign * 3.3
        found = prior_edge(u, NAMES)
        assert (found.level, found.limit) == ("warning", 3)
        assert found.value == pytest.approx(3.3, abs=0.02)
        assert f"shear.gamma1 ({sign * 3.3:+.1f} sigma)" in found.words
        assert not any(name in found.words for name in (NAMES[0], NAMES[2]))

    @pytest.mark.parametrize("sign", [-1, 1])
    def test_an_interval_beyond_four(self, sign):
        u = 0.1 * white()[..., :3]
        u[..., 2] = sign * (2.5 + white()[..., 2])
        found = prior_edge(u, NAMES)
        assert (found.level, found.limit) == ("warning", 4)
        assert found.value == pytest.approx(2.5 + 1.96, abs=0.2)
        assert NAMES[2] in found.words

    def test_no_parameters(self):
        assert prior_edge(np.zeros((2, 3, 0)), ()).level == "ok"


class TestVerdict:
    FINDINGS = tuple(Finding(f"is_{level}", level, 1.0, 2.0, f"words of {level}") for level in LEVELS)

    def test_failed_only_by_a_failure(self):
        assert failed(self.FINDINGS)
        assert not failed(self.FINDINGS[:3])
        assert [finding.passed for finding in self.FINDINGS] == [True, True, False, False]

    def test_words(self):
        assert verdict(self.FINDINGS) == "this fit failed, do not use it: 1 of 4 checks failed (is_failure)"
        assert verdict(self.FINDINGS[:3]) == "to be used with care: 1 of 3 checks warns (is_warning)"
        assert verdict(self.FINDINGS[:2]) == "nothing speaks against this fit: 2 checks passed"
        twice = [*self.FINDINGS, replace(self.FINDINGS[3], name="other")]
        assert "2 of 5 checks failed (is_failure, other)" in verdict(twice)
        lines = in_words(self.FINDINGS).splitlines()
        assert lines[0] == verdict(self.FINDINGS)
        assert [line.split()[0] for line in lines[1:]] == ["failure", "warning", "note", "ok"]
        assert [line.split("  ")[-1].strip() for line in lines[1:]] == [f.words for f in self.FINDINGS[::-1]]

    def test_order_of_equals_is_kept(self):
        equals = [Finding(name, "note", None, None, "") for name in "bac"]
        assert worst_first(equals) == equals


class TestWholeFit:
    """Of a lens that the model describes, but with chains of 30 draws."""

    def test_what_is_good_and_what_is_not(self):
        found = by_name(check(small_fit().fit))
        assert set(found) == {
            "r_hat_mass", "r_hat_rest", "ess", "chains", "acceptance", "divergences", "starts", "not_finite",
            "chi2_arcs", "chi2", "whiteness", "noise", "prior_edge",
        }  # fmt: skip
        assert found["ess"].level == "warning"
        assert found["ess"].value <= SETTINGS["chains"] * SETTINGS["draws"] * 3
        for name in ("not_finite", "chi2_arcs", "chi2", "whiteness", "noise", "prior_edge"):
            assert found[name].level == "ok", found[name].words

    def test_figures_are_those_of_the_diagnostics(self):
        fit = small_fit().fit
        found, diagnostics = by_name(check(fit)), fit.diagnostics()
        worst = max(found["r_hat_mass"].value, found["r_hat_rest"].value)
        assert worst == pytest.approx(diagnostics["max_r_hat"])
        assert found["ess"].value <= diagnostics["min_ess"]
        for name in ("chi2", "chi2_arcs", "acceptance", "divergences"):
            assert found[name].value == pytest.approx(diagnostics[name]), name
        assert found["starts"].value == diagnostics["starts_agreeing"]

    @pytest.mark.parametrize("step", [-1.0, -0.2, 0.2, 1.0])
    def test_a_wrong_lens_fails(self, step):
        """The same fit, had its Einstein radius been another one: arcs in the wrong place."""
        fit = small_fit().fit
        wrong = fit.optimum.u[0].copy()
        wrong[fit.model.names.index("lens.theta_E")] += step
        bad = by_name(check(replace(fit, best=fit.target.evaluate(wrong))))
        assert bad["chi2_arcs"].level == "failure"
        assert bad["whiteness"].level == "warning"
        assert failed(bad.values())

    def test_summary_holds_the_findings(self):
        summary = json.loads((small_fit().folder / "summary.json").read_text())
        findings = check(small_fit().fit)
        assert [entry["words"] for entry in summary["check"]] == [finding.words for finding in findings]
        assert all(entry.keys() == asdict(findings[0]).keys() for entry in summary["check"])
