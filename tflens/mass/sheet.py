"""Uniform sheet of mass."""

from typing import ClassVar

import tensorflow as tf

from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, normal
from tflens.profile import on_pixels


class ConvergenceSheet(MassProfile):
    """External convergence with potential kappa (x^2 + y^2) / 2, centred on the origin.

    Images and flux ratios alone do not tell it from a rescaled lens and source (the mass-sheet degeneracy).

    Example:
        >>> import tensorflow as tf
        >>> ax, ay = ConvergenceSheet().deflection(tf.constant([[2.0]]), tf.constant([[1.0]]), kappa=0.1)
        >>> round(float(ax[0, 0]), 5), round(float(ay[0, 0]), 5)
        (0.2, 0.1)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter(("kappa",), "", "convergence", normal(0.0, 0.05)),)

    def deflection(self, x, y, *, kappa):
        (kappa,) = on_pixels(kappa, like=x)
        return kappa * (x + tf.zeros_like(y)), kappa * (y + tf.zeros_like(x))

    def potential(self, x, y, *, kappa):
        (kappa,) = on_pixels(kappa, like=x)
        return kappa * (x**2 + y**2) / 2

    def convergence(self, x, y, *, kappa):
        (kappa,) = on_pixels(kappa, like=x)
        return kappa + tf.zeros_like(x * y)
