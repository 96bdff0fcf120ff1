"""A compiled loop that can be differentiated any number of times, in reverse and forward mode, at bounded memory."""

from collections.abc import Callable, Sequence

import tensorflow as tf

# Private to TensorFlow, for want of a public way to give an operation a forward-mode derivative: `tf.custom_gradient`
# has none inside a `tf.function`, and that of `tf.while_loop` neither compiles under XLA nor bounds its memory.
from tensorflow.python.eager import forwardprop_util, record

from tflens.forward_mode import ForwardAccumulator

Tensors = Sequence[tf.Tensor]
Step = Callable[[Tensors, Tensors, Tensors], tuple[Tensors, Tensors, Tensors]]


def scan(
    step: Step, carry: Tensors, items: Tensors, shared: Tensors, total: Tensors, outputs: int = 0
) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
    """Runs `step` over the leading axis of `items`, as one loop whose size does not depend on that axis.

    The derivative of such a loop is a loop of the same kind that repeats each step, so nothing of a step's inside is
    stored: in reverse mode only the carry before each step is, and in forward mode nothing at all. Both modes, and any
    mixture of them, work eagerly, in `tf.function` and under XLA. From outside of a `tf.function` only the first
    reverse derivative does, as for everything that has a custom gradient in TensorFlow.

    Args:
        step: `(carry, item, shared) -> (carry, outputs, terms)`, a pure function of its arguments' tensors. What it
            closes over is constant.
        carry: what one step hands to the next; shapes must not change.
        items: tensors `[n, ...]` with n static and positive; a step sees one entry of each.
        shared: what all steps see.
        total: zeros of the shapes of `terms`.
        outputs: how many outputs a step has.

    Returns:
        The last carry, the outputs of all steps stacked to `[n, ...]`, and the sums of `terms` over the steps.

    Example:
        >>> import tensorflow as tf
        >>> def horner(carry, item, shared):
        ...     return [carry[0] * shared[0] + item[0]], [], []
        >>> coefficients, x = tf.constant([2.0, 0.0, 1.0]), tf.constant(3.0)
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     (value,), _, _ = scan(horner, [tf.constant(0.0)], [coefficients], [x], [])
        >>> float(value), float(tape.gradient(value, x))
        (19.0, 12.0)
    """
    return _scan(step, carry, items, shared, total, outputs, reverse=False)


def _scan(
    step: Step, carry: Tensors, items: Tensors, shared: Tensors, total: Tensors, n_outputs: int, reverse: bool
) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
    sizes = [len(carry), len(items), len(shared)]
    inputs = [tf.convert_to_tensor(v) for v in (*carry, *items, *shared)]
    # Without gradients, for those of the loop's own operations are not the ones to be used.
    values = _split([tf.stop_gradient(v) for v in inputs], sizes)
    last, outputs, totals = _run(step, *values, total, n_outputs, reverse)
    results = [*last, *outputs, *totals]
    result_sizes = [len(last), len(outputs), len(totals)]

    def backward(*cotangents: tf.Tensor) -> list[tf.Tensor]:
        carry, items, shared = _split(inputs, sizes)
        # The carry before every step: computed once more rather than kept by all who never ask for a gradient.
        carries = _scan(_keeping_carry(step), carry, items, shared, [], len(carry), reverse)[1] if carry else []
        d_last, d_outputs, d_totals = _split(cotangents, result_sizes)
        d_carry, d_items, d_shared = _scan(
            _backward_step(step, sizes, result_sizes),
            d_last,
            [*carries, *items, *d_outputs],
            [*shared, *d_totals],
            [tf.zeros_like(v) for v in shared],
            len(items),
            not reverse,
        )
        return [*d_carry, *d_items, *d_shared]

    def forward(*tangents: tf.Tensor) -> list[tf.Tensor]:
        carry, items, shared = _split(inputs, sizes)
        d_carry, d_items, d_shared = _split(tangents, sizes)
        both, d_outputs, d_totals = _scan(
            _forward_step(step, sizes, result_sizes),
            [*carry, *d_carry],
            [*items, *d_items],
            [*shared, *d_shared],
            total,
            n_outputs,
            reverse,
        )
        return [*both[sizes[0] :], *d_outputs, *d_totals]

    return _split(_attach(results, inputs, backward, forward), result_sizes)


def _run(
    step: Step, carry: Tensors, items: Tensors, shared: Tensors, total: Tensors, n_outputs: int, reverse: bool
) -> tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]:
    n = items[0].shape[0]

    def body(i: tf.Tensor, carry, outputs, total):
        at = n - 1 - i if reverse else i
        after, output, terms = step(carry, [tf.gather(item, at) for item in items], shared)
        return (
            i + 1,
            [tf.ensure_shape(new, old.shape) for new, old in zip(after, carry, strict=True)],
            [array.write(at, value) for array, value in zip(outputs, output, strict=True)],
            [tf.ensure_shape(old + term, old.shape) for old, term in zip(total, terms, strict=True)],
        )

    arrays = [tf.TensorArray(items[0].dtype, size=n) for _ in range(n_outputs)]
    state = (tf.constant(0), list(carry), arrays, list(total))
    _, carry, outputs, total = tf.while_loop(lambda i, *_: i < n, body, state, maximum_iterations=n)
    return carry, [array.stack() for array in outputs], total


def _keeping_carry(step: Step) -> Step:
    def keeping(carry: Tensors, item: Tensors, shared: Tensors):
        return step(carry, item, shared)[0], [tf.identity(v) for v in carry], []

    return keeping


def _backward_step(step: Step, sizes: list[int], result_sizes: list[int]) -> Step:
    def backward(cotangents: Tensors, entries: Tensors, shared: Tensors):
        carry, item, d_outputs = _split(entries, [sizes[0], sizes[1], result_sizes[1]])
        shared, d_terms = _split(shared, [sizes[2], result_sizes[2]])
        inputs = [*carry, *item, *shared]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            after, outputs, terms = step(carry, item, shared)
        gradients = tape.gradient(
            [*after, *outputs, *terms],
            inputs,
            output_gradients=[*cotangents, *d_outputs, *d_terms],
            unconnected_gradients="zero",
        )
        return _split(gradients, sizes)

    return backward


def _forward_step(step: Step, sizes: list[int], result_sizes: list[int]) -> Step:
    def forward(carries: Tensors, entries: Tensors, shared: Tensors):
        primals, tangents = [], []
        for values, size in zip((carries, entries, shared), sizes, strict=True):
            primals += values[:size]
            tangents += values[size:]
        # Called while an accumulator is at work on the whole loop, which would keep a step's own tapes from recording.
        with (
            forwardprop_util.push_forwardprop_state(),
            ForwardAccumulator(primals, tangents) as accumulator,
        ):
            results = step(*_split(primals, sizes))
        after, outputs, terms = ([_tangent(accumulator, v) for v in group] for group in results)
        return [*results[0], *after], outputs, terms

    return forward


def _tangent(accumulator: ForwardAccumulator, value: tf.Tensor) -> tf.Tensor:
    return accumulator.jvp(value, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def _attach(results: list[tf.Tensor], inputs: list[tf.Tensor], backward: Callable, forward: Callable):
    """Gives tensors their derivatives with respect to `inputs`, in every way TensorFlow may ask for them."""

    @tf.custom_gradient
    def attached(*_: tf.Tensor):
        return tuple(results), backward

    # The one on the graph is for functions differentiated from outside; recorded, it would hide forward mode.
    with record.stop_recording():
        results = list(attached(*inputs))
    record.record_operation("Scan", results, inputs, backward, forward)
    return results


def _split(values: Tensors, sizes: Sequence[int]) -> list[list[tf.Tensor]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(values[start : start + size]))
        start += size
    return parts
