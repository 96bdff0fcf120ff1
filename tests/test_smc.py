"""Sequential Monte Carlo: evidence that is known, modes that a chain does not find."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy import stats
from test_hmc import COVARIANCE, MEAN, PRECISION, gaussian, identity

from tflens.errors import ParameterError
from tflens.inference import hmc, smc
from tflens.inference.map import Optimum, polish
from tflens.inference.samplers import normalized
from tflens.model import LensTarget

PLACES = np.array([[1.5, 0.0, 0.0, 0.0], [-1.5, 0.5, 0.0, 0.0]])
WEIGHTS, WIDTH = np.array([0.8, 0.2]), 0.1


def prior(u):
    return -0.5 * tf.reduce_sum(u**2, -1) - 0.5 * u.shape[1] * np.log(2 * np.pi)


def posterior(u):
    """N(0, I) and a correlated Gaussian likelihood."""
    return prior(u) + gaussian(u)


# The integral of `posterior`, and its moments.
LOG_EVIDENCE = 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1] + stats.multivariate_normal(
    MEAN, COVARIANCE + np.eye(3)
).logpdf(np.zeros(3))
POSTERIOR_COVARIANCE = np.linalg.inv(PRECISION + np.eye(3))
POSTERIOR_MEAN = POSTERIOR_COVARIANCE @ PRECISION @ MEAN


def two_modes(u):
    """Two narrow Gaussians of unequal weight, fifteen widths from the middle; the integral is one."""
    terms = [
        np.log(weight) - 0.5 * tf.reduce_sum(((u - place) / WIDTH) ** 2, -1)
        for weight, place in zip(WEIGHTS, PLACES, strict=True)
    ]
    return tf.reduce_logsumexp(tf.stack(terms), 0) - 2 * np.log(2 * np.pi * WIDTH**2)


@functools.cache
def sampler(dtype: str = "float64") -> smc.Sampler:
    return smc.Sampler(posterior, 3, dtype)


@functools.cache
def runs(n: int = 10) -> list[smc.Particles]:
    return [smc.sample(sampler(), islands=5, particles=120, seed=seed) for seed in range(n)]


class TestGaussianEvidence:
    def test_evidence_within_its_error(self):
        difference = np.array([found.log_evidence - LOG_EVIDENCE for found in runs()])
        error = np.array([found.log_evidence_error for found in runs()])
        assert (error < 0.2).all()
        # Student's t of five islands is wider than a normal: 99.9 % lie within 8.6.
        assert (np.abs(difference / error) < 8.6).all()
        assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))
        # What is stated for one run is what runs scatter by.
        assert 0.5 < np.sqrt(np.mean(error**2)) / difference.std(ddof=1) < 2

    def test_moments(self):
        u = np.concatenate([found.u.reshape(-1, 3) for found in runs()])
        whitened = (u - POSTERIOR_MEAN) @ np.linalg.cholesky(np.linalg.inv(POSTERIOR_COVARIANCE))
        # 6,000 particles, of which a resampling by half leaves 3,000 that are independent.
        np.testing.assert_allclose(whitened.mean(0), 0, atol=4 / np.sqrt(3000))
        np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=4 * np.sqrt(2 / 3000))

    def test_density_is_that_of_the_particles(self):
        found = runs()[0]
        assert found.u.shape == (5, 120, 3)
        expected = posterior(tf.constant(found.u.reshape(-1, 3))).numpy().reshape(5, 120)
        np.testing.assert_allclose(found.log_prob, expected, rtol=1e-10, atol=1e-10)

    def test_account_of_the_run(self):
        found = runs()[0]
        steps = len(found.acceptances)
        assert found.temperatures.shape == (steps + 1,)
        assert (found.temperatures[0], found.temperatures[-1]) == (0.0, 1.0)
        assert (np.diff(found.temperatures) > 0).all()
        assert ((found.acceptances > 0.6) & (found.acceptances < 1)).all()
        assert found.acceptance.shape == found.diverging.shape == (5, 120)
        assert not found.diverging.any()
        # Of 600 particles, ten blocks of 64 move: three transitions each, of one gradient at least, and one more.
        assert found.gradients >= steps * 600 + (steps + 2) * 640 * 4

    def test_seed_decides_and_nothing_is_compiled_again(self):
        again = smc.sample(sampler(), islands=5, particles=120, seed=0)
        np.testing.assert_array_equal(again.u, runs()[0].u)
        assert again.log_evidence == runs()[0].log_evidence
        assert (again.u != runs()[1].u).all()
        assert sampler().mover.transit.experimental_get_tracing_count() == 1

    def test_float32(self):
        found = smc.sample(sampler("float32"), islands=5, particles=120)
        assert found.u.dtype == np.float32
        assert abs(found.log_evidence - LOG_EVIDENCE) < 8.6 * found.log_evidence_error

    def test_one_island_has_no_error_to_tell(self):
        found = smc.sample(sampler(), islands=1, particles=200)
        assert found.log_evidence_error == np.inf
        assert abs(found.log_evidence - LOG_EVIDENCE) < 4 * runs()[0].log_evidence_error * np.sqrt(5)

    def test_progress_never_runs_backwards(self):
        heard = []
        smc.sample(sampler(), islands=2, particles=50, progress=lambda *told: heard.append(told))
        assert list(dict.fromkeys(stage for stage, _, _ in heard)) == ["warm-up", "sampling"]
        for name in ("warm-up", "sampling"):
            fractions = [fraction for stage, fraction, _ in heard if stage == name]
            assert fractions == sorted(fractions)
            assert fractions[0] > 0
            assert fractions[-1] == 1.0
        assert all(points.shape == (100, 3) for _, _, points in heard)


class TestTwoModes:
    @staticmethod
    def check(found: smc.Particles) -> None:
        inside = np.linalg.norm(found.u[..., None, :] - PLACES, axis=-1) < 6 * WIDTH
        assert inside.any(-1).all()
        # The share of a mode scatters among islands; five standard errors of their mean.
        shares = inside[..., 0].mean(1)
        assert abs(shares.mean() - WEIGHTS[0]) < 5 * shares.std(ddof=1) / np.sqrt(len(shares))
        assert shares.std() < 0.15
        assert abs(found.log_evidence) < 5.4 * found.log_evidence_error  # 99.9 % of Student's t of eight islands
        for i, place in enumerate(PLACES):
            here = found.u[inside[..., i]]
            # Particles of one ancestor are alike: allow for a quarter of them being independent.
            np.testing.assert_allclose(here.mean(0), place, atol=4 * WIDTH / np.sqrt(len(here) / 4))
            np.testing.assert_allclose(here.std(0), WIDTH, rtol=4 / np.sqrt(2 * len(here) / 4))

    def test_found_from_the_prior(self):
        self.check(smc.sample(smc.Sampler(two_modes, 4, "float64"), islands=8, particles=150))

    def test_found_from_gaussians_around_them_in_fewer_steps(self):
        program = smc.Sampler(two_modes, 4, "float64", modes=3)
        near = smc.broadened(PLACES, np.repeat(np.eye(4)[None] / WIDTH**2, 2, 0))
        found = smc.sample(program, near, islands=8, particles=150)
        self.check(found)
        far = smc.sample(program, islands=8, particles=150)
        assert len(found.temperatures) < len(far.temperatures)
        assert found.gradients < far.gradients / 2

    def test_chains_that_begin_in_one_stay_there(self):
        curvature = lambda points: identity(points) / WIDTH**2  # noqa: E731
        u = hmc.sample(hmc.Sampler(two_modes, 4, "float64"), PLACES[1], curvature, chains=4, warmup=60, draws=60).u
        assert (np.linalg.norm(u - PLACES[1], axis=-1) < 6 * WIDTH).all()


class TestReference:
    def test_prior_and_mixture_are_normalised(self):
        program = smc.Sampler(posterior, 3, "float64", modes=4)
        u = np.random.default_rng(0).normal(size=(70, 3))
        factor = np.linalg.cholesky(COVARIANCE)
        program.begin(smc.Reference(np.stack([MEAN, -MEAN]), np.stack([factor, 2 * factor])))
        expected = np.log(
            0.5 * stats.multivariate_normal(MEAN, COVARIANCE).pdf(u)
            + 0.5 * stats.multivariate_normal(-MEAN, 4 * COVARIANCE).pdf(u)
        )
        log_prob, log_reference = program.score(u)
        np.testing.assert_allclose(log_reference, expected, rtol=1e-10)
        np.testing.assert_allclose(log_prob, posterior(tf.constant(u)), rtol=1e-12)
        np.testing.assert_array_equal(program.component(np.stack([MEAN, -MEAN, MEAN * 0.99])), [0, 1, 0])

    def test_optima_that_count(self):
        curvature = np.diag([1.0, 100.0])
        optima = np.array([[0.0, 0.0], [0.0, 0.4], [0.0, 0.6], [9.0, 0.0], [20.0, 0.0], [np.nan, 0.0]])
        heights = np.array([0.0, -1.0, -1.0, -30.0, -19.0, np.nan])
        found = smc.around_optima(optima, heights, lambda points: np.repeat(curvature[None], len(points), 0), 8)
        # 0.4 is four widths away, 0.6 six; what is 30 lower, or nowhere, is left out.
        np.testing.assert_array_equal(found.mean, optima[[0, 2, 4]])
        width = found.factor @ np.swapaxes(found.factor, 1, 2)
        np.testing.assert_allclose(width, np.repeat(np.diag([1.0, 1 / 10.9])[None], 3, 0))

    def test_density_that_is_finite_nowhere_is_refused(self):
        program = smc.Sampler(lambda u: u[:, 0] * np.nan, 2, "float64")
        with pytest.raises(ParameterError, match="must be finite at some of the particles, but is at none of 40"):
            smc.sample(program, islands=2, particles=20)

    def test_wall_is_kept(self):
        def walled(u):
            return tf.where(u[:, 0] < 0, prior(u), tf.constant(np.nan, u.dtype))

        found = smc.sample(smc.Sampler(walled, 2, "float64"), islands=4, particles=200)
        assert (found.u[..., 0] < 0).all()
        assert abs(found.log_evidence - np.log(0.5)) < 13 * found.log_evidence_error  # Student's t of four islands


def test_systematic_resampling_keeps_each_within_one_of_its_share():
    rng = np.random.default_rng(0)
    log_weights = rng.normal(size=50) * 2 + 1000
    share = 200 * np.exp(log_weights - log_weights.max()) / np.exp(log_weights - log_weights.max()).sum()
    counts = np.array([np.bincount(smc.systematic(log_weights, 200, rng), minlength=50) for _ in range(400)])
    assert (counts.sum(1) == 200).all()
    assert (np.abs(counts - share) < 1).all()
    # Rounded up or down at random, right in the mean: variance of at most 1/4.
    np.testing.assert_allclose(counts.mean(0), share, atol=4 * 0.5 / np.sqrt(400))


class TestLens:
    """A lens of 20 x 24 pixels of which four parameters are free."""

    FREE = ("lens.theta_E", "shear.gamma1", "shear.gamma2", "source.center_x")

    @staticmethod
    @functools.cache
    def target() -> LensTarget:
        values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
        joint = [f"{entry.label}.{','.join(entry.parameter.names)}" for entry in tiny_lens.model().entries]
        fixed = {
            name: [values[f"{name.split('.')[0]}.{each}"] for each in name.split(".")[1].split(",")]
            for name in joint
            if name not in TestLens.FREE
        }
        return LensTarget(tiny_lens.model(priors=fixed), tiny_lens.observation())

    def test_density_is_likelihood_times_normalised_prior(self):
        target = self.target()
        u = np.random.default_rng(0).normal(size=(5, 4))
        expected = target.log_likelihood(tf.constant(u)).numpy() + stats.norm.logpdf(u).sum(1)
        np.testing.assert_allclose(normalized(target)(tf.constant(u)), expected, rtol=1e-9)

    def test_evidence_is_that_of_laplace_where_the_posterior_is_gaussian(self):
        target = self.target()
        density = normalized(target)
        start = target.model.base({"lens.theta_E": 0.8, "shear.gamma1": 0.03, "shear.gamma2": -0.02})
        best = polish(target, Optimum(start[None], np.zeros(1), 0), 24).u[0]
        # Central differences of the gradient, at steps of a hundredth of a width or less.
        steps = 1e-5 * np.eye(4)
        points = tf.constant(np.concatenate([best + steps, best - steps]))
        gradient = target.value_and_gradient(points)[1].numpy()
        hessian = -(gradient[:4] - gradient[4:]) / 2e-5
        height = float(density(tf.constant(best[None]))[0])
        laplace = height + 2 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(hessian)[1]

        program = smc.Sampler(density, 4, "float64")
        found = smc.sample(program, smc.broadened(best[None], hessian[None]), islands=8, particles=250, seed=1)
        # The skewness of a posterior this narrow is worth less than a twentieth of a nat.
        assert found.log_evidence_error < 0.1
        assert abs(found.log_evidence - laplace) < 5.4 * found.log_evidence_error + 0.05
        whitened = (found.u.reshape(-1, 4) - best) @ np.linalg.cholesky(hessian)
        np.testing.assert_allclose(whitened.mean(0), 0, atol=4 / np.sqrt(1000))
        np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=4 * np.sqrt(2 / 1000))
