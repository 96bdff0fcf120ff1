"""Complex arithmetic in pairs against numpy's complex numbers."""

import operator

import numpy as np
import pytest
import tensorflow as tf

from tflens.pairs import Pair, polynomial

A, B = 1.3 - 0.4j, -0.2 + 2.1j


def pair(z: complex) -> Pair:
    return Pair(tf.constant(z.real, tf.float64), tf.constant(z.imag, tf.float64))


def number(z: Pair) -> complex:
    return complex(z.re, z.im)


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
class TestOperations:
    def test_of_two_pairs(self, operation):
        assert number(operation(pair(A), pair(B))) == pytest.approx(operation(A, B), rel=1e-14)

    @pytest.mark.parametrize("real", [2.5, tf.constant(2.5, tf.float64)], ids=["number", "tensor"])
    def test_of_a_pair_and_a_real(self, operation, real):
        assert number(operation(pair(A), real)) == pytest.approx(operation(A, 2.5), rel=1e-14)
        if operation is not operator.truediv:
            assert number(operation(real, pair(A))) == pytest.approx(operation(2.5, A), rel=1e-14)


def test_sign_conjugate_and_modulus():
    assert number(-pair(A)) == -A
    assert number(pair(A).conj) == A.conjugate()
    assert float(pair(A).squared) == pytest.approx(abs(A) ** 2, rel=1e-14)


@pytest.mark.parametrize("degree", [0, 1, 2, 7])
def test_polynomial_equals_numpys(degree):
    coefficients = list(np.random.default_rng(degree).normal(size=degree + 1))
    found = polynomial(coefficients, pair(A), pair(A).squared)
    assert number(found) == pytest.approx(np.polyval(coefficients[::-1], A), rel=1e-13)
