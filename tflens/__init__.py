"""Strong gravitational lensing with differentiable physics and neural galaxies.

The names here are the usual path; everything else is one level below. Nothing heavy is
imported until a name is first used, so `import tflens` takes milliseconds and prints nothing.

Example:
    >>> import tflens as tl
    >>> "Observation" in dir(tl)
    True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tflens._version import __version__

if TYPE_CHECKING:
    from tflens.galaxies import load_galaxy_model
    from tflens.grid import PixelGrid
    from tflens.inference.pipeline import fit
    from tflens.lens_layer import LensLayer
    from tflens.model import LensModel
    from tflens.observation import Observation

_HOME = {
    "LensLayer": "tflens.lens_layer",
    "LensModel": "tflens.model",
    "Observation": "tflens.observation",
    "PixelGrid": "tflens.grid",
    "fit": "tflens.inference.pipeline",
    "load_galaxy_model": "tflens.galaxies",
}

__all__ = ["LensLayer", "LensModel", "Observation", "PixelGrid", "__version__", "fit", "load_galaxy_model"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tflens' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
