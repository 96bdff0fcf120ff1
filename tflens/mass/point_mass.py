"""Point mass."""

from typing import ClassVar

import tensorflow as tf

from tflens.mass.circular import CENTER, CircularMass
from tflens.parameters import Parameter, log_normal


class PointMass(CircularMass):
    """Point mass with potential theta_E^2 log r; its convergence is zero away from the centre, and returned so there.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[2.0]]), tf.constant([[0.0]])
        >>> ax, _ = PointMass().deflection(x, y, theta_E=1.0, center_x=0.0, center_y=0.0)
        >>> float(ax[0, 0])
        0.5
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("theta_E",), "arcsec", "Einstein radius", log_normal(0.1, 1.0)),
        *CENTER,
    )

    def radial_potential(self, r2, *, theta_E):
        return theta_E**2 * tf.math.log(r2) / 2

    def radial_mean_convergence(self, r2, *, theta_E):
        return theta_E**2 / r2

    def radial_convergence(self, r2, *, theta_E):
        return tf.zeros_like(theta_E * r2)
