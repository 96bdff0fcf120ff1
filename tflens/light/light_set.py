"""Light that is a sum of components of fixed form, each with an amplitude of its own."""

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import LightProfile
from tflens.parameters import Parameter, PriorFactory
from tflens.profile import on_pixels


class LightSet(LightProfile):
    """A sum of components that share their position and shape: brightness = sum_i amp_i basis_i.

    The relative amplitudes are parameters `amp_0`, `amp_1`, ... `[...batch]` with one joint prior. The profile's own
    amplitude multiplies them all, so their common scale means nothing by itself: where that amplitude is solved for,
    the prior alone holds the scale; with the amplitude 1 they are absolute. Who solves for every amplitude takes
    `basis` instead.

    Args:
        shape: the parameters that the components share.
        components: how many there are.
        prior: joint prior of the relative amplitudes.
    """

    def __init__(self, shape: tuple[Parameter, ...], components: int, prior: PriorFactory) -> None:
        self.amplitude_names = tuple(f"amp_{i}" for i in range(components))
        self.parameters = (*shape, Parameter(self.amplitude_names, "", "relative amplitudes", prior))

    def basis(self, x: tf.Tensor, y: tf.Tensor, **shape: tf.Tensor) -> list[tf.Tensor]:
        """Surface brightness per arcsec^2 of every component for amp_i = 1; takes the shared parameters only."""
        raise NotImplementedError

    def brightness(self, x, y, **parameters):
        shape, amplitudes = self._split(parameters)
        basis = self.basis(x, y, **shape)
        return tf.add_n([a * b for a, b in zip(on_pixels(*amplitudes, like=x), basis, strict=True)])

    def _split(self, parameters: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        if set(parameters) != set(self.parameter_names):
            raise ParameterError(
                f"{self!r} takes {list(self.parameter_names)}; "
                f"missing: {sorted(set(self.parameter_names) - set(parameters))}, "
                f"unknown: {sorted(set(parameters) - set(self.parameter_names))}"
            )
        shape = {name: value for name, value in parameters.items() if name not in self.amplitude_names}
        return shape, [parameters[name] for name in self.amplitude_names]
