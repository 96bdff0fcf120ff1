"""Gaussian convergence, and sums of them."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tflens.errors import ParameterError
from tflens.mass.circular import CENTER, CircularMass
from tflens.mass.special import entire_exponential_integral, expm1_ratio
from tflens.parameters import Parameter, log_normal, log_normals


class GaussianMass(CircularMass):
    """Convergence amp / (2 pi sigma^2) exp(-r^2 / (2 sigma^2)), as lenstronomy's GAUSSIAN.

    `amp` is the integral of the convergence over the plane (arcsec^2): a mass of Einstein radius sqrt(amp / pi). The
    potential is amp / (2 pi) Ein(r^2 / (2 sigma^2)), 0 at the centre.

    Example:
        >>> import tensorflow as tf
        >>> x, y = tf.constant([[0.0]]), tf.constant([[0.0]])
        >>> kappa = GaussianMass().convergence(x, y, amp=3.0, sigma=0.5, center_x=0.0, center_y=0.0)
        >>> round(float(kappa[0, 0]), 4)
        1.9099
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("amp",), "arcsec^2", "integral of the convergence", log_normal(3.0, 1.0)),
        Parameter(("sigma",), "arcsec", "width", log_normal(1.0, 0.8)),
        *CENTER,
    )

    def radial_potential(self, r2, *, amp, sigma):
        return amp * unit_potential(r2, sigma)

    def radial_mean_convergence(self, r2, *, amp, sigma):
        return amp * unit_mean_convergence(r2, sigma)

    def radial_convergence(self, r2, *, amp, sigma):
        return amp * unit_convergence(r2, sigma)


class MultiGaussianMass(CircularMass):
    """Concentric Gaussians of fixed widths, sum_i amp_i GaussianMass(sigma_i), as lenstronomy's MULTI_GAUSSIAN.

    The multi-Gaussian expansion (Cappellari 2002, MNRAS 333, 400) of any stellar mass: with the amplitudes of a
    `tflens.light.MultiGaussian` of the same widths, mass follows light.

    Args:
        sigmas: widths, arcsec, usually in a geometric series.

    Raises:
        ParameterError: there is no width, or one is not positive and finite.

    Example:
        >>> import tensorflow as tf
        >>> mass = MultiGaussianMass(sigmas=[0.2, 1.0])
        >>> mass.parameter_names
        ('amp_0', 'amp_1', 'center_x', 'center_y')
        >>> round(float(mass.mass_within(100.0, amp_0=tf.constant(0.5), amp_1=tf.constant(2.0))), 4)
        2.5
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        if len(sigmas) == 0 or not all(0 < sigma < math.inf for sigma in sigmas):
            raise ParameterError(
                f"MultiGaussianMass.sigmas must be one or more positive and finite widths (arcsec), got {sigmas!r}"
            )
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        self.amplitude_names = tuple(f"amp_{i}" for i in range(len(self.sigmas)))
        prior = log_normals(3.0 / len(self.sigmas), 1.0, len(self.sigmas))
        self.parameters = (Parameter(self.amplitude_names, "arcsec^2", "integrals of the convergence", prior), *CENTER)

    def get_config(self) -> dict[str, Any]:
        return {"sigmas": list(self.sigmas)}

    def radial_potential(self, r2, **amplitudes):
        return self._sum(unit_potential, r2, amplitudes)

    def radial_mean_convergence(self, r2, **amplitudes):
        return self._sum(unit_mean_convergence, r2, amplitudes)

    def radial_convergence(self, r2, **amplitudes):
        return self._sum(unit_convergence, r2, amplitudes)

    def _sum(self, unit, r2: tf.Tensor, amplitudes: dict[str, tf.Tensor]) -> tf.Tensor:
        if set(amplitudes) != set(self.amplitude_names):
            raise ParameterError(f"{self!r} takes {list(self.parameter_names)}, got the amplitudes {list(amplitudes)}")
        terms = [amplitudes[name] * unit(r2, s) for name, s in zip(self.amplitude_names, self.sigmas, strict=True)]
        return sum(terms[1:], terms[0])


def unit_potential(r2: tf.Tensor, sigma: tf.Tensor | float) -> tf.Tensor:
    """Potential of a Gaussian whose convergence integrates to 1, at a squared distance."""
    return entire_exponential_integral(r2 / (2 * sigma**2)) / (2 * math.pi)


def unit_mean_convergence(r2: tf.Tensor, sigma: tf.Tensor | float) -> tf.Tensor:
    """Its mean convergence within that distance."""
    return expm1_ratio(r2 / (2 * sigma**2)) / (2 * math.pi * sigma**2)


def unit_convergence(r2: tf.Tensor, sigma: tf.Tensor | float) -> tf.Tensor:
    """Its convergence there."""
    return tf.exp(-r2 / (2 * sigma**2)) / (2 * math.pi * sigma**2)
