"""The interface of a light profile."""

import tensorflow as tf

from tflens.profile import Profile


class LightProfile(Profile):
    """A surface brightness. It is linear in its amplitude, which is therefore an argument apart.

    `x`, `y` are arcsec, parameters keyword arguments of shape `[...batch]`; results are `[...batch, ny, nx]`.
    """

    def brightness(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Surface brightness per arcsec^2 for unit amplitude."""
        raise NotImplementedError
