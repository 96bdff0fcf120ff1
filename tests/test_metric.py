"""The metric of Hamiltonian Monte Carlo: what makes a Gaussian a unit Gaussian, from curvatures and from draws."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.inference.metric import metric_of, whitening

DIM = 5


@pytest.fixture(scope="module")
def covariance():
    root = np.random.default_rng(0).normal(size=(DIM, DIM)) + np.diag([4.0, 2.0, 1.0, 0.5, 0.3])
    return root @ root.T


def draws(covariance, n, seed=1):
    return np.random.default_rng(seed).multivariate_normal(np.full(DIM, 3.0), covariance, n)


def metric(u, curvatures, fraction):
    return metric_of(tf.constant(u), tf.constant(np.atleast_3d(curvatures).reshape(-1, DIM, DIM)), fraction)


def test_whitening_makes_a_unit_gaussian(covariance):
    factor = whitening(np.linalg.inv(covariance)).numpy()
    np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-9)
    assert np.allclose(factor, np.tril(factor))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_where_curvature_and_covariance_agree_so_does_the_metric(covariance, fraction):
    found = metric(draws(covariance, 200_000), np.linalg.inv(covariance), fraction)
    np.testing.assert_allclose(found.whitening @ tf.transpose(found.whitening), covariance, rtol=0.03, atol=0.02)
    assert [float(found.narrowest), float(found.widest)] == pytest.approx([1, 1], rel=0.02)


def test_it_goes_from_the_curvature_to_the_covariance(covariance):
    """A posterior that is k times as wide as its curvature says: widths in between are geometric means."""
    k = 3.0
    u = draws(k**2 * covariance, 200_000)
    for fraction, scale in ((0.0, 1.0), (0.5, np.sqrt(k)), (1.0, k)):
        found = metric(u, np.linalg.inv(covariance), fraction)
        np.testing.assert_allclose(
            found.whitening @ tf.transpose(found.whitening), scale**2 * covariance, rtol=0.03, atol=0.05
        )
        assert float(found.widest) == pytest.approx(k / scale, rel=0.02)
        assert float(found.narrowest) == pytest.approx(1 / scale, rel=0.02)


def test_narrowest_is_the_stiffest_place_of_the_mean_kind(covariance):
    """Of curvatures at several places the mean of the largest eigenvalues counts, whichever directions they are of."""
    stiff = [np.linalg.inv(covariance) + 99 * np.outer(e, e) / covariance[i, i] for i, e in enumerate(np.eye(DIM)[:2])]
    found = metric(draws(covariance, 200_000), np.stack(stiff), 1.0)
    factor = found.whitening.numpy()
    expected = np.mean([np.linalg.eigvalsh(factor.T @ each @ factor)[-1] for each in stiff])
    assert float(found.narrowest) == pytest.approx(expected**-0.5, rel=1e-9)
    assert float(found.narrowest) < 0.2


def test_few_draws_are_drawn_to_the_curvature(covariance):
    """Fewer draws than dimensions have a singular covariance; the metric is positive definite all the same."""
    found = metric(draws(covariance, 3), np.linalg.inv(covariance), 1.0)
    widths = np.linalg.svd(np.linalg.solve(np.linalg.cholesky(covariance), found.whitening))[1]
    assert 0.7 < widths.min() <= widths.max() < 2
