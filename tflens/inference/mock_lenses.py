"""The lenses that methods are tried on: how they are observed, and the model whose prior they are drawn from."""

from tflens.galaxies import NeuralSource
from tflens.grid import PixelGrid
from tflens.inference.mocks import Survey, gaussian_psf
from tflens.light import LightProfile, Pixelated, Sersic
from tflens.mass import EPL, Shear
from tflens.model import LensModel
from tflens.parameters import bounded_normal, log_normal, normal

SOURCES = ("flow", "normal", "sersic")
"""What a mock is fitted with: the neural source with its flow for prior, the same with N(0, I), a Sersic profile."""

_PRIORS = {
    "lens.theta_E": log_normal(1.2, 0.15),
    "lens.center_x": normal(0.0, 0.05),
    "lens.center_y": normal(0.0, 0.05),
    "light.R_sersic": log_normal(0.6, 0.3),
    "light.n_sersic": bounded_normal(0.5, 8.0, 3.0, 1.0),
    "light.center_x": normal(0.0, 0.05),
    "light.center_y": normal(0.0, 0.05),
    "source.center_x": normal(0.0, 0.2),
    "source.center_y": normal(0.0, 0.2),
}
_SCALE = log_normal(1.0, 0.1)


def survey() -> Survey:
    """Images like those of Euclid's VIS: 52 x 54 pixels of 0.1 arcsec, a Gaussian PSF of FWHM 0.16 arcsec."""
    return Survey(PixelGrid((52, 54), 0.1), gaussian_psf(0.16, 0.1))


def lens_model(source: LightProfile) -> LensModel:
    """Power law with shear, one Sersic profile of lens light, and a source: the prior of mocks and of fits."""
    priors = _PRIORS | ({"source.scale": _SCALE} if isinstance(source, Pixelated) else {})
    return LensModel([EPL(), Shear()], [Sersic()], source, priors=priors)


def fitted_source(kind: str, galaxies: str = "galaxies") -> LightProfile:
    """The source that mocks are fitted with, one of `SOURCES`."""
    return Sersic() if kind == "sersic" else NeuralSource(galaxies, prior=kind)
