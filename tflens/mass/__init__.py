"""Mass profiles: one file a family, pure functions of tensors under thin classes."""

from tflens.mass.base import MassProfile
from tflens.mass.circular import CircularMass
from tflens.mass.elliptical import EllipticalMass, EllipticalPotential
from tflens.mass.gaussian_mass import GaussianMass, MultiGaussianMass
from tflens.mass.hernquist import Hernquist
from tflens.mass.multi_plane import MultiPlane, Plane
from tflens.mass.multipole import EllipticalMultipole, Multipole
from tflens.mass.nfw import NFW, TNFW
from tflens.mass.nie import DPIE, NIE, SIS
from tflens.mass.pixelated_mass import PixelatedConvergence, PixelatedPotential
from tflens.mass.point_mass import PointMass
from tflens.mass.power_law import EPL, SIE
from tflens.mass.sersic_mass import SersicMass
from tflens.mass.shear import Shear
from tflens.mass.sheet import ConvergenceSheet
from tflens.mass.subhalos import Subhalos

__all__ = [
    "DPIE",
    "EPL",
    "NFW",
    "NIE",
    "SIE",
    "SIS",
    "TNFW",
    "CircularMass",
    "ConvergenceSheet",
    "EllipticalMass",
    "EllipticalMultipole",
    "EllipticalPotential",
    "GaussianMass",
    "Hernquist",
    "MassProfile",
    "MultiGaussianMass",
    "MultiPlane",
    "Multipole",
    "PixelatedConvergence",
    "PixelatedPotential",
    "Plane",
    "PointMass",
    "SersicMass",
    "Shear",
    "Subhalos",
]
