"""The differentiable loop against the same loop written out in Python, in every mode of differentiation."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.scan import scan

RNG = np.random.default_rng(0)
ITEMS, X = tf.constant(RNG.normal(size=5)), tf.constant(RNG.normal(size=3))
D_ITEMS, D_X, WEIGHTS = (tf.constant(RNG.normal(size=n)) for n in (5, 3, 3))


def written_out(items, x):
    carry, outputs, total = tf.zeros_like(x), [], tf.zeros_like(x)
    for k in range(items.shape[0]):
        outputs.append(items[k] * carry)
        carry = carry + tf.sin(items[k] * x) * (1 + 0.1 * carry)
        total = total + carry * items[k]
    return carry + 2 * total + tf.reduce_sum(tf.stack(outputs) ** 2, 0)


def looped(items, x):
    def step(carry, item, shared):
        after = carry[0] + tf.sin(item[0] * shared[0]) * (1 + 0.1 * carry[0])
        return [after], [item[0] * carry[0]], [after * item[0]]

    (carry,), (outputs,), (total,) = scan(step, [tf.zeros_like(x)], [items], [x], [tf.zeros_like(x)], outputs=1)
    return carry + 2 * total + tf.reduce_sum(outputs**2, 0)


def value(function, items, x):
    return [function(items, x)]


def reverse(function, items, x):
    with tf.GradientTape() as tape:
        tape.watch([items, x])
        y = function(items, x)
    return tape.gradient(y, [items, x], WEIGHTS)


def forward(function, items, x):
    with tf.autodiff.ForwardAccumulator([items, x], [D_ITEMS, D_X]) as accumulator:
        y = function(items, x)
    return [accumulator.jvp(y)]


def reverse_of_reverse(function, items, x):
    with tf.GradientTape() as tape:
        tape.watch([items, x])
        a, b = reverse(function, items, x)
        y = tf.reduce_sum(a**2) + tf.reduce_sum(b**2)
    return tape.gradient(y, [items, x])


def forward_of_reverse(function, items, x):
    with tf.autodiff.ForwardAccumulator([items, x], [D_ITEMS, D_X]) as accumulator:
        gradients = reverse(function, items, x)
    return [accumulator.jvp(g) for g in gradients]


def reverse_of_forward(function, items, x):
    with tf.GradientTape() as tape:
        tape.watch([items, x])
        (y,) = forward(function, items, x)
    return tape.gradient(y, [items, x], WEIGHTS)


MODES = [value, reverse, forward, reverse_of_reverse, forward_of_reverse, reverse_of_forward]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_derivatives_are_those_of_the_loop_written_out(mode, how):
    def derivative(items, x):
        return mode(looped, items, x)

    if how != "eager":
        derivative = tf.function(derivative, jit_compile=how == "xla", autograph=False)
    for got, expected in zip(derivative(ITEMS, X), mode(written_out, ITEMS, X), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("xla", [False, True])
def test_reverse_through_a_function_from_outside(xla):
    compiled = tf.function(looped, jit_compile=xla, autograph=False)
    for got, expected in zip(reverse(compiled, ITEMS, X), reverse(written_out, ITEMS, X), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)


def test_batches_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([5], tf.float64), tf.TensorSpec([None], tf.float64)])
    def gradient(items, x):
        with tf.GradientTape() as tape:
            tape.watch(items)
            y = looped(items, x)
        return tape.gradient(y, items, WEIGHTS)

    np.testing.assert_allclose(gradient(ITEMS, X), reverse(written_out, ITEMS, X)[0], rtol=1e-13)
