"""Sersic profiles of a fixed index."""

from typing import ClassVar

import tensorflow as tf

from tflens.light.sersic import Sersic, brightness, mean_within
from tflens.parameters import Parameter
from tflens.sersic import sersic_flux


class _FixedIndex(Sersic):
    n_sersic: ClassVar[float]
    parameters: ClassVar[tuple[Parameter, ...]] = tuple(p for p in Sersic.parameters if p.names != ("n_sersic",))

    def brightness(self, x, y, *, R_sersic, e1, e2, center_x, center_y):
        return brightness(x, y, R_sersic, self.n_sersic, e1, e2, center_x, center_y)

    def mean_within(self, x, y, *, R_sersic, e1, e2, center_x, center_y):
        return mean_within(x, y, R_sersic, self.n_sersic, e1, e2, center_x, center_y)

    def flux(self, *, R_sersic, **_elsewhere):
        R_sersic = tf.convert_to_tensor(R_sersic)
        return sersic_flux(R_sersic, tf.constant(self.n_sersic, R_sersic.dtype))


class Exponential(_FixedIndex):
    """Exponential disc exp(-b_1 (R / R_sersic - 1)): the Sersic profile of index 1.

    R_sersic is the effective radius, 1.678 times the disc's scale length (Freeman 1970, ApJ 160, 811).

    Example:
        >>> import tensorflow as tf
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> x, y = tf.constant([[0.5, 1.0]]), tf.constant([[0.0]])
        >>> [round(float(v), 4) for v in Exponential().brightness(x, y, R_sersic=0.5, **round_center)[0]]
        [1.0, 0.1867]
    """

    n_sersic = 1.0


class DeVaucouleurs(_FixedIndex):
    """de Vaucouleurs' law exp(-b_4 ((R / R_sersic)^(1/4) - 1)): the Sersic profile of index 4.

    de Vaucouleurs 1948 (Annales d'Astrophysique 11, 247); R_sersic is the effective radius.

    Example:
        >>> import tensorflow as tf
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> x, y = tf.constant([[0.5, 8.0]]), tf.constant([[0.0]])
        >>> [round(float(v), 5) for v in DeVaucouleurs().brightness(x, y, R_sersic=0.5, **round_center)[0]]
        [1.0, 0.00047]
    """

    n_sersic = 4.0
