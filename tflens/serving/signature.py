"""What a SavedModel promises: named functions of named tensors, each with type, shape, unit and meaning."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError

Tensors = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Argument:
    """An input or an output of a signature.

    Args:
        name: a Python identifier, for TensorFlow spells others in two ways; `identifier` makes one.
        shape: None where any length will do; the batch axis comes first.
        meaning: one line for people.
        unit: "" for none.
        dtype: as TensorFlow names it.

    Raises:
        ParameterError: the name is no identifier.
    """

    name: str
    shape: tuple[int | None, ...]
    meaning: str
    unit: str = ""
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ParameterError(f"Argument.name must be a Python identifier, got {self.name!r}")

    @property
    def spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self.shape, self.dtype, name=self.name)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"dtype": self.dtype, "shape": list(self.shape), "unit": self.unit, "meaning": self.meaning}


@dataclass(frozen=True)
class Signature:
    """A function that a SavedModel offers.

    Args:
        name: of the signature.
        meaning: a sentence or two for people.
        function: of tensors by name, to tensors by name. Where XLA compiles it, `meaning` must say so: a server may
            have none.
        inputs, outputs: all there are.
        example: an input, with which a server warms up; None if that would take too long.
    """

    name: str
    meaning: str
    function: Callable[[Tensors], Tensors] = field(repr=False)
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    example: Mapping[str, np.ndarray] | None = field(default=None, repr=False)

    def traced(self) -> Callable[..., Tensors]:
        """The `tf.function` of the tensors in the order of `inputs`, its outputs as declared.

        Raises:
            ParameterError: the function gives other outputs than those that are declared.
        """

        def call(*tensors: tf.Tensor) -> Tensors:
            given = self.function({each.name: tensor for each, tensor in zip(self.inputs, tensors, strict=True)})
            if set(given) != {each.name for each in self.outputs}:
                raise ParameterError(f"signature {self.name}: declared {self.outputs}, the function gives {set(given)}")
            return {each.name: self._as_declared(each, given[each.name]) for each in self.outputs}

        return tf.function(call, input_signature=[each.spec for each in self.inputs], autograph=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            "meaning": self.meaning,
            **{side: {each.name: each.as_dict() for each in arguments} for side, arguments in sides.items()},
        }

    def _as_declared(self, output: Argument, tensor: tf.Tensor) -> tf.Tensor:
        if tensor.dtype != output.dtype or not tensor.shape.is_compatible_with(output.shape):
            raise ParameterError(
                f"signature {self.name}: {output.name} is declared {output.dtype} {output.shape}, the function gives "
                f"{tensor.dtype.name} {tensor.shape}"
            )
        # The name is what `saved_model_cli` shows, and the shape may be more than tracing could know.
        tensor = tf.identity(tensor, name=output.name)
        tensor.set_shape(output.shape)
        return tensor


def identifier(name: str) -> str:
    """The name of a parameter as that of a tensor.

    Example:
        >>> identifier("lens.theta_E")
        'lens_theta_E'
    """
    return name.replace(".", "_")
