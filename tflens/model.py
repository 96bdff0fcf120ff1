"""The lens model: components and priors, from base-space values u ~ N(0, I) to the log posterior of an observation."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tflens.chunks import chunk_size, in_chunks, in_streams
from tflens.density import Density
from tflens.direct import Direct
from tflens.errors import ParameterError
from tflens.forward_mode import ForwardAccumulator
from tflens.lens_layer import LensLayer, Values
from tflens.light import LightProfile, Pixelated, Sersic
from tflens.linear import SMALLEST_PRIOR_SCALE, LinearSolution, marginalize
from tflens.mass import EPL, MassProfile, Shear
from tflens.mass.total import Total, total
from tflens.observation import Observation
from tflens.parameters import Parameter, PriorFactory, bounded_normal, from_base, log_normal, to_base
from tflens.profile import Profile
from tflens.psf_error import PSFError
from tflens.refinement import rendering_error, suggest_refinement
from tflens.seen import Beside, Forgiven, Seen
from tflens.whitening import deflate, taps_for, whiten, whitening_taps

Frame = tuple[slice, slice]

_DIFFERENCE = 0.05  # of an image, relative to its brightest pixel


class LatentSource(Protocol):
    """A light profile of pixels whose image comes from a network: what `LensModel` asks of a neural source."""

    latent_dim: int

    def image(self, u: tf.Tensor) -> tf.Tensor:
        """Pixels `[...batch, ny, nx]` of unit flux for base-space latents `[...batch, latent_dim]`."""


@dataclass(frozen=True)
class Entry:
    """One parameter of a model: where it lives in u and how it gets there.

    Attributes:
        label: of the component that it belongs to.
        parameter: its declaration.
        make_prior: makes the parameter's distribution; anew for a program that is being traced, which then has its
            numbers for constants.
        start: the entry's first place in u.
    """

    label: str
    parameter: Parameter
    make_prior: Callable[[], Any]
    start: int

    @cached_property
    def prior(self) -> Any:
        """The parameter's distribution."""
        with tf.init_scope():
            return self.make_prior()

    @property
    def names(self) -> tuple[str, ...]:
        """Full names, `label.name`."""
        return tuple(f"{self.label}.{name}" for name in self.parameter.names)

    @property
    def indices(self) -> slice:
        """The entry's place in u."""
        return slice(self.start, self.start + len(self.parameter.names))


class LensModel:
    """Mass, lens light and source of one strong lens, with a prior on every parameter.

    The model works in the base space u ~ N(0, I): first the declared parameters of every component in order, then
    the latents of the source, if it has any. Amplitudes of light are no part of u: they are marginalised in closed
    form (see `tflens.linear`).

    Args:
        lens: mass profiles; by default an elliptical power law with external shear.
        lens_light: light profiles of the lens; by default two Sersic profiles.
        source: light profile behind it, e.g. `tflens.galaxies.NeuralSource()` or `tflens.light.Sersic()`; several, in
            a list, for several sources in one plane; None for a galaxy that lenses nothing.
        priors: replacements of default priors, by name; joint parameters are named together (`"lens.e1,e2"`). A TFP
            distribution or a factory of one is a prior; a number (several, for joint parameters) fixes the parameter;
            the name of another parameter ties it to that one.
        sky: whether a constant sky of either sign is part of the light.
        psf_error: `tflens.psf_error.PSFError()` for a PSF whose width and ellipticity are free within its priors; None
            takes the PSF for known.
        dtype: "float32" (default) or "float64".

    Raises:
        ParameterError: a prior is given for a name that the model does not have, or is none; a parameter is tied to
            one that does not exist or is not free itself, or fixed at what is no finite number; a light of the lens
            takes an image.

    Example:
        >>> from tflens.light import Sersic
        >>> model = LensModel(lens_light=[Sersic()], source=Sersic())
        >>> model.names[:3], model.dim
        (('lens.theta_E', 'lens.gamma', 'lens.e1'), 20)
        >>> same_place = {f"light2.center_{axis}": f"light1.center_{axis}" for axis in "xy"}
        >>> LensModel(source=Sersic(), priors={**same_place, "light2.n_sersic": 1.0}).dim
        23
    """

    def __init__(
        self,
        lens: Sequence[MassProfile] | None = None,
        lens_light: Sequence[LightProfile] | None = None,
        source: LightProfile | Sequence[LightProfile] | None = None,
        *,
        priors: Mapping[str, Any] | None = None,
        sky: bool = True,
        psf_error: PSFError | None = None,
        dtype: str = "float32",
    ) -> None:
        self.lens = tuple(lens) if lens is not None else (EPL(), Shear())
        self.lens_light = tuple(lens_light) if lens_light is not None else (Sersic(), Sersic())
        self.sources = (source,) if isinstance(source, LightProfile) else tuple(source or ())
        for light in self.lens_light:
            if isinstance(light, Pixelated):
                raise ParameterError(
                    f"lens_light: {type(light).__name__} takes an image, which a light of the lens has not; it can "
                    "only be a source"
                )
        self.sky = sky
        self.psf_error = psf_error
        self.dtype = dtype
        self.priors = dict(priors or {})
        self.fixed: dict[str, float] = {}
        self.tied: dict[str, str] = {}
        self.entries = self._entries(dict(self.priors))
        self.of_images = tuple(i for i, source in enumerate(self.sources) if isinstance(source, Pixelated))
        self.latent_dims = tuple(getattr(source, "latent_dim", 0) for source in self.sources)
        self.physical_dim = sum(len(entry.names) for entry in self.entries)

    @property
    def latent_dim(self) -> int:
        """Number of latents, of all sources together."""
        return sum(self.latent_dims)

    @property
    def dim(self) -> int:
        """Length of u."""
        return self.physical_dim + self.latent_dim

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the free physical parameters, in the order of u; `fixed` and `tied` have the others."""
        return tuple(name for entry in self.entries for name in entry.names)

    @property
    def units(self) -> tuple[str, ...]:
        """Units of `names`."""
        return tuple(entry.parameter.unit for entry in self.entries for _ in entry.names)

    @property
    def amplitude_names(self) -> tuple[str, ...]:
        """Names of the linear amplitudes, in the order of `LensTarget.design`."""
        labels = [label for label, _ in self._lens_light_labels() + self.labelled_sources()]
        return tuple(f"{label}.amp" for label in [*labels, *(["sky"] if self.sky else [])])

    @property
    def source_amplitudes(self) -> tuple[int, ...]:
        """Places of the sources' amplitudes in `amplitude_names`."""
        first = len(self.lens_light)
        return tuple(range(first, first + len(self.sources)))

    @property
    def positive(self) -> tuple[bool, ...]:
        """Which amplitudes cannot be negative: all but the sky's."""
        return tuple(name != "sky.amp" for name in self.amplitude_names)

    def physical(self, u: tf.Tensor) -> dict[str, tf.Tensor]:
        """Physical parameters `[...batch]` by full name, those that are fixed or tied among them, from u
        `[...batch, dim]` (latents are ignored)."""
        values: dict[str, tf.Tensor] = {}
        for entry in self.entries:
            part = u[..., entry.indices]
            prior = entry.prior if tf.executing_eagerly() else entry.make_prior()
            if len(entry.names) == 1:
                values[entry.names[0]] = from_base(prior, part[..., 0])
            else:
                values |= dict(zip(entry.names, tf.unstack(from_base(prior, part), axis=-1), strict=True))
        fixed = {name: tf.fill(tf.shape(u)[:-1], tf.constant(value, u.dtype)) for name, value in self.fixed.items()}
        return self.complete(values | fixed)

    def complete(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by full name, with those of fixed and tied parameters added where they are missing."""
        values = {**self.fixed, **values}
        return {**{name: values[other] for name, other in self.tied.items() if other in values}, **values}

    def base(self, values: Mapping[str, Any]) -> np.ndarray:
        """u `[dim]` at given physical values; parameters (and latents) that are not given stay at 0, their median.

        Raises:
            ParameterError: a name that is unknown, fixed or tied, or only a part of a joint parameter.
        """
        u = np.zeros(self.dim)
        unknown = set(values) - set(self.names)
        if unknown:
            raise ParameterError(
                f"unknown parameter(s) {sorted(unknown)}; the model's free ones are {list(self.names)}"
            )
        for entry in self.entries:
            given = [name for name in entry.names if name in values]
            if not given:
                continue
            if len(given) != len(entry.names):
                raise ParameterError(f"{entry.names} share a prior: give all of them, not only {given}")
            value = tf.constant([float(values[name]) for name in entry.names], self.dtype)
            u[entry.indices] = to_base(entry.prior, value if len(given) > 1 else value[0]).numpy()
        return u

    def latents(self, u: tf.Tensor) -> tf.Tensor:
        """The part of u that the sources' networks take, `[...batch, latent_dim]`."""
        return u[..., self.physical_dim :]

    def latents_of(self, source: int, u: tf.Tensor) -> tf.Tensor:
        """The part of u that the network of one source takes."""
        first = self.physical_dim + sum(self.latent_dims[:source])
        return u[..., first : first + self.latent_dims[source]]

    def source_images(self, u: tf.Tensor) -> list[tf.Tensor]:
        """Pixels `[...batch, ny, nx]` of those sources that have any, from u `[...batch, dim]`."""
        return [self.sources[source].image(self.latents_of(source, u)) for source in self.of_images]

    def total_mass(self, values: Mapping[str, tf.Tensor | float]) -> Total:
        """Deflection, potential and convergence of the whole lens as functions of position.

        What `tflens.critical`, `tflens.images` and `tflens.time_delay` take. Values by full name, `[...batch]`, as
        `physical` gives them; those of the light are ignored.

        Example:
            >>> lens = LensModel(source=Sersic()).total_mass({
            ...     "lens.theta_E": 1.0, "lens.gamma": 2.0, "lens.e1": 0.0, "lens.e2": 0.0, "lens.center_x": 0.0,
            ...     "lens.center_y": 0.0, "shear.gamma1": 0.0, "shear.gamma2": 0.0})
            >>> round(float(lens.potential(tf.constant([[3.0]]), tf.constant([[4.0]]))[0, 0]), 4)
            5.0
        """
        return total(self.lens, _inputs(self._lens_labels(), self.complete(values)))

    def layer_inputs(
        self, values: Mapping[str, tf.Tensor], images: Sequence[tf.Tensor] = ()
    ) -> dict[str, list[Values]]:
        """Arranges physical parameters, and the images of those sources that take one, as `LensLayer` takes them."""
        source = _inputs(self.labelled_sources(), values)
        for number, image in zip(self.of_images, images, strict=True):
            source[number]["image"] = image
        mass, lens_light = (_inputs(labels, values) for labels in (self._lens_labels(), self._lens_light_labels()))
        return {"mass": mass, "lens_light": lens_light, "source": source}

    @property
    def mass_labels(self) -> tuple[str, ...]:
        """Labels of the mass profiles' parameters."""
        return tuple(label for label, _ in self._lens_labels())

    def labelled(self) -> list[tuple[str, Profile]]:
        """All components with the labels of their parameters, in the order of u."""
        return [*self._lens_labels(), *self._lens_light_labels(), *self.labelled_sources(), *self._psf_labels()]

    def _lens_labels(self) -> list[tuple[str, MassProfile]]:
        return _labelled([("shear" if isinstance(p, Shear) else "lens", p) for p in self.lens])

    def _lens_light_labels(self) -> list[tuple[str, LightProfile]]:
        return _labelled([("light", p) for p in self.lens_light])

    def observed(self, images: tf.Tensor, values: Mapping[str, Any]) -> tf.Tensor:
        """Images `[...batch, components, ny, nx]` of the layer's PSF as they are with that PSF's error."""
        if self.psf_error is None:
            return images
        (found,) = _inputs(self._psf_labels(), values)
        return self.psf_error.apply(images, **{name: value[..., None] for name, value in found.items()})

    def labelled_sources(self) -> list[tuple[str, LightProfile]]:
        """The sources with the labels of their parameters: "source", or "source1", "source2" if there are several."""
        return _labelled([("source", p) for p in self.sources])

    def _psf_labels(self) -> list[tuple[str, PSFError]]:
        return [] if self.psf_error is None else [("psf", self.psf_error)]

    def _entries(self, priors: dict[str, Any]) -> list[Entry]:
        entries: list[Entry] = []
        start = 0
        for label, component in self.labelled():
            for parameter in component.parameters:
                name = f"{label}.{','.join(parameter.names)}"
                role = re.sub(r"^source\d+\.", "source.", name)
                prior = priors.pop(name, _DEFAULTS_BY_ROLE.get(role, parameter.prior))
                full_names = [f"{label}.{each}" for each in parameter.names]
                if isinstance(prior, str):
                    self.tied |= zip(full_names, _names_of(prior, name, len(full_names)), strict=True)
                    continue
                if isinstance(prior, int | float | tuple | list | np.ndarray) and not isinstance(prior, bool):
                    self.fixed |= zip(full_names, _numbers(prior, name, len(full_names)), strict=True)
                    continue
                make_prior = partial(_distribution, prior, tf.as_dtype(self.dtype))
                entries.append(Entry(label, parameter, make_prior, start))
                entries[-1].prior  # noqa: B018 (made now, so that a wrong one is refused here)
                start += len(parameter.names)
        if priors:
            known = [f"{entry.label}.{','.join(entry.parameter.names)}" for entry in entries]
            raise ParameterError(f"priors given for unknown parameter(s) {sorted(priors)}; the model has {known}")
        free = [name for entry in entries for name in entry.names]
        for name, other in self.tied.items():
            if other not in free:
                raise ParameterError(f"{name} is tied to {other!r}, which is no free parameter; there are {free}")
        return entries


# Where a profile's own default is too wide for the part it plays: of two Sersics of the lens light the first is the
# inner one, and a source is small.
_DEFAULTS_BY_ROLE: dict[str, PriorFactory] = {
    "light1.R_sersic": log_normal(0.4, 0.8),
    "light2.R_sersic": log_normal(1.2, 0.8),
    "light2.n_sersic": bounded_normal(0.5, 8.0, 1.5, 1.0),
    "source.R_sersic": log_normal(0.2, 0.7),
    "source.n_sersic": bounded_normal(0.5, 8.0, 1.5, 1.0),
}


class LensTarget(Density):
    """The log posterior of a `LensModel` given an `Observation`, for batches of u.

    Args:
        model: the model.
        observation: the data; only its used pixels count. If their noise is correlated, they are whitened, and the
            model's images with them (`tflens.whitening`).
        frame: rows and columns of the image to compute, all by default; coordinates stay those of the whole image.
        supersampling: samples along each side of a pixel, at the nodes of a Gauss-Legendre rule.
        refine: map `[ny, nx]` of pixels that are sampled more finely, see `LensLayer`; `refinement` makes one.
        modes: how many patterns in the image can be taken for uncertain, see `forgive`.
        xla: whether XLA compiles the physics; False for programs that are to run where there is none.
        room: for other maps that take the place of `refine` by `refine_by`, see `LensLayer`.

    Raises:
        ParameterError: a source takes an image and has none of its own, or there is no room for `refine`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> psf = np.ones((1, 1))
        >>> observation = Observation(rng.normal(size=(8, 10)), np.ones((8, 10)), psf, pixel_scale=0.2)
        >>> target = LensTarget(LensModel(lens_light=[Sersic()], source=Sersic()), observation)
        >>> target.log_prob(tf.zeros([3, target.model.dim])).shape
        TensorShape([3])
    """

    def __init__(
        self,
        model: LensModel,
        observation: Observation,
        frame: Frame | None = None,
        supersampling: int = 1,
        refine: np.ndarray | None = None,
        modes: int = 0,
        xla: bool = True,
        room: Mapping[int, int] | None = None,
    ) -> None:
        for number in model.of_images:
            if not model.latent_dims[number]:
                raise ParameterError(
                    f"LensTarget: the source {model.sources[number]!r} has no image of its own; give the model a "
                    "source that makes one, such as RegularizedPixels or NeuralSource"
                )
        super().__init__()
        self.model = model
        self.frame = frame if frame is not None else (slice(None), slice(None))
        self.grid = observation.grid.cutout(*self.frame)
        self.layer = LensLayer(
            self.grid,
            mass=model.lens,
            lens_light=model.lens_light,
            source=model.sources,
            psf=observation.psf,
            supersampling=supersampling,
            quadrature="gauss-legendre",
            refine=refine,
            room=room,
            exact_cusps=True,
            dtype=model.dtype,
        )
        # Variables, so that data of the same shape can be exchanged without compiling anything again.
        pixels = self.grid.shape[0] * self.grid.shape[1]
        stamp = self._stamp_shape() if modes else (0, 0)
        patterns = modes if stamp[0] else 0
        zeros = Seen(
            tf.zeros([taps_for(observation.noise_correlation), *self.grid.shape], model.dtype),
            tf.zeros([modes, pixels], model.dtype),
            tf.zeros([pixels + patterns], model.dtype),
            tf.zeros([], tf.float64),
            Beside.none(model.dtype, patterns, stamp, self.grid.shape, model.physical_dim),
        )
        self.seen = tf.nest.map_structure(partial(tf.Variable, trainable=False), zeros)
        self._take(observation)
        # Physics is fastest under XLA, a decoder's convolutions outside of it (oneDNN), so only the former is compiled.
        compiled = partial(tf.function, jit_compile=xla or None, autograph=False)
        self._compiled_design = compiled(self._physical_design)
        self._compiled_tangents = compiled(self._physical_tangents)
        self._compiled_source_tangents = compiled(self._source_tangents)
        self._compiled_likelihood = compiled(self._physical_likelihood)
        self._compiled_posterior = compiled(self._physical_posterior)
        self._value_and_gradient = Direct(self._tempered, jit_compile=False)
        # One lens has nothing to share among cores: a single program, if there is no network outside of it.
        self._alone = self._value_and_gradient if model.latent_dim else Direct(self._tempered, jit_compile=xla)

    def observe(self, observation: Observation) -> None:
        """Exchanges the data for those of another lens; nothing is compiled again.

        Args:
            observation: of the same shape, pixel scale and PSF, its noise white or correlated as this one's (by a
                kernel of its own); the frame stays what it is.

        Raises:
            ParameterError: it differs in one of these.
        """
        if not self.suits(observation):
            mine, other = self.observation.grid, observation.grid
            raise ParameterError(
                f"this target was compiled for images of shape {mine.shape} with pixels of {mine.pixel_scale} arcsec "
                f"and one PSF; the observation {observation.name!r} has shape {other.shape} with pixels of "
                f"{other.pixel_scale} arcsec, another PSF, or white noise instead of correlated, or the other way "
                "round: make a new LensTarget"
            )
        self._take(observation)

    def suits(self, observation: Observation) -> bool:
        """Whether `observe` takes it: whether shape, pixel scale and PSF are those of this target, and its noise is
        white or correlated as this one's."""
        mine = self.observation
        same_taps = taps_for(mine.noise_correlation) == taps_for(observation.noise_correlation)
        return same_taps and mine.grid == observation.grid and np.array_equal(mine.psf, observation.psf)

    def use(self, mask: np.ndarray) -> None:
        """Changes which pixels of the frame count, `[ny, nx]`, True = used; nothing is compiled again, and nothing
        forgiven any more.

        Raises:
            ParameterError: the mask has another shape than the frame, or uses a pixel that the observation does not.
        """
        mask = np.asarray(mask, bool)
        usable = self.observation.mask[self.frame]
        if mask.shape != usable.shape or (mask & ~usable).any():
            raise ParameterError(
                f"a mask for this target must have shape {usable.shape} and use only pixels that the observation "
                f"uses; got shape {mask.shape}"
            )
        self.mask = mask
        self.seen.taps.assign(whitening_taps(self.noise, mask, self.observation.noise_correlation))
        self.forgive(None)

    def given(self, seen: Seen) -> "LensTarget":
        """The same programs for another observation, within a program of another target."""
        other = copy.copy(self)
        other.seen = seen
        return other

    @property
    def modes(self) -> int:
        """How many patterns `forgive` takes at the most."""
        return int(self.seen.modes.shape[0])

    def forgive(self, discrepancy: Forgiven | None) -> None:
        """Takes some patterns in the image for uncertain beyond the noise, and their mean for a part of the source;
        nothing is compiled again.

        Args:
            discrepancy: `tflens.inference.discrepancy.Discrepancy` or its like; None for nothing.

        Raises:
            ParameterError: it has more modes than the target, or they have another number of pixels.
        """
        most, pixels = self.seen.modes.shape
        modes = np.zeros((0, pixels)) if discrepancy is None else discrepancy.modes
        if len(modes) > most or modes.shape[1] != pixels:
            raise ParameterError(
                f"LensTarget.forgive takes up to {most} modes of {pixels} pixels, got an array of shape {modes.shape}; "
                "make the target with more `modes`"
            )
        self.discrepancy = discrepancy
        self.seen.beside.take(discrepancy)
        self.seen.modes.assign(np.pad(modes, ((0, most - len(modes)), (0, 0))))
        self.seen.data.assign(np.pad(self.whitened(self.image).reshape(-1), (0, self.seen.beside.room)))

    def whitened(self, images: np.ndarray) -> np.ndarray:
        """Images `[...batch, ny, nx]` of the frame in the coordinates of the likelihood, `[...batch, pixels]`: divided
        by their noise, decorrelated, and without most of what is forgiven."""
        return self._whiten(tf.constant(images, self.model.dtype), self.seen).numpy()

    def _take(self, observation: Observation) -> None:
        self.observation = observation
        self.image, self.noise = observation.image[self.frame], observation.noise[self.frame]
        self.use(observation.mask[self.frame])
        # A component brighter than the whole image in signal-to-noise is what the data rule out, and no more.
        self.seen.prior_scale.assign(
            max(SMALLEST_PRIOR_SCALE, np.linalg.norm(self.seen.data.numpy().astype(np.float64)))
        )

    def refinement(self, u: np.ndarray, supersampling: int, tolerance: float) -> np.ndarray:
        """Which pixels are to be sampled more finely, and how much, for models near given points: see
        `tflens.refinement.suggest_refinement`.

        Args:
            u: likely points `[n, dim]`.
            supersampling: samples along each side of a pixel.
            tolerance: largest rendering error of any of them in any pixel, in units of the noise.

        Raises:
            ParameterError: `supersampling` is not a whole number from 1.

        Warns:
            UserWarning: the tolerance cannot be met, see `suggest_refinement`.
        """
        layer = self.layer.replace(supersampling=supersampling, refine=None, room=None)
        return suggest_refinement(layer, *self._scene(u), tolerance)

    def refined(
        self, supersampling: int, refine: np.ndarray, modes: int = 0, room: Mapping[int, int] | None = None
    ) -> "LensTarget":
        """The same target sampled more finely.

        Args:
            supersampling: samples along each side of a pixel.
            refine: the map of `refinement`.
            modes: of the new target.
            room: for other maps, see `tflens.lens_layer.LensLayer`.

        Raises:
            ParameterError: `supersampling` is not a whole number from 1, or there is no room for the map.
        """
        target = LensTarget(self.model, self.observation, self.frame, supersampling, refine, modes, room=room)
        target.use(self.mask)
        return target

    @property
    def refine(self) -> np.ndarray | None:
        """The map of pixels that are sampled more finely, `[ny, nx]`; None if there is none."""
        return self.layer.refine

    def refine_by(self, refine: np.ndarray) -> None:
        """Exchanges that map, for a target with `room`; nothing is compiled again.

        Raises:
            ParameterError: see `LensLayer.refine_by`.
        """
        self.layer.refine_by(refine)

    def rendering_error(self, u: np.ndarray) -> float:
        """The largest rendering error of models at given points `[n, dim]`, in units of the noise."""
        return rendering_error(self.layer, *self._scene(u))

    def _scene(self, u: np.ndarray) -> tuple[dict[str, list[Values]], np.ndarray]:
        """Models at points `[n, dim]` with their amplitudes, as the layer takes them, and the noise."""
        points = tf.constant(u, self.model.dtype)
        values, amplitudes = self.model.physical(points), tf.nn.relu(self.linear(points).mean)
        inputs = self.model.layer_inputs(values, self.model.source_images(points))
        for i, light in enumerate([*inputs["lens_light"], *inputs["source"]]):
            light["amp"] = amplitudes[:, i]
        # A pixel that is not used has no noise to speak of: it counts through the PSF alone.
        return inputs, np.where(self.mask, self.noise, self.noise[self.mask].max())

    def design(self, u: tf.Tensor) -> tf.Tensor:
        """Whitened unit-amplitude images of all linear components, `[batch, components, pixels]`; after the pixels of
        the image come those residuals that are the prior of what is beside the source (`tflens.seen.Beside`)."""
        drawn = self.seen.beside.drawn(self.model.source_images(u))
        return self._compiled_design(u[..., : self.model.physical_dim], self.seen, drawn)

    def linearize(self, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The design at one point and its derivative in every direction of u, by forward-mode differentiation.

        Args:
            u: one point, `[dim]`.

        Returns:
            Design `[components, pixels]` and tangents `[dim, components, pixels]`.
        """
        model = self.model
        design = self.design(u[None])[0]
        physical = u[: model.physical_dim]
        lanes = tf.repeat(physical[None], model.physical_dim, axis=0)
        directions = tf.eye(model.physical_dim, dtype=u.dtype)
        images = model.source_images(u[None])
        still = [tf.repeat(each, model.physical_dim, axis=0) for each in self.seen.beside.drawn(images)]
        tangents = [self._compiled_tangents(lanes, directions, self.seen, still)]
        for number, source in enumerate(model.of_images):
            dim = model.latent_dims[source]
            latents = tf.repeat(model.latents_of(source, u)[None], dim, axis=0)
            with ForwardAccumulator(latents, tf.eye(dim, dtype=u.dtype)) as accumulator:
                turned = model.sources[source].image(latents)
            seen = [*images[:number], turned, *images[number + 1 :]]
            by_latents = self._compiled_source_tangents(
                physical[None], self.seen, seen, accumulator.jvp(turned), number
            )
            tangents.append(self._as_component(by_latents, source))
        return design, tf.concat(tangents, 0)

    def linear(self, u: tf.Tensor) -> LinearSolution:
        """Amplitudes in closed form for base-space values u `[batch, dim]`."""
        return self.solve(self.design(u))

    def solve(self, design: tf.Tensor) -> LinearSolution:
        """Amplitudes in closed form for a given `design`."""
        return marginalize(design, self.seen.data, self.seen.prior_scale, self.model.positive)

    def log_likelihood(self, u: tf.Tensor) -> tf.Tensor:
        """Log marginal likelihood `[batch]`, without the constant of the noise's normalisation."""
        return self.linear(u).log_likelihood + self.log_volume(u)

    def log_volume(self, u: tf.Tensor) -> tf.Tensor:
        """How much more or less of what is forgiven the data allow at points `[batch, dim]`, seen through their lenses,
        than where it was found, in log: see `tflens.seen.Beside`."""
        return self.seen.beside.log_volume(u[..., : self.model.physical_dim])

    def value_and_gradient(self, u: tf.Tensor, power: float | tf.Tensor = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
        """Log posterior `[batch]` and its gradient `[batch, dim]`, in one compiled program.

        Not differentiable itself.

        Args:
            u: points `[batch, dim]`.
            power: to which the likelihood is raised, a number; below 1 it is tempered.
        """
        program = self._alone if u.shape[0] == 1 else self._value_and_gradient
        # No tape further out must reach in: it would have every operation keep its intermediate results.
        return program(tf.stop_gradient(u), tf.convert_to_tensor(power, u.dtype))

    def component_images(self, u: tf.Tensor, amplitudes: tf.Tensor) -> tf.Tensor:
        """Images of all linear components `[batch, components, ny, nx]`, counts/s per pixel, for amplitudes
        `[batch, components]`; their sum is the model image but for what is `missed`."""
        drawn = self.seen.beside.drawn(self.model.source_images(u))
        unit = self._unit_images(u[..., : self.model.physical_dim], drawn, self.seen)
        return unit * amplitudes[..., None, None]

    def evaluate(self, u: np.ndarray) -> "Evaluation":
        """Everything there is to see at one point `[dim]`, amplitudes at their conditional mean."""
        point = tf.constant(u[None], self.model.dtype)
        amplitudes = self.linear(point).mean
        images = self.component_images(point, amplitudes).numpy()[0]
        left = self.image - images.sum(0)
        missed = self.missed(left)
        left = left - missed
        residual = np.where(self.mask, left / self.noise, np.nan)
        whitened = None
        if self.observation.noise_correlation is not None:
            taps = whitening_taps(self.noise, self.mask, self.observation.noise_correlation)
            whitened = np.where(self.mask, whiten(tf.constant(left), tf.constant(taps)).numpy(), np.nan)
        lens_light = images.sum(0) - images[list(self.model.source_amplitudes)].sum(0)
        image = images.sum(0) + missed
        return Evaluation(image, lens_light, image - lens_light, residual, amplitudes.numpy()[0], whitened)

    def missed(self, left: np.ndarray) -> np.ndarray:
        """What of residual images `[..., ny, nx]`, counts/s per pixel, is light of the source that its model does not
        have: the mean of what is forgiven."""
        if self.discrepancy is None:
            return np.zeros_like(left)
        return np.tensordot(self.discrepancy.coefficients(self.white(left)), self.discrepancy.images, 1)

    def moved(self, u: tf.Tensor, amplitudes: tf.Tensor) -> np.ndarray:
        """Coefficients `[batch, n]` of what moves with the lens of the patterns that are forgiven, at points
        `[batch, dim]` with amplitudes `[batch, components]`: the model has it already."""
        found = self.discrepancy
        _, expected = self.seen.beside.add(self.model.source_images(u))
        relative = np.asarray(amplitudes)[:, self.model.source_amplitudes[0], None] / found.amplitude
        return (1 - found.stays) * relative * expected.numpy()[:, : len(found.stays)]

    def white(self, images: np.ndarray) -> np.ndarray:
        """Images `[..., ny, nx]` of the frame whitened, `[..., pixels]`, with nothing forgiven."""
        return whiten(tf.constant(images), tf.cast(self.seen.taps, tf.float64)).numpy().reshape(*images.shape[:-2], -1)

    def respond(self, u: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
        """Images `[n, ny, nx]` of small changes `[n, ny, nx]` of the pixels of the model's only image, with what is
        beside it, seen through the lens at one point u `[dim]`, for a source of unit amplitude."""
        physical, image = u[None, : self.model.physical_dim], self._whole_image(u, changes.shape[0])
        with ForwardAccumulator(image, changes) as accumulator:
            seen = self._lensed(physical, [image], 0)
        return accumulator.jvp(seen)

    def respond_back(self, u: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """The transpose of `respond`: how sums over the whitened image, each with weights of its own `[n, pixels]`,
        change with the pixels of the model's only image, `[n, ny, nx]`."""
        physical, image = u[None, : self.model.physical_dim], self._whole_image(u, weights.shape[0])
        with tf.GradientTape() as tape:
            tape.watch(image)
            white = whiten(self._lensed(physical, [image], 0), self.seen.taps)
            total = tf.reduce_sum(tf.reshape(white, weights.shape) * weights)
        return tape.gradient(total, image)

    def respond_volume(self, u: tf.Tensor, changes: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """How the sum over `respond` of changes, whitened and weighted `[n, pixels]`, moves with the physical part of
        u, `[physical_dim]`."""
        physical, image = u[None, : self.model.physical_dim], self._whole_image(u, changes.shape[0])
        # A difference, not a derivative of a derivative, which not all operations have. An image is linear in its
        # pixels but for where its middle is.
        step = _DIFFERENCE * tf.reduce_max(image) / tf.maximum(_largest(changes), np.finfo(u.dtype.as_numpy_dtype).tiny)
        both = tf.concat([image + step[:, None, None] * changes, image - step[:, None, None] * changes], 0)
        weights = tf.concat([weights, -weights], 0) / (2 * tf.concat([step, step], 0)[:, None])
        with tf.GradientTape() as tape:
            tape.watch(physical)
            white = whiten(self._lensed(physical, [both], 0), self.seen.taps)
            total = tf.reduce_sum(tf.reshape(white, weights.shape) * weights)
        return tape.gradient(total, physical)[0]

    def _whole_image(self, u: tf.Tensor, copies: int) -> tf.Tensor:
        (image,), _ = self.seen.beside.add(self.model.source_images(u[None]))
        return tf.repeat(image, copies, axis=0)

    def _stamp_shape(self) -> tuple[int, ...]:
        """Of the image of the model's only source; nothing if it has none."""
        images = self.model.source_images(tf.zeros([1, self.model.dim], self.model.dtype))
        return tuple(images[0].shape[1:]) if len(images) == 1 == len(self.model.sources) else (0, 0)

    def _physical_design(self, physical: tf.Tensor, seen: Seen, drawn: Sequence[tf.Tensor]) -> tf.Tensor:
        """The design from what `tflens.seen.Beside.drawn` makes of the sources' images."""
        white = self._whiten(self._unit_images(physical, drawn, seen), seen)
        if not seen.beside.room:
            return white
        _, expected, _ = drawn
        return tf.concat([white, self._as_component(expected, 0)], -1)

    def _as_component(self, values: tf.Tensor, source: int) -> tf.Tensor:
        """Values `[batch, ...]` of one source as those of all components, `[batch, components, ...]`: the others' are
        0."""
        before = self.model.source_amplitudes[source]
        after = len(self.model.amplitude_names) - 1 - before
        return tf.pad(values[:, None], [[0, 0], [before, after], *[[0, 0]] * (values.shape.rank - 1)])

    def _whiten(self, images: tf.Tensor, seen: Seen) -> tf.Tensor:
        white = whiten(images, seen.taps)
        return deflate(tf.reshape(white, tf.concat([tf.shape(white)[:-2], [self.image.size]], 0)), seen.modes)

    def _tempered(self, u: tf.Tensor, power: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self.tempered(u, power, self.seen)

    def tempered(
        self, u: tf.Tensor, power: tf.Tensor, seen: Seen, lens: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """`value_and_gradient`, not compiled, given what is observed.

        Args:
            u: points `[batch, dim]`.
            power: to which the likelihood is raised.
            seen: an observation; or several.
            lens: which of several it is for each point, `[batch]`.
        """
        lenses = [] if lens is None else [lens]
        if not self.model.latent_dim:
            program = lambda u, *lens: self._compiled_posterior(u, lens, power, seen)  # noqa: E731
            return tuple(in_streams(program, [u, *lenses]))
        with tf.GradientTape() as tape:
            tape.watch(u)
            theirs = seen.beside if lens is None else seen.of(lens).beside
            drawn = theirs.drawn(self.model.source_images(u))
        value, by_physical, *by_drawn = in_streams(
            lambda physical, *others: self._compiled_likelihood(
                physical, others[: len(drawn)], others[len(drawn) :], seen
            ),
            [u[:, : self.model.physical_dim], *drawn, *lenses],
        )
        by_latents = self.model.latents(tape.gradient(drawn, u, output_gradients=by_drawn))
        return power * value + self.log_prior(u), power * tf.concat([by_physical, by_latents], -1) - u

    def _physical_posterior(
        self, u: tf.Tensor, lens: Sequence[tf.Tensor], power: tf.Tensor, seen: Seen
    ) -> tuple[tf.Tensor, tf.Tensor]:
        value, gradient = self._physical_likelihood(u, (), lens, seen)
        return power * value + self.log_prior(u), power * gradient - u

    def _physical_likelihood(
        self, physical: tf.Tensor, drawn: Sequence[tf.Tensor], lens: Sequence[tf.Tensor], seen: Seen
    ) -> list[tf.Tensor]:
        """Log marginal likelihood `[batch]` and its gradient by the physical parameters and by what the design is made
        of; `lens` is empty, or has the number of each point's lens among several."""

        def lanes(arguments: list[tf.Tensor]) -> list[tf.Tensor]:
            points = arguments[: 1 + len(drawn)]
            theirs = seen.of(arguments[-1]) if lens else seen
            with tf.GradientTape() as tape:
                tape.watch(points)
                design = self._physical_design(points[0], theirs, points[1:])
                value = marginalize(design, theirs.data, theirs.prior_scale, self.model.positive).log_likelihood
                value += theirs.beside.log_volume(points[0])
            return [value, *tape.gradient(value, points)]

        arguments = [physical, *drawn]
        outputs = [tf.TensorSpec(shape, physical.dtype) for shape in ([], *(a.shape[1:] for a in arguments))]
        return in_chunks(lanes, [*arguments, *lens], outputs, chunk_size(self.layer.samples))

    def _physical_tangents(
        self, physical: tf.Tensor, directions: tf.Tensor, seen: Seen, drawn: Sequence[tf.Tensor]
    ) -> tf.Tensor:
        def lanes(arguments: list[tf.Tensor]) -> list[tf.Tensor]:
            physical, directions, *drawn = arguments
            with ForwardAccumulator(physical, directions) as accumulator:
                design = self._physical_design(physical, seen, drawn)
            return [accumulator.jvp(design)]

        arguments = [physical, directions, *drawn]
        shape = [len(self.model.amplitude_names), self.image.size + seen.beside.room]
        output = tf.TensorSpec(shape, physical.dtype)
        return in_chunks(lanes, arguments, [output], chunk_size(self.layer.samples))[0]

    def _source_tangents(
        self, physical: tf.Tensor, seen: Seen, images: Sequence[tf.Tensor], directions: tf.Tensor, number: int
    ) -> tf.Tensor:
        """Tangents `[n, pixels]` of a whitened source, seen through one lens, in n directions of the pixels of image
        `number`."""
        with ForwardAccumulator(images[number], directions) as accumulator:
            if seen.beside.room:
                whole, expected, staying = seen.beside.drawn(images)
                white = self._whiten(self._lensed(physical, [whole], number) - staying, seen)
                white = tf.concat([white, expected], -1)
            else:
                white = self._whiten(self._lensed(physical, images, number), seen)
        return accumulator.jvp(white)

    def _lensed(self, physical: tf.Tensor, images: Sequence[tf.Tensor], number: int) -> tf.Tensor:
        """Image number `number` of the sources' as it is seen, `[...batch, ny, nx]`, for unit amplitude."""
        values = self.model.physical(physical)
        inputs = self.model.layer_inputs(values, images)
        # What the other sources are is compiled away.
        lensed = self.layer.lens_source(inputs["mass"], inputs["source"])[self.model.of_images[number]]
        return self.model.observed(lensed[:, None], values)[:, 0]

    def _unit_images(self, physical: tf.Tensor, drawn: Sequence[tf.Tensor], seen: Seen) -> tf.Tensor:
        values = self.model.physical(physical)
        images = self.layer.images(self.model.layer_inputs(values, drawn[:1] if seen.beside.room else drawn))
        if self.model.sky:
            images.append(tf.ones_like(images[0]))
        images = self.model.observed(tf.stack(images, axis=-3), values)
        if not seen.beside.room:
            return images
        _, _, staying = drawn
        return images - self._as_component(staying, 0)


@dataclass(frozen=True)
class Evaluation:
    """A model at one point, `[ny, nx]` each, counts/s per pixel.

    Attributes:
        image: the whole model.
        lens_light: the lens's light and the sky.
        lensed_source: the arcs alone.
        residual: (data - model) / noise, NaN where the mask excludes a pixel.
        amplitudes: `[components]`, in the order of `LensModel.amplitude_names`.
        whitened: `residual` without what neighbours tell of it if the noise is correlated, independent unit noise for
            a good fit (`tflens.whitening`); None, for white noise, stands for `residual` itself.
    """

    image: np.ndarray
    lens_light: np.ndarray
    lensed_source: np.ndarray
    residual: np.ndarray
    amplitudes: np.ndarray
    whitened: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.whitened is None:
            object.__setattr__(self, "whitened", self.residual)

    @property
    def chi2(self) -> float:
        """chi^2 per used pixel: the mean square of `whitened`."""
        return float(np.nanmean(self.whitened**2))


def _largest(images: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(tf.abs(images), [-2, -1])


def _distribution(prior: Any, dtype: tf.DType) -> Any:
    """A prior as it was given, a distribution or a factory of one."""
    if hasattr(prior, "log_prob"):
        return prior
    if not callable(prior):
        raise ParameterError(
            "a prior must be a TFP distribution or a factory of one (dtype to prior), a number to fix the parameter, "
            f"or the name of another parameter to tie it to, got {prior!r}"
        )
    return prior(dtype)


def _names_of(tie: str, name: str, count: int) -> list[str]:
    """Full names of `count` parameters from "label.name,name"."""
    label, _, names = tie.rpartition(".")
    found = [f"{label}.{each.strip()}" for each in names.split(",")]
    if len(found) != count:
        raise ParameterError(f"{name} has {count} value(s) and cannot be tied to {tie!r}, which has {len(found)}")
    return found


def _numbers(given: Any, name: str, count: int) -> list[float]:
    try:
        values = np.atleast_1d(np.asarray(given, np.float64))
    except (TypeError, ValueError):  # words among them, or lists of several lengths
        values = np.array([np.nan])
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ParameterError(f"{name} must be fixed at {count} finite number(s), got {given!r}")
    return [float(value) for value in values]


def _inputs(labelled: list[tuple[str, Any]], values: Mapping[str, Any]) -> list[Values]:
    """The arguments of each profile's functions, from values by full name."""
    declared = [(label, profile, [n for p in profile.parameters for n in p.names]) for label, profile in labelled]
    return [profile.inputs({n: values[f"{label}.{n}"] for n in names}) for label, profile, names in declared]


def _labelled(components: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Numbers labels that occur more than once: light -> light1, light2."""
    count = [label for label, _ in components]
    seen: dict[str, int] = {}
    result = []
    for label, component in components:
        seen[label] = seen.get(label, 0) + 1
        result.append((f"{label}{seen[label]}" if count.count(label) > 1 else label, component))
    return result
