"""The interface of a mass profile."""

import tensorflow as tf

from tflens.profile import Profile


class MassProfile(Profile):
    """A thin lens. Subclasses give potential, deflection and convergence as functions of position.

    `x`, `y` are arcsec, parameters keyword arguments of shape `[...batch]`; results are `[...batch, ny, nx]`.
    """

    def deflection(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Deflection angle (alpha_x, alpha_y), arcsec: the gradient of the potential."""
        raise NotImplementedError

    def potential(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Lensing potential, arcsec^2."""
        raise NotImplementedError

    def convergence(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Convergence, dimensionless: half the divergence of the deflection."""
        raise NotImplementedError
