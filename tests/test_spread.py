"""Spreading a parameter over the pixels: what broadcasting does, and the sum that is its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.forward_mode import ForwardAccumulator
from tflens.spread import spread


@pytest.mark.parametrize(("lanes", "mesh"), [([], [4, 7]), ([3], [4, 7]), ([3], [3, 4, 7]), ([2, 1], [3, 4, 7])])
@pytest.mark.parametrize("xla", [False, True])
def test_is_broadcasting_with_its_gradient(lanes, mesh, xla):
    rng = np.random.default_rng(0)
    value, like = tf.constant(rng.normal(size=[*lanes, 1, 1])), tf.constant(rng.normal(size=mesh))

    def gradients(product):
        with tf.GradientTape() as outer:
            outer.watch(value)
            with tf.GradientTape() as tape:
                tape.watch(value)
                image = product(value)
                loss = tf.reduce_sum(tf.sin(image))
            first = tape.gradient(loss, value)
            norm = tf.reduce_sum(first**2)
        return image, first, outer.gradient(norm, value)

    fast = tf.function(lambda: gradients(lambda v: spread(v, like) * like), jit_compile=xla)()
    plain = gradients(lambda v: v * like)
    for ours, theirs in zip(fast, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_forward_mode_passes_through():
    value, like = tf.constant([[2.0]]), tf.ones([3, 5])
    with ForwardAccumulator(value, tf.constant([[0.5]])) as accumulator:
        image = spread(value, like)
    np.testing.assert_array_equal(accumulator.jvp(image), np.full([3, 5], 0.5))
