"""Factors of small matrices against NumPy, on both sides of the size up to which they are written out."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.small_matrices import CholeskyFactor


def positive_definite(n: int, batch: int) -> np.ndarray:
    a = np.random.default_rng(n).normal(size=(batch, n, n + 2))
    return a @ a.swapaxes(-1, -2)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_equals_numpy(n):
    a = positive_definite(n, batch=4)
    v = np.random.default_rng(0).normal(size=(4, n))
    factor = CholeskyFactor(tf.constant(a))
    np.testing.assert_allclose(factor.solve(tf.constant(v)), np.linalg.solve(a, v[..., None])[..., 0], rtol=1e-10)
    np.testing.assert_allclose(factor.inverse(), np.linalg.inv(a), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(factor.log_det(), np.linalg.slogdet(a)[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 7])
def test_gradient_of_the_log_determinant_is_the_inverse(n):
    a = tf.constant(positive_definite(n, batch=2))
    with tf.GradientTape() as tape:
        tape.watch(a)
        log_det = CholeskyFactor(a).log_det()
    gradient = tape.gradient(log_det, a).numpy()
    np.testing.assert_allclose((gradient + gradient.swapaxes(-1, -2)) / 2, np.linalg.inv(a), rtol=1e-9, atol=1e-12)


def test_nearly_singular_matrix_keeps_its_digits():
    # Two components that are the same to 1e-9: what a prior of 1e-10 keeps positive definite.
    a = np.array([[1 + 1e-10, 1 - 1e-9], [1 - 1e-9, 1 + 1e-10]])
    x = CholeskyFactor(tf.constant(a)).solve(tf.constant([1.0, 1.0], tf.float64)).numpy()
    np.testing.assert_allclose(x, 1 / (2 + 1e-10 - 1e-9), rtol=1e-6)


def test_indefinite_matrix_is_not_hidden():
    for n in (2, 7):
        a = np.eye(n)
        a[-1, -1] = -1.0
        if n == 2:
            assert not np.isfinite(CholeskyFactor(tf.constant(a)).log_det().numpy())
