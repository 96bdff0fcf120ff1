"""The interface of a light profile."""

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.parameters import Parameter, ellipticity, normal
from tflens.profile import Profile

PLACE = (
    Parameter(("e1", "e2"), "", "ellipticity (1-q)/(1+q) (cos, sin) 2 phi", ellipticity(0.15, 0.7)),
    Parameter(("center_x",), "arcsec", "centre", normal(0.0, 0.1)),
    Parameter(("center_y",), "arcsec", "centre", normal(0.0, 0.1)),
)


class LightProfile(Profile):
    """A surface brightness. It is linear in its amplitude, which is therefore an argument apart.

    `x`, `y` are arcsec, parameters keyword arguments of shape `[...batch]`; results are `[...batch, ny, nx]`.
    """

    def brightness(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Surface brightness per arcsec^2 for unit amplitude."""
        raise NotImplementedError

    def flux(self, **parameters: tf.Tensor) -> tf.Tensor:
        """Flux over the whole sky for unit amplitude, `[...batch]` of those parameters on which it depends.

        Takes what `brightness` takes, save the coordinates.

        Raises:
            ParameterError: the profile has no total flux in closed form.
        """
        raise ParameterError(
            f"{type(self).__name__} has no total flux in closed form; sum its image over the pixels you want instead"
        )
