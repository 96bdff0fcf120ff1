"""Forward mode must not change with the number of derivatives that were traced before."""

import numpy as np
import tensorflow as tf

from tflens.forward_mode import ForwardAccumulator


def program(width: int) -> str:
    def tangent(x: tf.Tensor) -> tf.Tensor:
        with ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
            y = x[:, None] * tf.exp(x) + x[:1]
        return accumulator.jvp(y)

    compiled = tf.function(tangent, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(tf.zeros([width]))(stage="hlo")


def test_program_is_the_same_after_many_traces():
    before = program(7)
    for width in range(100, 150):  # TensorFlow's own limit is 32
        program(width)
    after = program(8)
    # Another shape, lest the first trace be found again. Names and sizes differ, the operations are the same.
    assert np.array_equal(*([line.count("(") for line in text.splitlines()] for text in (before, after)))
