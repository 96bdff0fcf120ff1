"""The differentiable lens: from parameters to images."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tflens.cusp import Cuspy, integrate_around_center
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.light import LightProfile
from tflens.mass import MassProfile
from tflens.mass.total import total
from tflens.pixel_integration import PixelIntegration
from tflens.profile import Profile, pack, unpack
from tflens.psf import PSF

Values = dict[str, tf.Tensor]


@keras.saving.register_keras_serializable(package="tflens")
class LensLayer(keras.layers.Layer):
    """Ray-shoots through the mass, evaluates the light, integrates over each pixel and convolves with the PSF.

    The integral over a pixel is a sum over `supersampling`^2 nodes, more of them where `refine` says so (see
    `PixelIntegration`; `tflens.refinement.suggest_refinement` finds the map). Light from outside the frame enters the
    convolution only from a margin of `padding` pixels, which is computed and cut off again.

    Args:
        grid: the image's pixels.
        mass: mass profiles in the lens plane.
        lens_light: light profiles in the lens plane, not deflected.
        source: light profiles behind the lens.
        psf: kernel `[ky, kx]` on the grid's pixel scale / `psf_supersampling`, or None.
        supersampling: nodes along each side of a pixel, a multiple of `psf_supersampling`.
        padding: pixels added around the frame before the convolution, or "psf" for half a kernel: all that can
            scatter into the frame. The default 0 leaves the pixels nearest to the edge too faint, where light
            reaches that far.
        quadrature: "midpoint" (default) or "gauss-legendre".
        refine: whole numbers `[ny, nx]`: how many times more nodes along each side of a pixel; None for 1.
        room: for how many pixels of each such number there is to be room, used or not, so that another map can take
            the place of `refine` (`refine_by`) and nothing is compiled again; None for a map that stays.
        exact_cusps: whether pixels around the centre of a light of the lens that has a cusp (a Sersic profile) are
            integrated by `tflens.cusp.integrate_around_center`, which needs no map `refine`, wherever the centre is.
        psf_supersampling: kernel pixels along each side of an image pixel. Above 1 the light is convolved before it
            is summed over the pixel.
        psf_method: "auto" (default), "direct", "fft" or "low-rank", see `PSF`.
        psf_tolerance: largest error of a low-rank kernel, see `PSF`.
        dtype: "float32" (default) or "float64".

    Input shape:
        A dictionary with keys "mass", "lens_light", "source": for each, a list with one dictionary per profile, from
        parameter name to tensor `[...batch]` (profiles of pixels take their `image` there too). Light profiles also
        take "amp", counts/s/arcsec^2 (flux in counts/s for profiles of pixels); all batch shapes broadcast.

    Output shape:
        `[...batch, ny, nx]`, counts/s per pixel.

    Raises:
        ParameterError: a setting of the sampling, of the PSF or of the dtype cannot be used; a list of the input has
            another length than its list of profiles, or its key is unknown; a profile's parameter is missing or
            unknown.

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
        padding: int | str = 0,
        *,
        quadrature: str = "midpoint",
        refine: np.ndarray | None = None,
        room: Mapping[int, int] | None = None,
        exact_cusps: bool = False,
        psf_supersampling: int = 1,
        psf_method: str = "auto",
        psf_tolerance: float = 1e-5,
        dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        if dtype not in ("float32", "float64"):
            raise ParameterError(f'LensLayer.dtype must be "float32" or "float64", got {dtype!r}')
        super().__init__(dtype=dtype, **kwargs)
        self.grid = grid
        self.mass, self.lens_light, self.source = tuple(mass), tuple(lens_light), tuple(source)
        self._sampling = {
            "supersampling": supersampling,
            "padding": padding,
            "quadrature": quadrature,
            "refine": None if refine is None else np.asarray(refine),
            "room": None if room is None else dict(room),
            "exact_cusps": exact_cusps,
            "psf_supersampling": psf_supersampling,
            "psf_method": psf_method,
            "psf_tolerance": psf_tolerance,
        }
        margin = self._margin(psf)
        self.psf = None
        if psf is not None:
            self.psf = PSF(
                psf,
                grid.shape,
                method=psf_method,
                tolerance=psf_tolerance,
                supersampling=psf_supersampling,
                padding=margin,
                dtype=dtype,
            )
        # The light is drawn on the cells of the PSF: pixels, or parts of them.
        cell = 1 if psf is None else psf_supersampling
        self._cells = PixelIntegration(
            PixelGrid(tuple(n * cell for n in grid.shape), grid.pixel_scale / cell, grid.center),
            self._nodes_of_a_cell(),
            quadrature,
            padding=margin * cell,
            refine=None if refine is None else self._of_cells(refine),
            room=None if room is None else {parts: n * cell**2 for parts, n in room.items()},
            dtype=dtype,
        )

    @property
    def light(self) -> tuple[LightProfile, ...]:
        """The light profiles in the order of `images`: lens light, then source."""
        return self.lens_light + self.source

    @property
    def samples(self) -> int:
        """Positions at which the light is evaluated for one image."""
        return self._cells.size

    @property
    def refine(self) -> np.ndarray | None:
        """How many times more nodes there are along each side of a pixel, `[ny, nx]`; None for 1."""
        return self._sampling["refine"]

    def refine_by(self, refine: np.ndarray) -> None:
        """Exchanges the map `refine` of a layer with `room`; nothing is compiled again.

        Raises:
            ParameterError: it is not a map of whole numbers from 1 for the grid, or there is no room for it.

        Example:
            >>> layer = LensLayer(PixelGrid((2, 3), 0.1), room={4: 1})
            >>> layer.refine_by(np.array([[1, 4, 1], [1, 1, 1]]))
            >>> layer.samples
            22
        """
        self._cells.refine_by(self._of_cells(refine))
        self._sampling["refine"] = np.asarray(refine)

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
        # What follows is linear: one convolution of the sum, not a sum of convolutions.
        return self._observe(sum(a * mean for a, mean in zip(amplitudes, self._means(unit), strict=True)))

    def images(self, inputs: dict[str, list[Values]]) -> list[tf.Tensor]:
        """The image of every light profile for unit amplitude, `[...batch, ny, nx]` each, lens light first.

        A model is linear in its amplitudes; who solves for them wants its terms apart. Inputs are those of a call,
        without "amp".
        """
        self._check(inputs, amplitudes=False)
        return [self._observe(mean) for mean in self._means(tf.nest.map_structure(self._tensor, inputs))]

    def lens_source(self, mass: list[Values], source: list[Values]) -> list[tf.Tensor]:
        """The lensed image of every source profile for unit amplitude, `[...batch, ny, nx]` each."""
        return [self._observe(mean) for mean in self._source_means(mass, source)]

    def deflection(self, mass: list[Values], x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Total deflection (alpha_x, alpha_y) of all mass profiles at given positions, arcsec."""
        return total(self.mass, mass).deflection(x, y)

    def replace(self, **changes: Any) -> "LensLayer":
        """The same layer with other settings, named as in the constructor.

        Example:
            >>> LensLayer(PixelGrid((20, 30), 0.1)).replace(supersampling=3).get_config()["supersampling"]
            3
        """
        parts = {"grid": self.grid, "mass": self.mass, "lens_light": self.lens_light, "source": self.source}
        kernel = None if self.psf is None else self.psf.kernel
        settings = parts | self._sampling | {"psf": kernel, "dtype": self.compute_dtype}
        return LensLayer(**(settings | changes))

    def get_config(self) -> dict[str, Any]:
        refine = self._sampling["refine"]
        return {
            **super().get_config(),
            "grid": {"shape": self.grid.shape, "pixel_scale": self.grid.pixel_scale, "center": self.grid.center},
            "mass": [pack(p) for p in self.mass],
            "lens_light": [pack(p) for p in self.lens_light],
            "source": [pack(p) for p in self.source],
            "psf": None if self.psf is None else self.psf.kernel.tolist(),
            **self._sampling,
            "refine": None if refine is None else refine.tolist(),
            "dtype": self.compute_dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LensLayer":
        config = dict(config)
        config["grid"] = PixelGrid(**config["grid"])
        for group, kind in (("mass", MassProfile), ("lens_light", LightProfile), ("source", LightProfile)):
            config[group] = [unpack(profile, kind, f"LensLayer.{group}") for profile in config[group]]
        for name in ("psf", "refine"):
            if config[name] is not None:
                config[name] = np.array(config[name])
        if config["room"] is not None:  # JSON has no keys but text
            config["room"] = {int(parts): count for parts, count in config["room"].items()}
        return cls(**config)

    def _means(self, inputs: dict[str, list[Values]]) -> list[tf.Tensor]:
        """For every light profile, lens light first: its mean brightness over each cell, padding included."""
        mass, lens_light, source = (inputs.get(group, []) for group in ("mass", "lens_light", "source"))
        seen = [self._lens_light_mean(p, v) for p, v in zip(self.lens_light, lens_light, strict=True)]
        return seen + self._source_means(mass, source)

    def _lens_light_mean(self, profile: LightProfile, values: Values) -> tf.Tensor:
        mean = self._cells.mean(_evaluate(profile, values, self._cells.positions))
        if not (self._sampling["exact_cusps"] and isinstance(profile, Cuspy)):
            return mean
        return integrate_around_center(mean, profile, values, self._cells.grid, self._cells.padding)

    def _source_means(self, mass: list[Values], source: list[Values]) -> list[tf.Tensor]:
        if not self.source:
            return []
        behind = []
        for x, y in self._cells.positions:
            alpha_x, alpha_y = self.deflection(mass, x, y)
            behind.append((x - alpha_x, y - alpha_y))
        return [self._cells.mean(_evaluate(p, v, behind)) for p, v in zip(self.source, source, strict=True)]

    def _observe(self, mean: tf.Tensor) -> tf.Tensor:
        image = mean * tf.constant(self.grid.pixel_area, mean.dtype)
        return image if self.psf is None else self.psf.convolve(image)

    def _margin(self, psf: np.ndarray | None) -> int:
        """Padding in whole pixels."""
        padding, cell = self._sampling["padding"], self._sampling["psf_supersampling"]
        if isinstance(padding, str) and padding != "psf":
            raise ParameterError(f'LensLayer.padding must be a number of pixels or "psf", got {padding!r}')
        self.grid.coordinates(cell, 0 if padding == "psf" else padding)  # refuses what is not whole
        if psf is None:
            if cell != 1:
                raise ParameterError(f"LensLayer.psf_supersampling is {cell}, but there is no psf")
            return 0  # nothing brings light in
        half = max(np.shape(psf)) // 2
        return -(-half // cell) if padding == "psf" else padding

    def _of_cells(self, refine: np.ndarray) -> np.ndarray:
        """A map of the pixels as one of the cells."""
        cell = self._sampling["psf_supersampling"]
        return np.kron(refine, np.ones((cell, cell), int))

    def _nodes_of_a_cell(self) -> int:
        samples, cell = self._sampling["supersampling"], self._sampling["psf_supersampling"]
        self.grid.coordinates(samples)  # refuses what is not whole
        if samples % cell:
            raise ParameterError(
                f"LensLayer.supersampling must be a multiple of psf_supersampling ({cell}), got {samples}"
            )
        return samples // cell

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


def _evaluate(profile: LightProfile, values: Values, positions: Sequence[tuple]) -> list[tf.Tensor]:
    return [profile.brightness(x, y, **values) for x, y in positions]
