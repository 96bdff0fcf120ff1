"""External shear."""

from typing import ClassVar

import tensorflow as tf

from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, normal
from tflens.profile import on_pixels
from tflens.spread import spread


class Shear(MassProfile):
    """External shear with potential gamma1 (x^2 - y^2) / 2 + gamma2 x y, centred on the origin.

    Example:
        >>> import tensorflow as tf
        >>> ax, ay = Shear().deflection(tf.constant([[2.0]]), tf.constant([[1.0]]), gamma1=0.1, gamma2=0.0)
        >>> round(float(ax[0, 0]), 5), round(float(ay[0, 0]), 5)
        (0.2, -0.1)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("gamma1",), "", "shear along x", normal(0.0, 0.07)),
        Parameter(("gamma2",), "", "shear along the diagonal", normal(0.0, 0.07)),
    )

    def deflection(self, x, y, *, gamma1, gamma2):
        gamma1, gamma2 = (spread(gamma, x + y) for gamma in on_pixels(gamma1, gamma2, like=x))
        return gamma1 * x + gamma2 * y, gamma2 * x - gamma1 * y

    def potential(self, x, y, *, gamma1, gamma2):
        gamma1, gamma2 = on_pixels(gamma1, gamma2, like=x)
        return gamma1 * (x**2 - y**2) / 2 + gamma2 * x * y

    def convergence(self, x, y, *, gamma1, gamma2):
        gamma1, _ = on_pixels(gamma1, gamma2, like=x)
        return tf.zeros_like(gamma1 * x * y)
