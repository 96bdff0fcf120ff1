"""Compiled functions that are called many times from Python, one small call after another."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


class Direct:
    """A function of tensors, compiled for every new set of shapes and then called past TensorFlow's dispatch.

    `tf.function` inspects its arguments on every call, which costs more than the image of a lens on one core. Inside
    of another function, this is a `tf.function` like any other.

    Args:
        function: of tensors alone, of static shapes; everything else it uses is constant or a `tf.Variable`.
        jit_compile: whether XLA compiles it.

    Example:
        >>> import tensorflow as tf
        >>> double = Direct(lambda x: 2 * x)
        >>> float(double(tf.constant(3.0))), tf.function(double)(tf.constant([1.0])).numpy()
        (6.0, array([2.], dtype=float32))
    """

    def __init__(self, function: Callable[..., Any], jit_compile: bool = True) -> None:
        self._function = tf.function(function, jit_compile=jit_compile, autograph=False)
        self._programs: dict[tuple, Callable[..., Any]] = {}

    def __call__(self, *tensors: tf.Tensor) -> Any:
        if not tf.executing_eagerly():
            return self._function(*tensors)
        key = tuple((tuple(t.shape), t.dtype) for t in tensors)
        program = self._programs.get(key)
        if program is None:
            signature = [tf.TensorSpec(t.shape, t.dtype) for t in tensors]
            program = self._programs[key] = self._function.get_concrete_function(*signature)
        return program(*tensors)
