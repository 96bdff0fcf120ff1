"""The interface of a radially symmetric lens: three functions of the squared distance from its centre."""

import math

import tensorflow as tf

from tflens.mass.base import MassProfile
from tflens.parameters import Parameter, normal
from tflens.profile import on_pixels

TINY = 1e-12  # squared distance (arcsec^2) that points closer to the centre are taken to have

CENTER = (
    Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.1)),
    Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.1)),
)


class CircularMass(MassProfile):
    """A radially symmetric lens. Subclasses give three functions of the squared distance `r2` from the centre.

    `r2` (arcsec^2) is never below `TINY`, so that a density cusp has finite values and gradients; the parameters but
    the centre come as keyword arguments that broadcast against it. The deflection is the mean convergence within the
    radius times the vector from the centre: it vanishes there, and no square root of `r2` is needed.
    """

    def radial_potential(self, r2: tf.Tensor, **shape: tf.Tensor) -> tf.Tensor:
        """Potential, arcsec^2."""
        raise NotImplementedError

    def radial_mean_convergence(self, r2: tf.Tensor, **shape: tf.Tensor) -> tf.Tensor:
        """Mean convergence within the circle: alpha / r = 2 d psi / d r2."""
        raise NotImplementedError

    def radial_convergence(self, r2: tf.Tensor, **shape: tf.Tensor) -> tf.Tensor:
        """Convergence on the circle: d (r2 * mean convergence) / d r2."""
        raise NotImplementedError

    def mass_within(self, radius: tf.Tensor, **shape: tf.Tensor) -> tf.Tensor:
        """Integral of the convergence over a disc about the centre, arcsec^2.

        Args:
            radius: arcsec, of a shape that broadcasts against the parameters.
            **shape: the profile's parameters but its centre.
        """
        dtype = next((v.dtype for v in (radius, *shape.values()) if tf.is_tensor(v)), tf.float32)
        r2 = away_from_zero(tf.convert_to_tensor(radius, dtype) ** 2)
        return math.pi * r2 * self.radial_mean_convergence(r2, **shape)

    def deflection(self, x, y, *, center_x, center_y, **shape):
        x, y, r2, shape = _centered(x, y, center_x, center_y, shape)
        mean = self.radial_mean_convergence(r2, **shape)
        return mean * x, mean * y

    def potential(self, x, y, *, center_x, center_y, **shape):
        _, _, r2, shape = _centered(x, y, center_x, center_y, shape)
        return self.radial_potential(r2, **shape)

    def convergence(self, x, y, *, center_x, center_y, **shape):
        _, _, r2, shape = _centered(x, y, center_x, center_y, shape)
        return self.radial_convergence(r2, **shape)


def away_from_zero(r2: tf.Tensor) -> tf.Tensor:
    """Squared distances with what is below `TINY` raised to it; their gradient vanishes there."""
    return tf.where(r2 < TINY, tf.constant(TINY, r2.dtype), r2)


def _centered(x, y, center_x, center_y, shape) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
    center_x, center_y, *values = on_pixels(center_x, center_y, *shape.values(), like=x)
    x, y = x - center_x, y - center_y
    return x, y, away_from_zero(x**2 + y**2), dict(zip(shape, values, strict=True))
