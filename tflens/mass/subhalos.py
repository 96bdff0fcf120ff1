"""Substructure: a population of subhalos as one compiled profile."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, from_base
from tflens.profile import pack, unpack
from tflens.scan import scan


class Subhalos(MassProfile):
    """N halos of one kind in one lens plane, any of which may be absent.

    The sum over the halos is a loop over chunks of a fixed size, compiled once: neither compile time nor the size of
    the program depends on N. Its derivatives, in reverse and forward mode, are loops of the same kind that compute
    each chunk again (see `tflens.scan`), so memory does not grow with N either, but for the parameters themselves.

    Every parameter of `halo` is a parameter here, of shape `[...batch, capacity]`, or `[...batch, 1]` or a plain number
    where all halos share it. `present` has the same shape: a weight that multiplies the halo, 1 for a halo that is
    there and 0 for one that is not. An absent halo contributes exactly nothing, and has no gradient (not for
    its weight either), whatever its parameters are, infinite and NaN included.

    Args:
        halo: the profile of one halo.
        capacity: N, the number of halos, present or not.
        chunk: halos computed at once; memory is that of this many halos, and so is XLA's chance to work in parallel.

    Raises:
        ParameterError: capacity or chunk is not a positive integer, `halo` is no mass profile, or a parameter has
            another number of halos.

    Example:
        >>> import tensorflow as tf
        >>> from tflens.mass import SIE
        >>> halos = Subhalos(SIE(), capacity=3)
        >>> alpha_x, _ = halos.deflection(
        ...     tf.constant([[2.0]]), tf.constant([[0.0]]),
        ...     theta_E=tf.constant([0.1, 0.2, float("nan")]), center_x=tf.constant([0.0, 3.0, 0.0]), center_y=0.0,
        ...     e1=0.0, e2=0.0, present=tf.constant([1.0, 1.0, 0.0]))
        >>> round(float(alpha_x[0, 0]), 5)
        -0.1
    """

    # Axes that a parameter has behind its batch.
    parameter_ndims: ClassVar[int] = 1

    def __init__(self, halo: MassProfile | dict[str, Any], capacity: int, chunk: int = 8) -> None:
        for name, value in (("capacity", capacity), ("chunk", chunk)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ParameterError(f"Subhalos.{name} must be a positive integer, got {value!r}")
        self.halo = unpack(halo, MassProfile, "Subhalos.halo")
        self.capacity, self.chunk = capacity, chunk
        self._harmless = _medians(self.halo)

    def get_config(self) -> dict[str, Any]:
        return {"halo": pack(self.halo), "capacity": self.capacity, "chunk": self.chunk}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The halo's parameters, `[...batch, capacity]` each, and `present`."""
        return (*self.halo.parameter_names, "present")

    @property
    def parameters(self) -> tuple[Parameter, ...]:  # type: ignore[override]
        """One scalar declaration for every halo, `theta_E_1`, `theta_E_2`, ...; `inputs` stacks their values."""
        return tuple(
            Parameter(tuple(f"{name}_{i}" for name in p.names), p.unit, f"{p.description}, subhalo {i}", p.prior)
            for i in range(1, self.capacity + 1)
            for p in self.halo.parameters
        )

    def inputs(self, values: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """From scalars `[...batch]` by the names of `parameters` to the arguments of `deflection`, all present."""
        stacked = {
            name: tf.stack([values[f"{name}_{i}"] for i in range(1, self.capacity + 1)], axis=-1)
            for name in self.halo.parameter_names
        }
        return stacked | {"present": tf.ones([self.capacity], next(iter(stacked.values())).dtype)}

    def deflection(self, x, y, **parameters):
        return tuple(self._sum(self.halo.deflection, 2, x, y, parameters))

    def potential(self, x, y, **parameters):
        return self._sum(lambda *a, **k: (self.halo.potential(*a, **k),), 1, x, y, parameters)[0]

    def convergence(self, x, y, **parameters):
        return self._sum(lambda *a, **k: (self.halo.convergence(*a, **k),), 1, x, y, parameters)[0]

    def _sum(
        self, function: Callable, components: int, x: tf.Tensor, y: tf.Tensor, parameters: Mapping[str, Any]
    ) -> list[tf.Tensor]:
        """Sum over the halos of a function's components, `[...batch, ny, nx]` each."""
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        names = self.parameter_names
        if set(parameters) != set(names):
            raise ParameterError(f"{self!r} takes the parameters {sorted(names)}, got {sorted(parameters)}")
        *values, present = (self._padded(name, parameters[name], x.dtype) for name in names)
        is_present = present != 0
        # The input is made harmless, not the output: only so are the gradients finite, and exactly zero.
        weight = tf.where(is_present, present, tf.zeros_like(present))
        values = [
            tf.where(is_present, value, tf.constant(harmless, value.dtype))
            for value, harmless in zip(values, self._harmless, strict=True)
        ]

        def step(carry, item, shared):
            del carry
            *chunk, weight = item
            x, y = shared
            terms = function(x, y, **dict(zip(names[:-1], chunk, strict=True)))
            return [], [], [tf.reduce_sum(weight[..., None, None] * term, -3) for term in terms]

        zeros = sum(tf.zeros_like(v[..., 0])[..., None, None] for v in [weight, *values]) + tf.zeros_like(x + y)
        shared = [v if v.shape.rank <= 2 else v[..., None, :, :] for v in (x, y)]
        _, _, total = scan(step, [], [self._chunks(v) for v in [*values, weight]], shared, [zeros] * components)
        return total

    def _padded(self, name: str, value: Any, dtype: tf.DType) -> tf.Tensor:
        """`[...batch, halos]`, filled up with zeros (so absent ones) to a multiple of the chunk."""
        value = tf.cast(tf.convert_to_tensor(value, dtype_hint=dtype), dtype)
        value = value if value.shape.rank else value[None]
        if value.shape[-1] not in (1, self.capacity):
            raise ParameterError(
                f"Subhalos.{name}: the last axis is that of the halos and must have length {self.capacity} "
                f"(the capacity) or 1, got shape {tuple(value.shape)}"
            )
        value += tf.zeros([self.capacity], dtype)
        return tf.pad(value, [*[[0, 0]] * (value.shape.rank - 1), [0, -self.capacity % self._at_once]])

    def _chunks(self, value: tf.Tensor) -> tf.Tensor:
        """`[...batch, halos]` -> `[chunks, ...batch, halos at once]`."""
        rank, n = value.shape.rank, self._at_once
        value = tf.reshape(value, tf.concat([tf.shape(value)[:-1], [value.shape[-1] // n, n]], 0))
        return tf.transpose(value, [rank - 1, *range(rank - 1), rank])

    @property
    def _at_once(self) -> int:
        return min(self.chunk, self.capacity)


def _medians(profile: MassProfile) -> list[float]:
    """One value of each parameter at which the profile can be computed."""
    values: list[float] = []
    with tf.init_scope():
        for parameter in profile.parameters:
            size = len(parameter.names)
            median = from_base(parameter.prior(tf.float64), tf.zeros([] if size == 1 else [size], tf.float64))
            values += median.numpy().reshape(-1).tolist()
    return values
