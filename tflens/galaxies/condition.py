"""What a conditional prior is told of a galaxy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tflens.errors import ParameterError


@dataclass(frozen=True)
class Condition:
    """The vector that a flow depends on, made of named properties of a galaxy.

    Args:
        names: properties that enter as they are.
        logarithmic: positive properties that enter by their logarithm.
        classes: properties that are whole numbers from 0, and how many values each has; in one-hot form.

    Raises:
        ParameterError: nothing is named.

    Example:
        >>> condition = Condition(names=("redshift",), logarithmic=("flux",), classes={"label": 3})
        >>> condition({"redshift": [0.5], "flux": [1.0], "label": [2]}).tolist()
        [[0.5, 0.0, 0.0, 0.0, 1.0]]
    """

    names: tuple[str, ...] = ()
    logarithmic: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "logarithmic", tuple(self.logarithmic))
        if not self.dim:
            raise ParameterError("Condition: names, logarithmic or classes must name a property, got none")

    @property
    def dim(self) -> int:
        """Length of the vector."""
        return len(self.names) + len(self.logarithmic) + sum(self.classes.values())

    def __call__(self, properties: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Vectors `[N, dim]` of galaxies with properties `[N]` by name.

        Raises:
            ParameterError: a property is missing, not finite, not positive where its logarithm is asked for, or no
                class.
        """
        parts = [self._finite(name, properties)[:, None] for name in self.names]
        for name in self.logarithmic:
            values = self._finite(name, properties)
            if not (values > 0).all():
                raise ParameterError(f"Condition: {name} must be positive for a logarithm, got {values.min()}")
            parts.append(np.log(values)[:, None])
        for name, count in self.classes.items():
            values = self._finite(name, properties)
            if not np.isin(values, np.arange(count)).all():
                raise ParameterError(f"Condition: {name} must be a whole number from 0 to {count - 1}")
            parts.append(np.eye(count)[values.astype(int)])
        return np.concatenate(parts, axis=1).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"names": list(self.names), "logarithmic": list(self.logarithmic), "classes": dict(self.classes)}

    @staticmethod
    def _finite(name: str, properties: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        if name not in properties:
            raise ParameterError(
                f"Condition: the galaxies have no property {name!r}; they have {', '.join(properties) or 'none'}"
            )
        values = np.asarray(properties[name], np.float64)
        if not np.isfinite(values).all():
            raise ParameterError(f"Condition: {name} must be known of every galaxy, but some values are not finite")
        return values
