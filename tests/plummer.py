"""A lens of a few operations, for tests of what is done with a profile: its derivatives compile in no time."""

from tflens.mass import MassProfile
from tflens.parameters import Parameter, log_normal, normal
from tflens.profile import on_pixels


class Plummer(MassProfile):
    """Potential theta_E^2 log(r^2 + s^2) / 2 with s = 0.3 arcsec."""

    parameters = (
        Parameter(("theta_E",), "arcsec", "Einstein radius at s = 0", log_normal(0.1, 0.5)),
        Parameter(("center_x",), "arcsec", "centre", normal(0.0, 1.0)),
        Parameter(("center_y",), "arcsec", "centre", normal(0.0, 1.0)),
    )

    def deflection(self, x, y, *, theta_E, center_x, center_y):
        theta_E, center_x, center_y = on_pixels(theta_E, center_x, center_y, like=x)
        x, y = x - center_x, y - center_y
        mean_convergence = theta_E**2 / (x**2 + y**2 + 0.09)
        return mean_convergence * x, mean_convergence * y
