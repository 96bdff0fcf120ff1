"""Amplitudes in closed form against brute-force integration, and the laws that the closed form must keep."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import quad
from scipy.stats import norm

from tflens.errors import ParameterError
from tflens.linear import marginalize, positivity_residual, sample_amplitudes

RNG = np.random.default_rng(8)
DESIGN = RNG.normal(size=(3, 40)) + 0.5
NOISE = RNG.normal(size=40)


def solve(design, data, prior_scale=5.0, positive=(True,), dtype="float64"):
    return marginalize(tf.constant(design, dtype), tf.constant(data, dtype), prior_scale, positive)


def log_prior(amplitude, design, prior_scale, positive):
    width = prior_scale / np.linalg.norm(design)
    return norm.logpdf(amplitude, scale=width) + (np.log(2) if positive else 0)


def log_noise(residual):
    return -0.5 * np.sum(residual**2)


class TestMarginalLikelihood:
    @pytest.mark.parametrize("positive", [True, False])
    @pytest.mark.parametrize("truth", [0.7, 0.05, -0.4])
    def test_one_amplitude_equals_the_integral(self, positive, truth):
        unit, data = DESIGN[0], truth * DESIGN[0] + NOISE
        best = unit @ data / (unit @ unit)
        peak = log_noise(data - best * unit)
        low, high = (0.0, 3.0) if positive else (-3.0, 3.0)
        integral, _ = quad(
            lambda a: np.exp(log_noise(data - a * unit) + log_prior(a, unit, 5.0, positive) - peak),
            low,
            high,
            points=[max(best, low + 1e-6)],
            epsabs=0,
            epsrel=1e-12,
            limit=500,
        )
        found = solve(unit[None], data, positive=(positive,)).log_likelihood
        np.testing.assert_allclose(found, np.log(integral) + peak, rtol=0, atol=1e-8)

    @staticmethod
    def two_by_brute_force(design, data, prior_scale, positive):
        """Log of the integral over both amplitudes, by Gauss-Legendre on a box that holds all of the posterior."""
        nodes, weights = np.polynomial.legendre.leggauss(200)
        covariance = np.linalg.inv(design @ design.T)
        center, width = covariance @ design @ data, 12 * np.sqrt(np.diag(covariance))
        low = np.where(positive, np.maximum(center - width, 0), center - width)
        high = np.maximum(center + width, low + width)
        a, b = (lo + (hi - lo) * (nodes + 1) / 2 for lo, hi in zip(low, high, strict=True))
        area = np.prod(high - low) / 4 * weights[:, None] * weights
        gram, projection = design @ design.T, design @ data
        log_density = (
            -0.5 * (gram[0, 0] * a[:, None] ** 2 + 2 * gram[0, 1] * a[:, None] * b + gram[1, 1] * b**2)
            + projection[0] * a[:, None]
            + projection[1] * b
            - 0.5 * data @ data
            + log_prior(a, design[0], prior_scale, positive[0])[:, None]
            + log_prior(b, design[1], prior_scale, positive[1])
        )
        peak = log_density.max()
        return np.log(np.sum(area * np.exp(log_density - peak))) + peak

    @pytest.mark.parametrize("truth", [(0.5, -0.2), (0.3, 0.02), (-0.1, 0.4)])
    @pytest.mark.parametrize("positive", [(False, False), (True, False), (False, True)])
    def test_two_overlapping_amplitudes_of_which_one_is_positive_equal_the_integral(self, truth, positive):
        data = truth @ DESIGN[:2] + NOISE
        expected = self.two_by_brute_force(DESIGN[:2], data, 5.0, positive)
        np.testing.assert_allclose(
            solve(DESIGN[:2], data, positive=positive).log_likelihood, expected, rtol=0, atol=1e-8
        )

    @pytest.mark.parametrize("truth", [(0.5, 0.6), (0.02, 0.01), (-0.2, 0.3)])
    def test_two_positive_amplitudes_equal_the_integral_where_they_do_not_overlap(self, truth):
        design = DESIGN[:2] * (np.arange(40) < 18) ** np.array([[0], [1]])
        design[0, :18] = 0
        data = truth @ design + NOISE
        expected = self.two_by_brute_force(design, data, 5.0, (True, True))
        found = solve(design, data, positive=(True, True)).log_likelihood
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)

    def test_two_positive_amplitudes_that_overlap_are_exact_away_from_the_bounds(self):
        data = np.array([2.0, 1.5]) @ DESIGN[:2] + NOISE
        expected = self.two_by_brute_force(DESIGN[:2], data, 30.0, (True, True))
        found = solve(DESIGN[:2], data, 30.0, positive=(True, True)).log_likelihood
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)

    def test_two_positive_amplitudes_that_overlap_at_the_bounds_miss_their_correlation_alone(self):
        # What the approximation leaves out, in closed form: at a mean of zero the orthant of a bivariate normal holds
        # 1/4 + arcsin(rho) / 2 pi, the product of its marginals 1/4.
        design = np.zeros((2, 40))
        design[0, :2], design[1, :2] = (1.0, 0.0), (0.6, 0.8)
        solution = solve(design, np.zeros(40), positive=(True, True))
        covariance = solution.covariance.numpy()
        rho = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        missed = np.log(1 + 2 * np.arcsin(rho) / np.pi)
        expected = self.two_by_brute_force(design, np.zeros(40), 5.0, (True, True))
        assert missed < -0.3
        np.testing.assert_allclose(solution.log_likelihood + missed, expected, rtol=0, atol=1e-8)


class TestSolution:
    @pytest.mark.parametrize("unit", [1e-15, 1e-3, 1e3, 1e15])
    def test_units_of_the_components_do_not_matter(self, unit):
        data = np.array([0.5, 0.1, -0.2]) @ DESIGN + NOISE
        positive = (True, True, False)
        plain = solve(DESIGN, data, positive=positive)
        units = np.array([unit, 1.0, 1 / unit])
        scaled = solve(DESIGN * units[:, None], data, positive=positive)
        np.testing.assert_allclose(scaled.log_likelihood, plain.log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(scaled.mean * units, plain.mean, rtol=1e-10)
        np.testing.assert_allclose(scaled.covariance * np.outer(units, units), plain.covariance, rtol=1e-9)
        np.testing.assert_allclose(scaled.residual, plain.residual, rtol=1e-10)

    def test_residual_is_orthogonal_to_the_design(self):
        data = np.array([0.5, 0.1, -0.2]) @ DESIGN + NOISE
        solution = solve(DESIGN, data, prior_scale=1e9, positive=(False,) * 3)
        np.testing.assert_allclose(DESIGN @ solution.residual.numpy(), 0, atol=1e-11)
        np.testing.assert_allclose(solution.mean, np.linalg.lstsq(DESIGN.T, data)[0], rtol=1e-11)
        np.testing.assert_allclose(solution.covariance, np.linalg.inv(DESIGN @ DESIGN.T), rtol=1e-10)

    def test_batch_equals_loop_and_xla_equals_eager(self):
        designs = np.stack([DESIGN, DESIGN[::-1], DESIGN**2]).reshape(3, 1, 3, 40)
        data, positive = NOISE + DESIGN[0], (True, False, True)
        batch = solve(designs, data, positive=positive)
        compiled = tf.function(lambda d: marginalize(d, tf.constant(data), 5.0, positive), jit_compile=True)
        for fast, slow in zip(compiled(tf.constant(designs)), batch, strict=True):
            np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-12)
        for i in range(3):
            for whole, one in zip(batch, solve(designs[i, 0], data, positive=positive), strict=True):
                np.testing.assert_allclose(whole[i, 0], one, rtol=1e-12, atol=1e-14)

    def test_gradient_equals_finite_differences(self):
        data, positive = NOISE + 0.1 * DESIGN[0], (True, False, True)
        design = tf.constant(DESIGN)
        with tf.GradientTape() as tape:
            tape.watch(design)
            value = marginalize(design, tf.constant(data), 5.0, positive).log_likelihood
        gradient = tape.gradient(value, design).numpy()
        direction = RNG.normal(size=DESIGN.shape)
        up, down = (float(solve(DESIGN + s * direction, data, positive=positive).log_likelihood) for s in (1e-5, -1e-5))
        np.testing.assert_allclose(np.sum(gradient * direction), (up - down) / 2e-5, rtol=1e-8)

    @pytest.mark.parametrize("difference", [0.0, 1e-6, 1e-4, 1e-2])
    @pytest.mark.parametrize("prior_scale", [1e2, 1e4])
    def test_nearly_equal_components_are_finite_and_right_in_float32(self, difference, prior_scale):
        rng = np.random.default_rng(0)
        blob = np.exp(-(np.linspace(-3, 3, 10_000) ** 2))
        design = np.stack([blob, blob * (1 + difference * rng.normal(size=blob.size))]).astype("float32")
        data = (2 * design[0] + rng.normal(size=blob.size)).astype("float32")
        unknown = tf.constant(design)
        with tf.GradientTape() as tape:
            tape.watch(unknown)
            solution = marginalize(unknown, tf.constant(data), prior_scale, (True, True))
        assert all(np.isfinite(v).all() for v in solution)
        assert np.isfinite(tape.gradient(solution.log_likelihood, unknown)).all()
        exact = solve(design, data, prior_scale, (True, True))
        np.testing.assert_allclose(solution.log_likelihood, exact.log_likelihood, rtol=3e-7)

    def test_component_without_light_keeps_its_prior_and_moves_nothing_else(self):
        data = 0.5 * DESIGN[0] + NOISE
        alone = solve(DESIGN[:1], data)
        design = tf.constant(np.stack([DESIGN[0], np.zeros(40)]))
        with tf.GradientTape() as tape:
            tape.watch(design)
            both = marginalize(design, tf.constant(data), 5.0, (True, True))
        np.testing.assert_allclose(both.log_likelihood, alone.log_likelihood, rtol=1e-13)
        np.testing.assert_allclose(both.mean, [alone.mean[0], 0], rtol=1e-13)
        assert np.isfinite(tape.gradient(both.log_likelihood, design)).all()

    def test_far_from_positive_is_finite(self):
        design = tf.constant(DESIGN[:1])
        with tf.GradientTape() as tape:
            tape.watch(design)
            value = marginalize(design, tf.constant(-1e4 * DESIGN[0]), 1e6, (True,)).log_likelihood
        assert np.isfinite(value)
        assert np.isfinite(tape.gradient(value, design)).all()

    def test_wrong_lengths_are_refused(self):
        with pytest.raises(ParameterError, match="`positive` has 2 entries for 3 components"):
            solve(DESIGN, NOISE, positive=(True, True))
        with pytest.raises(ParameterError, match="components have 40 pixels, the data 39"):
            solve(DESIGN, NOISE[1:], positive=(True,) * 3)


class TestPositivityResidual:
    POSITIVE = (True, False, True)

    def solution(self, mean: tf.Tensor):
        return solve(DESIGN, NOISE, positive=self.POSITIVE)._replace(mean=mean)

    @pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
    def test_square_is_minus_twice_the_log_probability_and_slope_its_derivative(self, xla):
        sigma = np.sqrt(np.diag(self.solution(None).covariance))
        ratio = np.array([[-40.0, 0.3, -3.0], [0.0, -1.0, 1.0], [3.0, 0.0, 4.5]])
        mean = tf.constant(ratio * sigma)

        def residual_and_gradient(mean):
            with tf.GradientTape() as tape:
                tape.watch(mean)
                rho, slope = positivity_residual(self.solution(mean), self.POSITIVE)
            return rho, slope, tape.gradient(rho, mean)

        run = tf.function(residual_and_gradient, jit_compile=True, autograph=False) if xla else residual_and_gradient
        rho, slope, gradient = run(mean)
        expected = np.where(self.POSITIVE, -2 * norm.logcdf(ratio), 0)
        np.testing.assert_allclose(rho**2, expected, rtol=1e-9)
        np.testing.assert_allclose(slope, gradient, rtol=1e-9, atol=1e-300)

    def test_well_above_zero_it_is_zero_and_finite(self):
        mean = tf.constant([10.0, 0.0, 1e6], tf.float64)
        rho, slope = positivity_residual(self.solution(mean), self.POSITIVE)
        np.testing.assert_array_equal(rho, np.zeros(3))
        np.testing.assert_array_equal(slope, np.zeros(3))


class TestSampleAmplitudes:
    DRAWS = 6000

    def draw(self, mean, covariance, positive=(True, True)):
        mean, covariance = np.asarray(mean, float), np.asarray(covariance)
        rng = np.random.default_rng(1)
        many = np.tile(mean, (self.DRAWS, 1)), np.tile(covariance, (self.DRAWS, 1, 1))
        return sample_amplitudes(*many, positive, rng)

    @pytest.mark.parametrize("rho", [0.0, -0.9, 0.9, -0.99])
    @pytest.mark.parametrize("mean", [(6.0, 7.0), (0.5, 0.5), (-1.0, 1.5)])
    def test_moments_are_those_of_the_truncated_normal(self, mean, rho):
        covariance = np.array([[1.0, rho], [rho, 1.0]])
        draws = self.draw(mean, covariance)
        assert draws.min() >= 0
        # The same by rejection: exact, slow.
        every = np.random.default_rng(2).multivariate_normal(mean, covariance, size=1_000_000)
        exact = every[(every >= 0).all(1)]
        assert len(exact) > 20_000
        error = exact.std(0) / np.sqrt(self.DRAWS)
        np.testing.assert_allclose((draws.mean(0) - exact.mean(0)) / error, 0, atol=4)
        np.testing.assert_allclose(draws.std(0) / exact.std(0), 1, atol=0.05)
        np.testing.assert_allclose(np.corrcoef(draws.T)[0, 1], np.corrcoef(exact.T)[0, 1], atol=0.05)

    def test_unconstrained_components_are_plain_normals(self):
        covariance = np.array([[1.0, 0.5, 0.2], [0.5, 2.0, -0.3], [0.2, -0.3, 0.5]])
        draws = self.draw([-1.0, 0.0, 3.0], covariance, (False, False, False))
        np.testing.assert_allclose(draws.mean(0), [-1, 0, 3], atol=4 * np.sqrt(2 / self.DRAWS))
        np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.1)

    def test_nothing_but_the_tail_is_left(self):
        draws = self.draw([-50.0, 1.0], np.eye(2), (True, False))
        # An exponential of scale sigma^2 / |mean|, to second order.
        np.testing.assert_allclose(draws[:, 0].mean(), 1 / 50, rtol=0.06)

    def test_covariance_that_float32_has_made_singular_is_finite(self):
        covariance = np.array([[1e6, -1e6], [-1e6, 1e6]], "float32")
        draws = self.draw([3.0, 5.0], covariance)
        assert np.isfinite(draws).all()
        assert draws.min() >= 0
