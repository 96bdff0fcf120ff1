"""The No-U-Turn Sampler on densities whose moments are known."""

import functools

import arviz as az
import numpy as np
import pytest
import tensorflow as tf
from test_hmc import COVARIANCE, MEAN, PRECISION, fisher, gaussian, identity

from tflens.inference import hmc, nuts


@functools.cache
def run() -> hmc.Chains:
    return hmc.sample(nuts.Sampler(gaussian, 3, "float64"), MEAN, fisher, chains=4, warmup=120, draws=300, seed=3)


def test_moments_within_monte_carlo_error():
    u = run().u
    assert u.shape == (4, 300, 3)
    for i in range(3):
        ess = float(az.ess(u[..., i]))
        assert ess > 500
        assert float(az.rhat(u[..., i])) < 1.02
        assert abs(u[..., i].mean() - MEAN[i]) < 4 * np.sqrt(COVARIANCE[i, i] / ess)
        squares = (u[..., i] - MEAN[i]) ** 2
        assert abs(squares.mean() / COVARIANCE[i, i] - 1) < 4 * np.sqrt(2 / float(az.ess(squares)))
    whitened = (u.reshape(-1, 3) - MEAN) @ np.linalg.cholesky(PRECISION)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=4 * np.sqrt(2 / 500))


def test_acceptance_and_density_are_those_of_the_draws():
    chains = run()
    assert chains.acceptance.shape == chains.log_prob.shape == (4, 300)
    assert 0.7 < chains.acceptance.mean() < 0.99
    assert not chains.diverging.any()
    expected = gaussian(tf.constant(chains.u.reshape(-1, 3))).numpy().reshape(4, 300)
    np.testing.assert_allclose(chains.log_prob, expected, rtol=1e-10, atol=1e-10)


def test_every_gradient_is_counted_also_those_that_a_batch_computes_in_vain():
    calls = []

    def watched(u):
        called = tf.py_function(lambda: calls.append(1) or 0.0, [], tf.float64)
        return gaussian(u) + called

    chains = hmc.sample(nuts.Sampler(watched, 3, "float64"), MEAN, fisher, chains=3, warmup=20, draws=20)
    assert chains.gradients == 3 * len(calls)
    # No fewer than the trajectories of the draws themselves have steps.
    assert chains.gradients > chains.leapfrog_steps * 3 * 20


def test_same_seed_same_draws_another_seed_others():
    sampler = nuts.Sampler(gaussian, 3)
    first, again, other = (
        hmc.sample(sampler, MEAN.astype(np.float32), fisher, chains=2, warmup=20, draws=20, seed=seed)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.u, again.u)
    assert first.gradients == again.gradients
    assert (first.u != other.u).all()
    assert first.u.dtype == np.float32
    assert sampler.transit.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("outside", [-np.inf, np.nan])
def test_no_draw_lies_where_the_density_is_not_finite(outside):
    def walled(u):
        return tf.where(u[:, 0] < 1, -0.5 * tf.reduce_sum(u**2, -1), tf.constant(outside, u.dtype))

    chains = hmc.sample(nuts.Sampler(walled, 2, "float64"), np.zeros(2), identity, chains=3, warmup=40, draws=40)
    assert (chains.u[..., 0] < 1).all()
    assert np.isfinite(chains.log_prob).all()
    assert np.isfinite(chains.acceptance).all()
    assert chains.diverging.any()
