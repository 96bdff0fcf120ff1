"""One lens in several bands: the mass is shared, the light is each band's own."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tflens.density import Density
from tflens.errors import ParameterError
from tflens.model import LensModel, LensTarget

LATENTS = "source.latents"
"""Name by which `BandsModel` shares the latents of all sources."""

_PLACES = 3  # at which shared parameters are compared


class BandsModel:
    """Lens models of one lens in several bands, with the mass and whatever else is `shared` in common.

    The joint base space has, in the order of the bands, first the shared coordinates and then each band's own, whose
    names begin with the band's: "F814W.light.R_sersic".

    Args:
        models: of each band, by its name, with equal mass profiles and equal priors on what is shared.
        shared: names of parameters that all bands have in common beside those of the mass, for instance
            "source.center_x"; `LATENTS` for the latents of neural sources, of a galaxy that looks alike in all bands.

    Raises:
        ParameterError: there is no band; mass profiles or precisions differ; a shared parameter is not free in every
            band, or its prior differs; latents are to be shared by sources that differ.

    Example:
        >>> from tflens.light import Sersic
        >>> bands = {name: LensModel(lens_light=[Sersic()], source=Sersic()) for name in ("F814W", "F475X")}
        >>> model = BandsModel(bands, shared=["source.center_x", "source.center_y"])
        >>> model.dim, model.names[0], model.names[10]
        (30, 'lens.theta_E', 'F814W.light.R_sersic')
    """

    def __init__(self, models: Mapping[str, LensModel], shared: Sequence[str] = ()) -> None:
        if not models:
            raise ParameterError("BandsModel needs a model for one band or more, got none")
        self.models = dict(models)
        first = next(iter(self.models.values()))
        for band, model in self.models.items():
            if [repr(each) for each in model.lens] != [repr(each) for each in first.lens] or model.dtype != first.dtype:
                raise ParameterError(f"BandsModel: {band} must have the mass profiles and the dtype of the other bands")
        of_mass = [name for entry in first.entries if entry.label in first.mass_labels for name in entry.names]
        together = [*of_mass, *(name for name in shared if name != LATENTS)]
        self.shared = tuple(together) + ((LATENTS,) if LATENTS in shared else ())
        self._check()
        self.dtype = first.dtype
        names: list[str] = list(together)
        latents: list[tuple[str, int]] = []
        for band, model in self.models.items():
            names += [f"{band}.{name}" for name in model.names if name not in together]
            owner = "" if LATENTS in shared else band
            latents += [(owner, i) for i in range(model.latent_dim) if (owner, i) not in latents]
        self.names = tuple(names)
        places = {name: i for i, name in enumerate(names)}
        latent_places = {each: len(names) + i for i, each in enumerate(latents)}
        self.latent_dim = len(latents)
        self.dim = len(names) + self.latent_dim
        self.indices: dict[str, np.ndarray] = {}
        for band, model in self.models.items():
            owner = "" if LATENTS in shared else band
            own = [places[name if name in together else f"{band}.{name}"] for name in model.names]
            self.indices[band] = np.array([*own, *(latent_places[owner, i] for i in range(model.latent_dim))])

    def of_band(self, band: str, u: tf.Tensor) -> tf.Tensor:
        """The base-space values `[..., dim of the band]` of one band's model, from joint ones `[..., dim]`."""
        return tf.gather(u, self.indices[band], axis=-1)

    def join(self, u: Mapping[str, np.ndarray]) -> np.ndarray:
        """Joint values `[..., dim]` from those of every band; what is shared is taken from the first."""
        found = np.zeros((*next(iter(u.values())).shape[:-1], self.dim), self.dtype)
        for band in reversed(self.models):
            found[..., self.indices[band]] = u[band]
        return found

    def _check(self) -> None:
        sizes = {model.latent_dim for model in self.models.values()}
        sources = {repr(model.sources) for model in self.models.values()}
        if LATENTS in self.shared and (len(sizes) > 1 or len(sources) > 1):
            raise ParameterError(f"BandsModel: {LATENTS!r} can be shared by equal sources alone, got {sorted(sources)}")
        probe = np.random.default_rng(0).standard_normal(_PLACES)
        reference = None
        for band, model in self.models.items():
            missing = [name for name in self.shared if name != LATENTS and name not in model.names]
            if missing:
                raise ParameterError(
                    f"BandsModel: {missing[0]!r} is to be shared, but is no free parameter of {band}; it has "
                    f"{', '.join(model.names)}"
                )
            u = np.repeat(probe[:, None], model.dim, axis=1)
            values = model.physical(tf.constant(u, model.dtype))
            found = {name: values[name].numpy() for name in self.shared if name != LATENTS}
            reference = reference or (band, found)
            for name, value in found.items():
                if not np.array_equal(value, reference[1][name]):
                    raise ParameterError(
                        f"BandsModel: the priors of {name!r}, which is shared, differ between {reference[0]} and "
                        f"{band}; give both the same"
                    )


class BandsTarget(Density):
    """The log posterior of a `BandsModel` given an observation in every band, whose noise is independent.

    Args:
        model: the model.
        targets: of each band, by its name: with that band's model and observation.

    Raises:
        ParameterError: the targets are not those of the model's bands.
    """

    def __init__(self, model: BandsModel, targets: Mapping[str, LensTarget]) -> None:
        super().__init__()
        if set(targets) != set(model.models):
            raise ParameterError(f"BandsTarget needs a target for each of {list(model.models)}, got {list(targets)}")
        self.model = model
        self.targets = {band: targets[band] for band in model.models}

    def log_likelihood(self, u: tf.Tensor) -> tf.Tensor:
        return tf.add_n([target.log_likelihood(self.model.of_band(b, u)) for b, target in self.targets.items()])

    def value_and_gradient(self, u: tf.Tensor, power: float | tf.Tensor = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
        value, gradient = self.log_prior(u), -u
        for band, target in self.targets.items():
            own = self.model.of_band(band, u)
            posterior, slope = target.value_and_gradient(own, power)
            value += posterior - target.log_prior(own)
            gradient += self.spread(band, slope + own)
        return value, gradient

    def spread(self, band: str, values: tf.Tensor) -> tf.Tensor:
        """Values `[..., dim of the band]` at their places in `[..., dim]`, zeros elsewhere: the transpose of
        `BandsModel.of_band`."""
        places = tf.one_hot(self.model.indices[band], self.model.dim, dtype=values.dtype)
        return tf.tensordot(values, places, 1)
