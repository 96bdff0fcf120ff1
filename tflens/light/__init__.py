"""Light profiles: one file a family, pure functions of tensors under thin classes."""

from tflens.light.base import LightProfile
from tflens.light.pixelated import Pixelated, interpolate_bilinear
from tflens.light.sersic import Sersic

__all__ = ["LightProfile", "Pixelated", "Sersic", "interpolate_bilinear"]
