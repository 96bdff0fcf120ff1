"""Functions called past TensorFlow's dispatch: the right program for every shape, and one trace for each."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.direct import Direct


@pytest.mark.parametrize("xla", [False, True])
def test_traced_once_for_each_shape_and_type(xla):
    traced = []

    def double(x):
        traced.append((x.shape.as_list(), x.dtype))
        return 2 * x

    function = Direct(double, jit_compile=xla)
    for x in (np.ones([2, 3], np.float32), np.ones([4], np.float32), np.ones([4]), np.full([2, 3], 5, np.float32)):
        np.testing.assert_array_equal(function(tf.constant(x)), 2 * x)
    assert traced == [([2, 3], tf.float32), ([4], tf.float32), ([4], tf.float64)]


def test_sees_a_variable_change():
    weight = tf.Variable(1.0)
    function = Direct(lambda x: weight * x)
    assert float(function(tf.constant(3.0))) == 3.0
    weight.assign(2.0)
    assert float(function(tf.constant(3.0))) == 6.0


def test_differentiable_inside_a_function_and_outside():
    function = Direct(lambda x: x**3)

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x)

    x = tf.constant(2.0)
    assert float(slope(x)) == float(tf.function(slope)(x)) == 12.0
