"""Elliptical core-Sersic profile."""

from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.light.base import PLACE, LightProfile
from tflens.light.sersic import log_radius
from tflens.parameters import Parameter, bounded_normal, log_normal
from tflens.profile import on_pixels
from tflens.sersic import b_n, log_sersic


class CoreSersic(LightProfile):
    """A Sersic profile whose inside breaks to a power law R^-gamma at the radius Rb.

    (1 + (Rb / R)^alpha)^(gamma / alpha) exp(-b_n (((R^alpha + Rb^alpha) / R_sersic^alpha)^(1 / (alpha n)) - 1)) with R
    the intermediate-axis elliptical radius: Graham et al. 2003 (AJ 125, 2951) and Trujillo et al. 2004 (AJ 127, 1917),
    with the amplitude of lenstronomy's CORE_SERSIC, that of the Sersic profile which the outside approaches. So
    R_sersic is the effective radius of that Sersic profile, not of the broken one, and the total flux has no closed
    form.

    R^2 is softened by (1e-4 arcsec)^2, as for `Sersic`.

    Args:
        alpha: sharpness of the break (large: sharp).

    Raises:
        ParameterError: `alpha` is not positive and finite.

    Example:
        >>> import tensorflow as tf
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> shape = {"R_sersic": 1.0, "n_sersic": 4.0, "Rb": 0.1, "gamma": 0.0} | round_center
        >>> x, y = tf.constant([[0.001, 0.01, 1.0]]), tf.constant([[0.0]])
        >>> [round(float(v), 2) for v in CoreSersic().brightness(x, y, **shape)[0]]
        [28.69, 28.68, 1.0]
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("R_sersic",), "arcsec", "effective radius of the outer Sersic profile", log_normal(0.7, 0.8)),
        Parameter(("n_sersic",), "", "Sersic index of the outside", bounded_normal(0.5, 8.0, 3.0, 1.5)),
        Parameter(("Rb",), "arcsec", "break radius (intermediate axis)", log_normal(0.1, 0.7)),
        Parameter(("gamma",), "", "inner slope of the brightness, R^-gamma", bounded_normal(0.0, 1.5, 0.3, 0.3)),
        *PLACE,
    )

    def __init__(self, alpha: float = 3.0) -> None:
        if not 0 < alpha < float("inf"):
            raise ParameterError(f"CoreSersic.alpha must be positive and finite, got {alpha!r}")
        self.alpha = float(alpha)

    def get_config(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    def brightness(self, x, y, *, R_sersic, n_sersic, Rb, gamma, e1, e2, center_x, center_y):
        return brightness(x, y, R_sersic, n_sersic, Rb, gamma, e1, e2, center_x, center_y, alpha=self.alpha)


def brightness(x, y, R_sersic, n_sersic, Rb, gamma, e1, e2, center_x, center_y, *, alpha: float) -> tf.Tensor:
    """Surface brightness of a core-Sersic profile whose outer Sersic profile is 1 at R_sersic."""
    R_sersic, n_sersic, Rb, gamma, e1, e2, center_x, center_y = on_pixels(
        R_sersic, n_sersic, Rb, gamma, e1, e2, center_x, center_y, like=x
    )
    # R^alpha overflows float32 long before its logarithm: log(R^alpha + Rb^alpha) = alpha log Rb + softplus(s).
    s = alpha * (log_radius(x - center_x, y - center_y, e1, e2) - tf.math.log(Rb))
    log_sum = tf.math.softplus(s)
    log_ratio = log_sum / alpha + tf.math.log(Rb) - tf.math.log(R_sersic)
    return tf.exp(gamma / alpha * (log_sum - s) + log_sersic(log_ratio, n_sersic, b_n(n_sersic)))
