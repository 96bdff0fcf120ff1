"""Distances between a prior and an aggregate posterior, and the candidates, on distributions that are known."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import gammaln
from scipy.stats import multivariate_normal

from tflens.errors import ParameterError
from tflens.galaxies.candidates import GaussianPrior, MixturePrior, fit_candidates
from tflens.galaxies.latent_metrics import c2st, importance_weighted_bounds, mean_and_error, sliced_wasserstein

DIM = 3


def draws(n, seed=1, mean=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 2.0]])
    return mean + rng.normal(size=(n, DIM)) @ mixing.T


class TestC2st:
    def test_one_distribution_is_a_coin_toss(self):
        n = 300
        accuracy = c2st(draws(n, 1), draws(n, 2))
        # Out of fold each guess is right with probability 1/2; the higher of two classifiers lies a little above.
        assert abs(accuracy - 0.5) < 4 * 0.5 / np.sqrt(2 * n)

    def test_detects_a_shift_as_well_as_any_classifier_can(self):
        """Two Gaussians of unit width, 2 apart: the best accuracy is Phi(1) = 0.841."""
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=(2, 400, 1))
        assert c2st(a, b + 2) == pytest.approx(0.841, abs=0.04)

    def test_detects_what_no_moment_of_first_or_second_order_shows(self):
        rng = np.random.default_rng(1)
        ring = rng.normal(size=(300, 2))
        ring *= np.sqrt(2) / np.linalg.norm(ring, axis=1, keepdims=True)
        assert c2st(rng.normal(size=(300, 2)), ring) > 0.8

    def test_is_seeded(self):
        a, b = draws(100, 1), draws(100, 2, mean=0.5)
        assert c2st(a, b, seed=3) == c2st(a, b, seed=3)


class TestSlicedWasserstein:
    def test_shift_in_closed_form(self):
        """A shift d moves every projection by its own: the mean of abs(d . theta) over the sphere."""
        target = np.random.default_rng(1).normal(size=(4000, DIM))
        target = (target - target.mean(0)) / target.std(0)
        shift = np.array([0.3, -0.5, 0.8])
        expected = np.linalg.norm(shift) * np.exp(gammaln(DIM / 2) - gammaln((DIM + 1) / 2)) / np.sqrt(np.pi)
        found = sliced_wasserstein(target, target + shift, directions=4000)
        assert found == pytest.approx(expected, rel=0.03)

    def test_zero_for_itself_in_any_order(self):
        target = draws(200)
        assert sliced_wasserstein(target, target[::-1], directions=50) == pytest.approx(0, abs=1e-12)

    def test_does_not_know_the_units(self):
        a, b, units = draws(200, 1), draws(200, 2), np.array([1e-3, 1.0, 1e4])
        assert sliced_wasserstein(a * units, b * units) == pytest.approx(sliced_wasserstein(a, b), rel=1e-9)

    def test_other_shapes_are_refused(self):
        with pytest.raises(ParameterError, match=r"one shape \[N, D\], got \(5, 3\) and \(4, 3\)"):
            sliced_wasserstein(draws(5), draws(4))


class TestCandidates:
    def test_gaussians_against_scipy(self):
        z = draws(500, 1)
        held_out = draws(50, 2)
        full = multivariate_normal(z.mean(0), np.cov(z, rowvar=False, bias=True))
        np.testing.assert_allclose(GaussianPrior.full(z).log_prob(held_out), full.logpdf(held_out))
        diagonal = multivariate_normal(z.mean(0), np.diag(z.var(0)))
        np.testing.assert_allclose(GaussianPrior.diagonal(z).log_prob(held_out), diagonal.logpdf(held_out))
        standard = multivariate_normal(np.zeros(DIM))
        np.testing.assert_allclose(GaussianPrior.standard(DIM).log_prob(held_out), standard.logpdf(held_out))

    def test_samples_follow_the_density(self):
        """The mean of -log p over own samples is the entropy of the Gaussian."""
        prior = GaussianPrior.full(draws(500))
        sample = prior.sample(20_000, seed=1)
        entropy = np.log(np.diag(prior.scale)).sum() + DIM / 2 * np.log(2 * np.pi * np.e)
        assert -prior.log_prob(sample).mean() == pytest.approx(entropy, abs=5 * np.sqrt(DIM / 2 / 20_000))
        np.testing.assert_array_equal(sample[:5], prior.sample(20_000, seed=1)[:5])

    def test_mixture_beats_a_gaussian_on_a_mixture(self):
        rng = np.random.default_rng(1)
        z, held_out = (np.concatenate([rng.normal(-3, 0.5, (n, 2)), rng.normal(2, 1.0, (n, 2))]) for n in (400, 200))
        mixture = MixturePrior(z, 2)
        assert (mixture.log_prob(held_out) - GaussianPrior.full(z).log_prob(held_out)).mean() > 0.5
        sample = mixture.sample(1000, seed=1)
        assert abs(np.mean(sample[:, 0] < 0) - 0.5) < 0.08
        # Shuffled: scikit-learn hands draws out component by component.
        assert abs(np.mean(sample[:500, 0] < 0) - 0.5) < 0.12
        np.testing.assert_array_equal(sample, mixture.sample(1000, seed=1))

    def test_all_candidates_have_their_row(self, monkeypatch):
        monkeypatch.setattr("tflens.galaxies.candidates.MIXTURES", (2, 4))
        flow, z = GaussianPrior.standard(DIM), draws(300)
        candidates = fit_candidates(z, flow)
        names = ["N(0, I)", "diagonal Gaussian", "full Gaussian", "mixture of 2", "mixture of 4", "flow"]
        assert list(candidates) == names
        assert candidates["flow"] is flow
        means = [candidates[name].log_prob(z).mean() for name in names[:5]]
        assert means == sorted(means)  # on what they were fitted to, each holds the one before it


class TestImportanceWeightedBounds:
    """x = A z + noise with z ~ N(0, I): everything is Gaussian, so log p(x) is known."""

    ny, nx, sigma = 3, 2, 0.7

    @pytest.fixture
    def problem(self):
        rng = np.random.default_rng(2)
        matrix = rng.normal(size=(self.ny * self.nx, DIM)).astype(np.float32)
        z = rng.normal(size=(40, DIM))
        x = z @ matrix.T + self.sigma * rng.normal(size=(40, self.ny * self.nx))
        covariance = matrix @ matrix.T + self.sigma**2 * np.eye(self.ny * self.nx)
        exact = multivariate_normal(np.zeros(self.ny * self.nx), covariance).logpdf(x)
        precision = np.eye(DIM) + matrix.T @ matrix / self.sigma**2
        posterior = np.linalg.inv(precision)
        return matrix, x.reshape(-1, self.ny, self.nx), exact, posterior

    def bounds(self, problem, widen=1.0, **options):
        matrix, x, _, posterior = problem
        scale = (np.linalg.cholesky(posterior) * widen).astype(np.float32)

        def propose(image, sigma, noise):
            data = tf.reshape(image, [-1, self.ny * self.nx])
            mean = data @ (matrix @ posterior / self.sigma**2).astype(np.float32)
            z = mean[:, None] + tf.einsum("ij,nkj->nki", scale, noise)
            volume = np.log(np.diag(scale)).sum() + DIM / 2 * np.log(2 * np.pi)
            return z, -tf.reduce_sum(noise**2, -1) / 2 - volume

        def log_likelihood(image, sigma, z):
            residual = tf.reshape(image, [-1, 1, self.ny * self.nx]) - z @ matrix.T
            normalisation = self.ny * self.nx * tf.math.log(sigma * np.sqrt(2 * np.pi))
            return -tf.reduce_sum((residual / sigma[:, None, None]) ** 2, -1) / 2 - normalisation[:, None]

        prior = GaussianPrior.standard(DIM)
        sigma = np.full(len(x), self.sigma)
        priors = {"true": prior.log_prob, "raised": lambda z, condition: prior.log_prob(z) + 1.5}
        return importance_weighted_bounds(x, sigma, DIM, propose, log_likelihood, priors, **options)

    def test_exact_with_the_true_posterior(self, problem):
        """All weights are equal then, and one draw is as good as many."""
        for samples in (1, 7):
            found = self.bounds(problem, samples=samples, chunk=16)["true"]
            np.testing.assert_allclose(found, problem[2], atol=1e-4)

    def test_rises_with_the_draws_to_the_marginal_likelihood(self, problem):
        exact = problem[2]
        gaps = []
        for samples in (1, 10, 500):
            gap, error = mean_and_error(exact - self.bounds(problem, widen=1.6, samples=samples, chunk=40)["true"])
            assert gap > -3 * error
            gaps.append(gap)
        assert gaps[0] > gaps[1] > gaps[2]
        assert gaps[2] < 0.01

    def test_priors_share_their_draws(self, problem):
        found = self.bounds(problem, widen=1.6, samples=5, chunk=40)
        np.testing.assert_allclose(found["raised"] - found["true"], 1.5, atol=1e-9)

    def test_progress_counts_galaxies(self, problem):
        done = []
        self.bounds(problem, samples=2, chunk=16, progress=done.append)
        assert done == [16, 32, 40]

    def test_condition_reaches_the_prior_of_its_galaxy(self):
        """Each galaxy's rows are told its own condition, once for each draw."""
        condition = np.arange(5.0)[:, None]
        found = importance_weighted_bounds(
            np.zeros((5, 2, 3)),
            np.ones(5),
            DIM,
            lambda image, sigma, noise: (noise, tf.zeros(tf.shape(noise)[:2])),
            lambda image, sigma, z: tf.zeros(tf.shape(z)[:2]),
            {"told": lambda z, told: told[:, 0]},
            condition=condition,
            samples=4,
            chunk=2,
        )
        np.testing.assert_allclose(found["told"], condition[:, 0])
