"""The differentiable lens: from parameters to images."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflens import light as light_profiles
from tflens import mass as mass_profiles
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.light import LightProfile
from tflens.mass import MassProfile
from tflens.profile import Profile
from tflens.psf import PSF

Values = dict[str, tf.Tensor]


@keras.saving.register_keras_serializable(package="tflens")
class LensLayer(keras.layers.Layer):
    """Ray-shoots through the mass, evaluates the light, integrates over each pixel and convolves with the PSF.

    The integral over a pixel is the mean of `supersampling`^2 midpoints; light from outside the frame does not enter,
    save for a margin of `padding` pixels that is computed and cut off again.

    Args:
        grid: the image's pixels.
        mass: mass profiles in the lens plane.
        lens_light: light profiles in the lens plane, not deflected.
        source: light profiles behind the lens.
        psf: kernel `[ky, kx]` on the grid's pixel scale, or None.
        supersampling: samples along each side of a pixel.
        padding: pixels added around the frame before the convolution.
        dtype: "float32" (default) or "float64".

    Input shape:
        A dictionary with keys "mass", "lens_light", "source": for each, a list with one dictionary per profile, from
        parameter name to tensor `[...batch]` (profiles of pixels take their `image` there too). Light profiles also
        take "amp", counts/s/arcsec^2 (flux in counts/s for profiles of pixels); all batch shapes broadcast.

    Output shape:
        `[...batch, ny, nx]`, counts/s per pixel.

    Raises:
        ParameterError: supersampling, padding, dtype or psf cannot be used; a list of the input has another length
            than its list of profiles, or its key is unknown; a profile's parameter is missing or unknown.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> from tflens.mass import SIE
        >>> from tflens.light import Sersic
        >>> layer = LensLayer(PixelGrid((20, 30), 0.1), mass=[SIE()], source=[Sersic()])
        >>> round_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> ring = layer({
        ...     "mass": [{"theta_E": tf.constant([0.6, 0.8]), **round_center}],
        ...     "source": [{"amp": 1.0, "R_sersic": 0.1, "n_sersic": 1.0, **round_center}]})
        >>> ring.shape
        TensorShape([2, 20, 30])
    """

    def __init__(
        self,
        grid: PixelGrid,
        mass: Sequence[MassProfile] = (),
        lens_light: Sequence[LightProfile] = (),
        source: Sequence[LightProfile] = (),
        psf: np.ndarray | None = None,
        supersampling: int = 1,
        padding: int = 0,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise ParameterError(f'LensLayer.dtype must be "float32" or "float64", got {dtype!r}')
        super().__init__(dtype=dtype, **kwargs)
        self.grid = grid
        self.mass, self.lens_light, self.source = tuple(mass), tuple(lens_light), tuple(source)
        self.supersampling, self.padding = supersampling, padding
        x, y = grid.coordinates(supersampling, padding)
        self._x, self._y = x.astype(dtype), y.astype(dtype)
        padded_shape = tuple(n + 2 * padding for n in grid.shape)
        self.psf = None if psf is None else PSF(psf, padded_shape, dtype)

    @property
    def light(self) -> tuple[LightProfile, ...]:
        """The light profiles in the order of `images`: lens light, then source."""
        return self.lens_light + self.source

    def __call__(self, inputs: dict[str, list[Values]], **kwargs: Any) -> tf.Tensor:
        # Here and not in `call`, where Keras would bury the message under its own.
        self._check(inputs, amplitudes=True)
        # Keras takes tensors only; people write plain numbers for what they hold fixed.
        return super().__call__(tf.nest.map_structure(self._tensor, inputs), **kwargs)

    def call(self, inputs: dict[str, list[Values]]) -> tf.Tensor:
        light = [*inputs.get("lens_light", []), *inputs.get("source", [])]
        unit = {
            group: [{k: v for k, v in values.items() if group == "mass" or k != "amp"} for values in profiles]
            for group, profiles in inputs.items()
        }
        amplitudes = [self._tensor(values["amp"])[..., None, None] for values in light]
        return sum(a * image for a, image in zip(amplitudes, self.images(unit), strict=True))

    def images(self, inputs: dict[str, list[Values]]) -> list[tf.Tensor]:
        """The image of every light profile for unit amplitude, `[...batch, ny, nx]` each, lens light first.

        A model is linear in its amplitudes; who solves for them wants its terms apart. Inputs are those of a call,
        without "amp".
        """
        self._check(inputs, amplitudes=False)
        inputs = tf.nest.map_structure(self._tensor, inputs)
        mass, lens_light, source = (inputs.get(group, []) for group in ("mass", "lens_light", "source"))
        brightness = [p.brightness(self._x, self._y, **v) for p, v in zip(self.lens_light, lens_light, strict=True)]
        return [self._observe(b) for b in brightness] + self.lens_source(mass, source)

    def lens_source(self, mass: list[Values], source: list[Values]) -> list[tf.Tensor]:
        """The lensed image of every source profile for unit amplitude, `[...batch, ny, nx]` each."""
        if not self.source:
            return []
        beta_x, beta_y = self._source_position(mass)
        return [self._observe(p.brightness(beta_x, beta_y, **v)) for p, v in zip(self.source, source, strict=True)]

    def deflection(self, mass: list[Values], x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Total deflection (alpha_x, alpha_y) of all mass profiles at given positions, arcsec."""
        alphas = [p.deflection(x, y, **v) for p, v in zip(self.mass, mass, strict=True)]
        if not alphas:
            return tf.zeros_like(x + y), tf.zeros_like(x + y)
        return tuple(sum(component[1:], component[0]) for component in zip(*alphas, strict=True))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {
            "grid": {"shape": self.grid.shape, "pixel_scale": self.grid.pixel_scale, "center": self.grid.center},
            "mass": [_profile_config(p) for p in self.mass],
            "lens_light": [_profile_config(p) for p in self.lens_light],
            "source": [_profile_config(p) for p in self.source],
            "psf": None if self.psf is None else self.psf.kernel.tolist(),
            "supersampling": self.supersampling,
            "padding": self.padding,
            "dtype": self.compute_dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LensLayer":
        config = dict(config)
        config["grid"] = PixelGrid(**config["grid"])
        config["mass"] = [_profile(mass_profiles, p) for p in config["mass"]]
        for group in ("lens_light", "source"):
            config[group] = [_profile(light_profiles, p) for p in config[group]]
        if config["psf"] is not None:
            config["psf"] = np.array(config["psf"])
        return cls(**config)

    def _source_position(self, mass: list[Values]) -> tuple[tf.Tensor, tf.Tensor]:
        alpha_x, alpha_y = self.deflection(mass, self._x, self._y)
        return self._x - alpha_x, self._y - alpha_y

    def _observe(self, brightness: tf.Tensor) -> tf.Tensor:
        s = self.supersampling
        ny, nx = (n + 2 * self.padding for n in self.grid.shape)
        batch = tf.shape(brightness)[:-2]
        if s > 1:
            brightness = tf.reduce_mean(tf.reshape(brightness, tf.concat([batch, [ny, s, nx, s]], 0)), [-3, -1])
        image = brightness * tf.constant(self.grid.pixel_area, brightness.dtype)
        if self.psf is not None:
            image = self.psf.convolve(image)
        return image[..., self.padding : ny - self.padding, self.padding : nx - self.padding]

    def _check(self, inputs: dict[str, list[Values]], amplitudes: bool) -> None:
        groups = {"mass": self.mass, "lens_light": self.lens_light, "source": self.source}
        if not isinstance(inputs, Mapping) or set(inputs) - set(groups):
            given = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ParameterError(f"LensLayer takes a dictionary with the keys {list(groups)}, got {given}")
        if amplitudes and not self.light:
            raise ParameterError("LensLayer has no light profile to draw: give it a lens_light or a source")
        for group, profiles in groups.items():
            given = inputs.get(group, [])
            if len(profiles) != len(given):
                raise ParameterError(
                    f'LensLayer: "{group}" has {len(profiles)} profile(s) {list(profiles)} but {len(given)} '
                    "dictionaries of parameters were given"
                )
            for profile, values in zip(profiles, given, strict=True):
                wanted = _inputs(profile) | ({"amp"} if amplitudes and group != "mass" else set())
                if wanted != set(values):
                    raise ParameterError(
                        f"LensLayer: {group} profile {profile} takes {sorted(wanted)}; "
                        f"missing: {sorted(wanted - set(values))}, unknown: {sorted(set(values) - wanted)}"
                    )

    def _tensor(self, value: Any) -> tf.Tensor:
        if isinstance(value, keras.KerasTensor):
            return value
        # Plain numbers straight to the layer's type: by way of float32 they would lose half their digits.
        return tf.cast(tf.convert_to_tensor(value, dtype_hint=self.compute_dtype), self.compute_dtype)


def _inputs(profile: Profile) -> set[str]:
    """A profile's parameters, and the `image` that a profile of pixels takes beside them."""
    takes_image = isinstance(profile, LightProfile) and "image" in signature(profile.brightness).parameters
    return {*profile.parameter_names, *(["image"] if takes_image else [])}


def _profile_config(profile: Profile) -> dict[str, Any]:
    return {"profile": type(profile).__name__, **profile.get_config()}


def _profile(module: Any, config: dict[str, Any]) -> Profile:
    settings = {name: value for name, value in config.items() if name != "profile"}
    known = {name: kind for name in module.__all__ if isinstance(kind := getattr(module, name), type)}
    if config["profile"] not in known:
        raise ParameterError(f"unknown profile {config['profile']!r}; known are {sorted(known)}")
    return known[config["profile"]].from_config(settings)
