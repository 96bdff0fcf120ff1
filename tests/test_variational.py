"""Variational fits of densities whose integral is known: the bound is never above it, and reaches it where it can."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from test_hmc import COVARIANCE, MEAN, PRECISION, gaussian

from tflens.inference import variational

LOG_INTEGRAL = 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]  # of `gaussian`


def bent(u):
    """y | x ~ N((x^2 - 1) / 2, 0.3^2), x ~ N(0, 1), in each of two planes; its integral is one."""
    x, y = u[:, :2], u[:, 2:]
    return -0.5 * tf.reduce_sum(x**2 + ((y - (x**2 - 1) / 2) / 0.3) ** 2, -1) - 2 * np.log(2 * np.pi * 0.3)


@functools.cache
def fit_of_bent(flow: bool) -> variational.VariationalFit:
    program = variational.Variational(bent, 4, "float64", flow)
    curvature = np.diag([1, 1, 1 / 0.09, 1 / 0.09])
    return variational.fit(program, np.array([0, 0, -0.5, -0.5]), curvature, steps=400, draws=2000)


class TestGaussian:
    """Of a Gaussian, a Gaussian surrogate misses nothing, wherever it starts."""

    @staticmethod
    def fit(program=None, dtype="float64", seed=0, **settings):
        program = program or variational.Variational(gaussian, 3, dtype)
        start = (MEAN + 0.1 * np.sqrt(np.diag(COVARIANCE))).astype(dtype)
        return variational.fit(program, start, 0.5 * PRECISION, seed=seed, **settings)

    def test_bound_is_the_integral_to_rounding(self):
        found = self.fit(draws=4000)
        assert found.elbo == pytest.approx(LOG_INTEGRAL, abs=1e-10)
        np.testing.assert_allclose(found.log_weights, LOG_INTEGRAL, atol=1e-8)
        assert variational.importance_evidence(found.log_weights) == pytest.approx(LOG_INTEGRAL, abs=1e-8)
        assert found.elbo_error < 1e-10
        assert found.pareto_k < variational.PARETO_K_GOOD
        assert found.bad_steps == 0
        whitened = (found.u - MEAN) @ np.linalg.cholesky(PRECISION)
        np.testing.assert_allclose(whitened.mean(0), 0, atol=4 / np.sqrt(4000))
        np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=4 * np.sqrt(2 / 4000))

    def test_float32(self):
        found = self.fit(dtype="float32", draws=100)
        assert (found.u.dtype, found.u.shape) == (np.float32, (100, 3))
        assert found.elbo == pytest.approx(LOG_INTEGRAL, abs=1e-5)

    def test_history_climbs_from_the_start_and_gradients_are_counted(self):
        heard = []
        found = self.fit(steps=120, draws=70, progress=lambda *told: heard.append(told))
        assert found.history.shape == (120,)
        assert found.history[:5].mean() < LOG_INTEGRAL - 0.1
        assert found.history[-5:].mean() > LOG_INTEGRAL - 0.02
        assert found.gradients == 32 * (120 + 3)
        for stage in ("warm-up", "sampling"):
            fractions = [fraction for name, fraction, _ in heard if name == stage]
            assert fractions == sorted(fractions)
            assert fractions[-1] == 1.0
        assert all(points.shape == (32, 3) for _, _, points in heard)

    def test_same_seed_same_draws_without_a_new_program(self):
        program = variational.Variational(gaussian, 3, "float64")
        first, again, other = (self.fit(program, seed=seed, steps=50, draws=40) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.u, again.u)
        np.testing.assert_array_equal(first.history, again.history)
        assert (first.u != other.u).all()
        assert program.gaussian.climb.experimental_get_tracing_count() == 1

    def test_steps_without_a_finite_gradient_are_skipped_and_counted(self):
        edge = MEAN[0] + 2 * np.sqrt(COVARIANCE[0, 0])

        def torn(u):
            return tf.where(u[:, 0] > edge, tf.constant(np.nan, u.dtype), gaussian(u))

        found = self.fit(variational.Variational(torn, 3, "float64"), steps=100, draws=200)
        assert 0 < found.bad_steps < 100
        assert np.isfinite(found.u).all()
        lost = np.isinf(found.log_weights)
        np.testing.assert_array_equal(lost, found.u[:, 0] > edge)
        assert lost.any()
        assert found.elbo == -np.inf  # what has no density at some of its draws bounds nothing


class TestBentDensity:
    def test_no_bound_is_above_the_integral(self):
        for flow in (False, True):
            found = fit_of_bent(flow)
            assert found.elbo < 4 * found.elbo_error
            assert found.elbo == pytest.approx(found.log_weights.mean(), abs=1e-12)
            assert found.elbo_error == pytest.approx(found.log_weights.std() / np.sqrt(2000), rel=1e-3)

    def test_flow_is_the_better_surrogate(self):
        gaussian_fit, flow_fit = fit_of_bent(False), fit_of_bent(True)
        assert gaussian_fit.elbo < -0.9
        assert flow_fit.elbo > -0.05
        assert np.std(flow_fit.log_weights) < 0.2 * np.std(gaussian_fit.log_weights)
        assert abs(variational.importance_evidence(flow_fit.log_weights)) < 4 * flow_fit.elbo_error

    def test_flow_finds_the_moments_which_the_gaussian_cannot(self):
        exact = np.array([1.0, 1.0, 0.59, 0.59])
        found = fit_of_bent(True).u
        np.testing.assert_allclose(found.mean(0), 0, atol=0.1)
        np.testing.assert_allclose(found.var(0), exact, rtol=0.15)
        assert (fit_of_bent(False).u.var(0) < 0.5 * exact).all()

    def test_flow_begins_where_the_gaussian_ended(self):
        history = fit_of_bent(True).history
        assert history.shape == (4 * 400,)
        before, after = history[350:400], history[400:405]
        assert abs(after.mean() - before.mean()) < 4 * before.std() * np.sqrt(1 / 5 + 1 / 50)

    def test_same_seed_same_flow(self):
        program = variational.Variational(bent, 4, "float32", flow=True)
        start = np.array([0, 0, -0.5, -0.5], np.float32)
        first, again = (variational.fit(program, start, np.eye(4), steps=20, draws=40) for _ in range(2))
        np.testing.assert_array_equal(first.u, again.u)
        assert first.u.dtype == np.float32


class TestParetoK:
    def test_tail_of_known_shape(self):
        # If x is exponential, the tail of exp(k x) is Pareto with shape k.
        x = np.random.default_rng(0).exponential(size=20_000)
        for k in (0.3, 1.0):
            assert variational.pareto_k(k * x) == pytest.approx(k, abs=0.15)

    def test_too_narrow_a_surrogate_is_told(self):
        u = np.random.default_rng(1).normal(0, 1, (4000, 10))
        # Against a density three times as wide in ten dimensions.
        log_weights = -0.5 * np.sum(u**2, -1) / 9 + 0.5 * np.sum(u**2, -1)
        assert variational.pareto_k(log_weights) > variational.PARETO_K_GOOD

    def test_weights_that_are_no_weights(self):
        assert variational.pareto_k(np.full(100, np.nan)) == np.inf
        assert variational.pareto_k(np.zeros(10)) == np.inf
