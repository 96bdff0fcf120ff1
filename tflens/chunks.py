"""Large batches in pieces: small enough for the processor's cache, and side by side on its cores."""

import os
from collections.abc import Callable, Sequence
from itertools import pairwise

import tensorflow as tf

_SAMPLES = 40_000  # 4 lanes of 100 x 100 positions, a core's second-level cache; 2 to 16 lanes differ by a tenth


def chunk_size(samples: int) -> int:
    """How many lanes of `samples` positions each belong in one piece.

    Example:
        >>> chunk_size(100 * 100), chunk_size(200 * 200)
        (4, 1)
    """
    return max(1, _SAMPLES // samples)


def in_chunks(
    function: Callable[[list[tf.Tensor]], list[tf.Tensor]],
    arguments: list[tf.Tensor],
    outputs: list[tf.TensorSpec],
    size: int,
) -> list[tf.Tensor]:
    """Applies a function of batches to pieces of a batch, one after another, within one compiled program.

    Args:
        function: from tensors `[batch, ...]` to tensors `[batch, ...]`, each lane by itself.
        arguments: of the function, of one batch size.
        outputs: shape (without the batch) and type of what it returns.
        size: largest number of lanes in a piece. Pieces are equal; the last one is filled up with the last lane.

    Example:
        >>> double = lambda arguments: [2 * arguments[0]]
        >>> in_chunks(double, [tf.range(5)], [tf.TensorSpec([], tf.int32)], size=2)[0].numpy()
        array([0, 2, 4, 6, 8], dtype=int32)
    """
    batch = arguments[0].shape[0]
    if batch is None or batch <= size:
        return function(arguments)
    pieces = -(-batch // size)
    size = -(-batch // pieces)
    lanes = tf.minimum(tf.range(pieces * size), batch - 1)
    shaped = [tf.reshape(tf.gather(a, lanes), [pieces, size, *a.shape[1:]]) for a in arguments]
    signature = [tf.TensorSpec([size, *spec.shape], spec.dtype) for spec in outputs]
    results = tf.map_fn(function, shaped, fn_output_signature=signature)
    return [tf.reshape(r, [pieces * size, *spec.shape])[:batch] for r, spec in zip(results, outputs, strict=True)]


def in_streams(function: Callable[..., Sequence[tf.Tensor]], arguments: list[tf.Tensor]) -> list[tf.Tensor]:
    """Applies a compiled function to equal parts of a batch, on as many cores as there are.

    XLA shares every single operation among the cores, and waits for all of them before the next; images are too small
    for that, and each core does better with lenses of its own. On a GPU, and for a batch of one, this is a plain call.

    Args:
        function: from tensors `[batch, ...]` to tensors `[batch, ...]`, each lane by itself; `jit_compile`d.
        arguments: of the function, of one batch size.

    Example:
        >>> in_streams(lambda x: [2 * x], [tf.range(5)])[0].numpy()
        array([0, 2, 4, 6, 8], dtype=int32)
    """
    batch = arguments[0].shape[0]
    streams = 1 if tf.config.list_physical_devices("GPU") else min(_cores(), batch or 1)
    if streams == 1:
        return list(function(*arguments))
    edges = [round(i * batch / streams) for i in range(streams + 1)]
    parts = [function(*(a[low:high] for a in arguments)) for low, high in pairwise(edges)]
    return [tf.concat(results, 0) for results in zip(*parts, strict=True)]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
