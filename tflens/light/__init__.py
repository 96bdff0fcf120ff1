"""Light profiles: one file a family, pure functions of tensors under thin classes."""

from tflens.light.base import LightProfile
from tflens.light.core_sersic import CoreSersic
from tflens.light.fixed_index import DeVaucouleurs, Exponential
from tflens.light.gaussian import Gaussian, MultiGaussian
from tflens.light.interpolation import interpolate_bicubic, interpolate_bilinear, interpolate_quadratic
from tflens.light.pixelated import CenteredPixels, Pixelated
from tflens.light.regularized import RegularizedPixels
from tflens.light.sersic import Sersic
from tflens.light.shapelets import Shapelets
from tflens.light.uniform import Uniform

__all__ = [
    "CenteredPixels",
    "CoreSersic",
    "DeVaucouleurs",
    "Exponential",
    "Gaussian",
    "LightProfile",
    "MultiGaussian",
    "Pixelated",
    "RegularizedPixels",
    "Sersic",
    "Shapelets",
    "Uniform",
    "interpolate_bicubic",
    "interpolate_bilinear",
    "interpolate_quadratic",
]
