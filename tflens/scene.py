"""A lens model at one point: what other packages call a model, and what they exchange."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated
from tflens.model import LensModel
from tflens.observation import Observation
from tflens.profile import Profile


class Component(NamedTuple):
    """One profile with its values.

    Attributes:
        label: of its parameters in the model.
        profile: the profile.
        values: number of every parameter, and of the amplitude `amp` if it is light.
        image: pixels `[ny, nx]` of unit flux, of a profile of pixels.
    """

    label: str
    profile: Profile
    values: dict[str, float]
    image: np.ndarray | None = None


class Placed(NamedTuple):
    """A source's pixels on the sky.

    Attributes:
        flux: of each pixel, `[ny, nx]`, counts/s, the amplitude included.
        side: of a pixel, arcsec.
        center: middle of the image (x, y), arcsec.
    """

    flux: np.ndarray
    side: float
    center: tuple[float, float]


class Given(NamedTuple):
    """A profile with its values, of which `assemble_scene` makes a part of a scene.

    Attributes:
        profile: the profile.
        values: number of every parameter, and of the amplitude `amp` if it is light.
        image: pixels `[ny, nx]`, of a profile of pixels.
        fixed: names of the parameters that a fit should leave alone.
    """

    profile: Profile
    values: Mapping[str, float]
    image: np.ndarray | None = None
    fixed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scene:
    """A lens model with a number for each of its parameters and amplitudes: one point of its posterior.

    Args:
        model: the model.
        values: by full name, amplitudes (`light.amp`, `source.amp`, `sky.amp`) among them; those of fixed and tied
            parameters may be left out.
        images: pixels `[ny, nx]` of every source that takes them, in the order of the model's sources.

    Raises:
        ParameterError: a value is missing, unknown or not finite; there are not as many images as sources of pixels.

    Example:
        >>> from tflens.light import Sersic
        >>> from tflens.mass import SIE
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> model = LensModel([SIE()], [], Sersic(), sky=False)
        >>> scene = Scene(model, {
        ...     "lens.theta_E": 1.0, **{f"lens.{k}": v for k, v in round_center.items()},
        ...     "source.R_sersic": 0.1, "source.n_sersic": 1.0, **{f"source.{k}": v for k, v in round_center.items()},
        ...     "source.amp": 5.0})
        >>> scene.image(PixelGrid((20, 30), 0.1)).shape
        (20, 30)
    """

    model: LensModel
    values: Mapping[str, float]
    images: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        values = {name: float(value) for name, value in self.model.complete(self.values).items()}
        wanted = {f"{label}.{name}" for label, profile in self.model.labelled() for name in profile.parameter_names}
        wanted |= set(self.model.amplitude_names)
        if wanted != set(values):
            raise ParameterError(
                f"Scene: a value is needed for every parameter and amplitude of the model; missing: "
                f"{sorted(wanted - set(values))}, unknown: {sorted(set(values) - wanted)}"
            )
        wrong = [name for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise ParameterError(f"Scene: {wrong[0]} must be finite, got {values[wrong[0]]}")
        if len(self.images) != len(self.model.of_images):
            raise ParameterError(
                f"Scene: {len(self.model.of_images)} source(s) of the model take an image, got {len(self.images)}"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "images", tuple(np.asarray(image, np.float64) for image in self.images))

    @classmethod
    def of(cls, fit: Any) -> "Scene":
        """The best point of a `tflens.inference.pipeline.Fit`."""
        amplitudes = dict(zip(fit.model.amplitude_names, fit.best.amplitudes, strict=True))
        return cls.at(fit.model, fit.optimum.u[0], amplitudes)

    @classmethod
    def at(cls, model: LensModel, u: np.ndarray, amplitudes: Mapping[str, float]) -> "Scene":
        """The scene at one point of the base space, `[dim]`, with given amplitudes."""
        point = tf.constant(np.asarray(u)[None], model.dtype)
        values = {name: float(value[0]) for name, value in model.physical(point).items()}
        return cls(model, values | dict(amplitudes), tuple(image[0].numpy() for image in model.source_images(point)))

    @property
    def mass(self) -> list[Component]:
        """The mass profiles."""
        return [self._component(label, p) for label, p in zip(self.model.mass_labels, self.model.lens, strict=True)]

    @property
    def lens_light(self) -> list[Component]:
        """The light profiles of the lens, without the sky."""
        labels = [name.removesuffix(".amp") for name in self.model.amplitude_names]
        return [self._component(label, p) for label, p in zip(labels, self.model.lens_light, strict=False)]

    @property
    def sources(self) -> list[Component]:
        """The light profiles behind the lens."""
        images = dict(zip(self.model.of_images, self.images, strict=True))
        return [
            self._component(label, profile)._replace(image=images.get(number))
            for number, (label, profile) in enumerate(self.model.labelled_sources())
        ]

    @property
    def sky(self) -> float:
        """Brightness of the sky, counts/s per pixel; 0 for a model without."""
        return self.values.get("sky.amp", 0.0)

    def image(
        self, sight: Observation | PixelGrid, psf: np.ndarray | None = None, supersampling: int = 1
    ) -> np.ndarray:
        """The image, in float64, `[ny, nx]`, counts/s per pixel.

        Args:
            sight: an observation, whose grid and PSF it takes, or a grid.
            psf: kernel, for a grid; None for none.
            supersampling: samples along each side of a pixel.
        """
        grid = sight.grid if isinstance(sight, Observation) else sight
        psf = sight.psf if isinstance(sight, Observation) else psf
        groups = {"mass": self.mass, "lens_light": self.lens_light, "source": self.sources}
        profiles = {name: [each.profile for each in group] for name, group in groups.items()}
        layer = LensLayer(grid, **profiles, psf=psf, supersampling=supersampling, dtype="float64")
        inputs = {
            name: [
                each.profile.inputs({k: v for k, v in each.values.items() if k != "amp"})
                | ({} if name == "mass" else {"amp": each.values["amp"]})
                | ({} if each.image is None else {"image": tf.constant(each.image)})
                for each in group
            ]
            for name, group in groups.items()
        }
        return layer(inputs).numpy() + self.sky

    def _component(self, label: str, profile: Profile) -> Component:
        names = [*profile.parameter_names, "amp"]
        own = {name: self.values[f"{label}.{name}"] for name in names if f"{label}.{name}" in self.values}
        return Component(label, profile, own)


def assemble_scene(
    mass: Sequence[Given], lens_light: Sequence[Given], sources: Sequence[Given], sky: float | None
) -> Scene:
    """A scene from its profiles with their values, and the sky in counts/s per pixel (None for none).

    Its model is one in float64, with default priors for what is not fixed.
    """
    groups = [[each.profile for each in group] for group in (mass, lens_light, sources)]
    free = LensModel(*groups, sky=sky is not None, dtype="float64")
    labels = [*free.mass_labels, *(name.removesuffix(".amp") for name in free.amplitude_names)]
    given = [*mass, *lens_light, *sources]
    named = list(zip(labels, given, strict=False))  # the sky comes last
    priors = {
        f"{label}.{','.join(parameter.names)}": [each.values[name] for name in parameter.names]
        for label, each in named
        for parameter in each.profile.parameters
        if set(parameter.names) <= each.fixed
    }
    values = {f"{label}.{name}": value for label, each in named for name, value in each.values.items()}
    if sky is not None:
        values["sky.amp"] = sky
    images = tuple(each.image for each in sources if each.image is not None)
    return Scene(LensModel(*groups, sky=sky is not None, dtype="float64", priors=priors), values, images)


def placed(source: Component) -> Placed:
    """Where the pixels of a source are.

    Raises:
        ParameterError: it is no source of pixels.
    """
    if not isinstance(source.profile, Pixelated) or source.image is None:
        raise ParameterError(f"{source.label}: {type(source.profile).__name__} is no profile of pixels")
    values = source.values
    x, y = source.profile.middle(source.image, values["center_x"], values["center_y"], values["scale"])
    side = source.profile.pixel_scale * values["scale"]
    return Placed(source.image * values["amp"], side, (float(x), float(y)))
