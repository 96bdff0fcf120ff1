"""Mass profiles: one file a family, pure functions of tensors under thin classes."""

from tflens.mass.base import MassProfile
from tflens.mass.power_law import EPL, SIE
from tflens.mass.shear import Shear

__all__ = ["EPL", "SIE", "MassProfile", "Shear"]
