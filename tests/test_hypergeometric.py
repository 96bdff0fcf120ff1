"""The power law's angular function: its stated error, in both precisions, and the derivative of its coefficients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import hyp2f1

from tflens.errors import ParameterError
from tflens.mass.hypergeometric import convergent, convergent_slope, order
from tflens.pairs import Pair, polynomial

SLOPES = (0.01, 0.2, 0.6, 1.0, 1.5, 1.8, 1.99)


def evaluate(t: float, z: np.ndarray, order: int, dtype: str) -> np.ndarray:
    top, bottom = convergent(tf.constant(t, dtype), order)
    z = Pair(tf.constant(z.real, dtype), tf.constant(z.imag, dtype))
    rest = 1 - z
    f = 1 + z * polynomial(top, rest, rest.squared) / polynomial(bottom, rest, rest.squared)
    return f.re.numpy() + 1j * f.im.numpy()


@pytest.mark.parametrize("modulus", [0.05, 0.3, 0.6, 0.9, 0.95])
class TestError:
    @pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12])
    def test_is_below_the_tolerance(self, modulus, tolerance):
        radius = modulus * np.array([[1.0], [0.7], [0.2], [0.0]])
        z = radius * np.exp(1j * np.linspace(0, 2 * np.pi, 64, endpoint=False))
        for t in SLOPES:
            exact = hyp2f1(1, t / 2, 2 - t / 2, z)
            error = np.abs(evaluate(t, z, order(modulus, tolerance), "float64") / exact - 1)
            assert error.max() < tolerance

    def test_float32_loses_no_digits_near_the_cut(self, modulus):
        z = modulus * np.exp(1j * np.linspace(-0.3, 0.3, 50))
        for t in SLOPES:
            error = np.abs(evaluate(t, z, order(modulus, 1e-7), "float32") / hyp2f1(1, t / 2, 2 - t / 2, z) - 1)
            assert error.max() < (1e-6 if modulus <= 0.6 else 1.5e-5)


@pytest.mark.parametrize("n", [2, 3, 10, 31])
class TestCoefficients:
    def test_none_is_negative(self, n):
        for t in SLOPES:
            assert (
                min(float(c) for c in [*convergent(tf.constant(t), n).top, *convergent(tf.constant(t), n).bottom]) >= 0
            )

    def test_slope_is_their_derivative(self, n):
        t = tf.constant(SLOPES[1:-1], tf.float64)
        with tf.autodiff.ForwardAccumulator(t, tf.ones_like(t)) as accumulator:
            coefficients = convergent(t, n)
        slopes = convergent_slope(t, n)
        for c, slope in zip(tf.nest.flatten(coefficients), tf.nest.flatten(slopes), strict=True):
            expected = accumulator.jvp(c)
            np.testing.assert_allclose(slope, tf.zeros_like(t) if expected is None else expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, float("nan")])
def test_numbers_outside_of_the_unit_interval_are_refused(value):
    with pytest.raises(ParameterError, match=r"max_modulus must lie in \(0, 1\)"):
        order(value, 1e-6)
    with pytest.raises(ParameterError, match=r"tolerance must lie in \(0, 1\)"):
        order(0.6, value)
