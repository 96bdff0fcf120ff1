"""Batches in pieces, one after another or side by side, equal batches at once."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.chunks import in_chunks, in_streams


@pytest.mark.parametrize("batch", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_pieces_equal_the_whole(batch, xla):
    x = tf.constant(np.random.default_rng(batch).normal(size=(batch, 3)))
    scale = tf.range(batch, dtype=tf.float64)
    lanes: list[int] = []

    def function(arguments: list[tf.Tensor]) -> list[tf.Tensor]:
        lanes.append(arguments[0].shape[0])
        return [tf.reduce_sum(arguments[0], -1) * arguments[1], arguments[0] ** 2]

    outputs = [tf.TensorSpec([], tf.float64), tf.TensorSpec([3], tf.float64)]
    run = tf.function(lambda x, s: in_chunks(function, [x, s], outputs, size=4), jit_compile=xla, autograph=False)
    total, square = run(x, scale)
    np.testing.assert_allclose(total, x.numpy().sum(1) * scale.numpy(), rtol=1e-13)
    np.testing.assert_allclose(square, x.numpy() ** 2, rtol=1e-15)
    assert max(lanes) <= 4


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_streams_equal_the_whole(batch, cores, monkeypatch):
    monkeypatch.setattr("tflens.chunks._cores", lambda: cores)
    x = tf.constant(np.random.default_rng(batch).normal(size=(batch, 3)))
    lanes: list[int] = []

    def function(x: tf.Tensor, scale: tf.Tensor) -> list[tf.Tensor]:
        lanes.append(x.shape[0])
        return [tf.reduce_sum(x, -1) * scale, x**2]

    scale = tf.range(batch, dtype=tf.float64)
    total, square = in_streams(function, [x, scale])
    np.testing.assert_allclose(total, x.numpy().sum(1) * scale.numpy(), rtol=1e-13)
    np.testing.assert_allclose(square, x.numpy() ** 2, rtol=1e-15)
    assert len(lanes) == min(batch, cores)
    assert max(lanes) - min(lanes) <= 1


def test_cores_are_counted_on_every_platform(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert in_streams(lambda x: [2 * x], [tf.range(3)])[0].numpy().tolist() == [0, 2, 4]
