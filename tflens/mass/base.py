"""The interface of a mass profile."""

import tensorflow as tf

from tflens.mass.derivatives import hessian
from tflens.profile import Profile


class MassProfile(Profile):
    """A thin lens. Subclasses give potential, deflection and convergence as functions of position.

    `x`, `y` are arcsec, parameters keyword arguments of shape `[...batch]`; results are `[...batch, ny, nx]`.
    What follows from the second derivatives (`jacobian`, `shear`, `magnification`) is differentiated here.
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

    def jacobian(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Entries (a_xx, a_xy, a_yy) of the symmetric lensing Jacobian A = d beta / d theta = 1 - Hessian of psi.

        By forward-mode differentiation of `deflection`; can itself be differentiated in reverse.

        Example:
            >>> import tensorflow as tf
            >>> from tflens.mass import Shear
            >>> x, y = tf.constant([[2.0]]), tf.constant([[1.0]])
            >>> [round(float(a[0, 0]), 5) for a in Shear().jacobian(x, y, gamma1=0.1, gamma2=0.05)]
            [0.9, -0.05, 1.1]
        """
        xx, xy, _, yy = hessian(lambda x, y: self.deflection(x, y, **parameters), x, y)
        return 1 - xx, -xy, 1 - yy

    def shear(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Shear gamma1 = (psi_xx - psi_yy) / 2 and gamma2 = psi_xy, dimensionless."""
        a_xx, a_xy, a_yy = self.jacobian(x, y, **parameters)
        return (a_yy - a_xx) / 2, -a_xy

    def magnification(self, x: tf.Tensor, y: tf.Tensor, **parameters: tf.Tensor) -> tf.Tensor:
        """Signed magnification 1 / det A, negative for images of odd parity; infinite on a critical curve."""
        a_xx, a_xy, a_yy = self.jacobian(x, y, **parameters)
        return 1 / (a_xx * a_yy - a_xy**2)
