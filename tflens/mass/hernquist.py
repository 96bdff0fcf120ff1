"""Hernquist profile."""

import math
from typing import ClassVar

import tensorflow as tf

from tflens.mass.circular import CENTER, CircularMass
from tflens.mass.special import angle_difference, hernquist_convergence, nfw_mass
from tflens.parameters import Parameter, log_normal


class Hernquist(CircularMass):
    """Galaxy of density sigma0 / Rs / (x (1 + x)^3), x = r / Rs (Hernquist 1990, ApJ 356, 359).

    `sigma0` is in units of the critical surface density, as in lenstronomy: the deflection at Rs is 2/3 Rs sigma0.
    Projections of Keeton 2001 (astro-ph/0102341, eq. 47-50). The effective radius is 1.8153 Rs.

    Example:
        >>> import tensorflow as tf
        >>> galaxy = {"sigma0": 1.5, "Rs": 2.0, "center_x": 0.0, "center_y": 0.0}
        >>> alpha_x, _ = Hernquist().deflection(tf.constant([[2.0]]), tf.constant([[0.0]]), **galaxy)
        >>> round(float(alpha_x[0, 0]), 5)
        2.0
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("sigma0",), "", "density scale rho_0 Rs over the critical surface density", log_normal(1.0, 0.7)),
        Parameter(("Rs",), "arcsec", "scale radius", log_normal(1.0, 0.7)),
        *CENTER,
    )

    def radial_potential(self, r2, *, sigma0, Rs):
        # The projected mass of an NFW halo is the Hernquist potential, both being ln(x/2) + C.
        return 2 * sigma0 * r2 * nfw_mass(r2 / Rs**2)

    def radial_mean_convergence(self, r2, *, sigma0, Rs):
        return 2 * sigma0 * angle_difference(r2 / Rs**2)

    def radial_convergence(self, r2, *, sigma0, Rs):
        return sigma0 * hernquist_convergence(r2 / Rs**2)

    def total_mass(self, sigma0: tf.Tensor, Rs: tf.Tensor) -> tf.Tensor:
        """Integral of the convergence over the plane, arcsec^2."""
        return 2 * math.pi * sigma0 * Rs**2
