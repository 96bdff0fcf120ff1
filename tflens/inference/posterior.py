"""The posterior of a fit: draws, diagnostics, images, kept as ArviZ InferenceData and as netCDF on disk."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

with warnings.catch_warnings():
    # ArviZ announces its version 1 at every import.
    warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
    import arviz as az

from tflens.errors import ParameterError
from tflens.files import is_file, write_atomically
from tflens.grid import PixelGrid
from tflens.inference.hmc import Chains
from tflens.light import LightProfile, Pixelated
from tflens.linear import sample_amplitudes
from tflens.model import LensTarget

_IMAGE_DRAWS = 64  # draws that the posterior's images are averaged over
_FIGURES = ("log_evidence", "log_evidence_error", "lowest_acceptance", "elbo", "elbo_error", "pareto_k")


@dataclass(frozen=True)
class Row:
    """One line of the table of results: posterior of a parameter, with its convergence.

    `low` and `high` bound the central 68 % interval, `low95` and `high95` the central 95 %.
    """

    name: str
    unit: str
    median: float
    low: float
    high: float
    low95: float
    high95: float
    r_hat: float
    ess: float


@dataclass(frozen=True)
class Posterior:
    """Draws of a fit and what belongs to them.

    Attributes:
        data: ArviZ InferenceData with groups `posterior` (physical parameters, amplitudes, base-space `u`),
            `sample_stats` (`lp`, `acceptance_rate`, `diverging`; in its attributes what the sampler has to tell, such
            as `log_evidence` or `pareto_k`), `observed_data` (image, noise, mask) and `predictions` (mean and spread
            of the model's images).
    """

    data: az.InferenceData

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters and amplitudes, in the model's order."""
        # xarray sorts its variables; the units were written in the model's order.
        return tuple(json.loads(self.data.posterior.attrs["units"]))

    def draws(self, name: str) -> np.ndarray:
        """Draws of one parameter, `[chains * draws]`.

        Raises:
            KeyError: there is no such parameter.
        """
        return self.data.posterior[name].to_numpy().reshape(-1)

    def table(self) -> list[Row]:
        """Median, intervals, rank-normalised split R-hat and bulk effective sample size of every parameter
        (Vehtari et al. 2021, Bayesian Analysis 16, 667)."""
        r_hat, ess = az.rhat(self.data.posterior), az.ess(self.data.posterior)
        units = json.loads(self.data.posterior.attrs["units"])
        rows = []
        for name in self.names:
            low95, low, median, high, high95 = np.quantile(self.draws(name), [0.025, 0.16, 0.5, 0.84, 0.975])
            rows.append(Row(name, units[name], median, low, high, low95, high95, float(r_hat[name]), float(ess[name])))
        return rows

    @property
    def diagnostics(self) -> dict[str, float]:
        """The sampler's health: worst R-hat and smallest effective sample size over everything sampled (latents
        included), mean acceptance, number of divergent transitions; and the figures of those samplers that have any:
        `log_evidence` with its error, `elbo` with its error, `pareto_k`."""
        u = self.data.posterior["u"]
        stats = self.data.sample_stats
        return {
            "max_r_hat": float(az.rhat(u)["u"].max()),
            "min_ess": float(az.ess(u)["u"].min()),
            "acceptance": float(stats["acceptance_rate"].mean()),
            "divergences": int(stats["diverging"].sum()),
            "chains": int(u.sizes["chain"]),
            "draws": int(u.sizes["draw"]),
            **{name: float(stats.attrs[name]) for name in _FIGURES if name in stats.attrs},
        }

    def save(self, path: str | Path) -> None:
        """Writes netCDF, whole or not at all."""
        write_atomically(Path(path), lambda temporary: self.data.to_netcdf(str(temporary), engine="h5netcdf"))

    @classmethod
    def load(cls, path: str | Path) -> "Posterior":
        """Reads what `save` wrote.

        Raises:
            ParameterError: there is no such file, it is damaged, or holds something else.
        """
        if not is_file(Path(path)):
            raise ParameterError(f"{path}: the posterior does not exist. Check the path.")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning)
                found = cls(az.from_netcdf(str(path), engine="h5netcdf"))
            missing = [name for name in found.names if name not in found.data.posterior]
            if missing:
                raise KeyError(missing[0])
        except Exception as error:  # HDF5, netCDF and ArviZ each raise their own
            raise ParameterError(
                f"{path}: cannot be read as the posterior of a fit ({type(error).__name__}: {error}). Fit again."
            ) from error
        return found


def assemble(target: LensTarget, chains: Chains, seed: int) -> Posterior:
    """Turns base-space chains into the posterior of physical parameters, amplitudes and images.

    Amplitudes, which the sampler never saw, are drawn from their conditional posterior given each draw.
    """
    model = target.model
    rng = np.random.default_rng([seed, 2])
    n_chains, n_draws, dim = chains.u.shape
    flat = tf.constant(chains.u.reshape(-1, dim))
    physical = {name: value.numpy() for name, value in model.physical(flat).items()}
    amplitudes = _draw_amplitudes(target, chains.u, rng)
    values = {name: physical[name] for name in model.names} | {
        name: amplitudes[:, i] for i, name in enumerate(model.amplitude_names)
    }
    units = dict(zip(model.names, model.units, strict=True)) | {
        n: _amplitude_unit(n, model) for n in model.amplitude_names
    }

    picked = rng.permutation(n_chains * n_draws)[:_IMAGE_DRAWS]
    images, field = draw_images(target, flat.numpy()[picked], amplitudes[picked], rng)
    lensed = images[:, list(model.source_amplitudes)].sum(1)
    predictions = _mean_and_spread("model", images.sum(1)) | _mean_and_spread("lensed_source", lensed)
    dims = {name: ["y", "x"] for name in predictions}
    source_grid = source_plane(target, physical)
    source = source_images(target, source_grid, flat.numpy()[picked], amplitudes[picked], field)
    predictions |= _mean_and_spread("source", source)
    dims |= {name: ["y_source", "x_source"] for name in predictions if name.startswith("source_")}

    def chain(array: np.ndarray) -> np.ndarray:
        return array.reshape(n_chains, n_draws, *array.shape[1:])

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="arviz")
        data = az.from_dict(
            posterior={name: chain(value) for name, value in values.items()} | {"u": chains.u},
            sample_stats={
                "lp": chains.log_prob,
                "acceptance_rate": chains.acceptance,
                "diverging": chains.diverging,
            },
            observed_data={"image": target.image, "noise": target.noise, "mask": target.mask.astype(np.int8)},
            predictions={name: value[None, None] for name, value in predictions.items()},
            dims={"image": ["y", "x"], "noise": ["y", "x"], "mask": ["y", "x"], "u": ["base"], **dims},
            coords=_coordinates(target.grid, "") | _coordinates(source_grid, "_source"),
        )
    data.posterior.attrs["units"] = json.dumps(units)
    data.sample_stats.attrs |= {
        "step_size": chains.step_size,
        "leapfrog_steps": chains.leapfrog_steps,
        "gradients": chains.gradients,
        **chains.figures,
    }
    return Posterior(data)


def source_plane(target: LensTarget, physical: dict[str, np.ndarray], pixels: int = 100) -> PixelGrid:
    """A square grid around the sources, wide enough for where their light is."""
    median = {name: float(np.median(values)) for name, values in physical.items() if name.startswith("source")}
    corners = []
    for label, source in target.model.labelled_sources():
        values = {name: median[f"{label}.{name}"] for name in source.parameter_names}
        center = np.array([values.get(f"center_{axis}", 0.0) for axis in "xy"])
        if isinstance(source, Pixelated):
            side = 44 * source.pixel_scale * values["scale"]
        else:
            side = 8 * values["R_sersic"] if "R_sersic" in values else _side(source, values, center)
        corners.append((center - side / 2, center + side / 2))
    low, high = np.min([low for low, _ in corners], 0), np.max([high for _, high in corners], 0)
    middle = (low + high) / 2
    return PixelGrid((pixels, pixels), float((high - low).max()) / pixels, (float(middle[0]), float(middle[1])))


def _side(source: LightProfile, values: dict[str, float], center: np.ndarray) -> float:
    """Side of a square that holds nearly all light of a source, arcsec; at most 32."""
    inputs = source.inputs({name: tf.constant(value, tf.float64) for name, value in values.items()})
    sides = 32.0 / 2.0 ** np.arange(8)[::-1]
    light = []
    for side in sides:
        x, y = PixelGrid((100, 100), side / 100, tuple(center)).coordinates()
        light.append(float(tf.reduce_sum(source.brightness(tf.constant(x), tf.constant(y), **inputs))) * side**2)
    return float(sides[np.argmax(np.array(light) >= 0.99 * light[-1])])


def source_images(
    target: LensTarget,
    grid: PixelGrid,
    u: np.ndarray,
    amplitudes: np.ndarray,
    field: np.ndarray | None = None,
) -> np.ndarray:
    """Surface brightness of the unlensed sources together, counts/s/arcsec^2, `[draws, ny, nx]`.

    Args:
        target: of the fit.
        grid: where.
        u: points `[draws, dim]`.
        amplitudes: `[draws, components]`.
        field: what the source has beside what its network draws, of `draw_images`.
    """
    x, y = (tf.constant(axis.astype(target.model.dtype)) for axis in grid.coordinates())
    return sum(
        source.brightness(x, y, **values).numpy() * amplitude[:, None, None]
        for source, values, amplitude in source_inputs(target, u, amplitudes, field)
    )


def source_inputs(
    target: LensTarget, u: np.ndarray, amplitudes: np.ndarray, field: np.ndarray | None = None
) -> list[tuple[LightProfile, dict[str, tf.Tensor], np.ndarray]]:
    """The sources at points `[draws, dim]`: profiles, arguments of their `brightness`, amplitudes `[draws]`."""
    model = target.model
    points = tf.constant(u)
    inputs = model.layer_inputs(model.physical(points), model.source_images(points))["source"]
    of_sources = [amplitudes[:, place] for place in model.source_amplitudes]
    if field is not None:
        of_unit_flux = field / np.maximum(of_sources[0], np.finfo(np.float32).tiny)[:, None, None]
        inputs[0]["image"] += tf.constant(of_unit_flux, inputs[0]["image"].dtype)
    return list(zip(model.sources, inputs, of_sources, strict=True))


def draw_images(
    target: LensTarget, u: np.ndarray, amplitudes: np.ndarray, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images of all components, with what the source has beside what its network draws, and that by itself.

    Args:
        target: of the fit.
        u: points `[draws, dim]`.
        amplitudes: `[draws, components]`.
        rng: of the draws of what is beside the source; None for its mean.

    Returns:
        Counts/s per pixel `[draws, components, ny, nx]`; and, counts/s per pixel of the source's stamp
        `[draws, ny, nx]`, all that is beside the source: None if nothing is.
    """
    points, amplitudes = tf.constant(u), np.asarray(amplitudes, u.dtype)
    images = target.component_images(points, tf.constant(amplitudes)).numpy()
    found = target.discrepancy
    if found is None:
        return images, None
    staying = found.coefficients(target.white(target.image - images.sum(1)), rng)
    images[:, target.model.source_amplitudes[0]] += np.tensordot(staying, found.images, 1)
    return images, np.tensordot(staying + target.moved(points, amplitudes), found.stamps, 1)


def _draw_amplitudes(target: LensTarget, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    solve = target.program(_amplitudes)
    # In batches of one draw of each chain: the shape that the sampler has already compiled.
    solutions = [solve(tf.constant(u[:, i])) for i in range(u.shape[1])]
    mean, covariance = (np.stack([s[i].numpy() for s in solutions], 1) for i in (0, 1))
    components = mean.shape[-1]
    return sample_amplitudes(
        mean.reshape(-1, components), covariance.reshape(-1, components, components), target.model.positive, rng
    )


def _amplitudes(target: LensTarget, u: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Conditional mean and covariance."""
    return target.linear(u)[:2]


def _amplitude_unit(name: str, model: Any) -> str:
    if name == "sky.amp":
        return "counts/s/pixel"
    of_unit_flux = {f"{label}.amp" for label, source in model.labelled_sources() if isinstance(source, Pixelated)}
    return "counts/s" if name in of_unit_flux else "counts/s/arcsec^2"


def _mean_and_spread(name: str, images: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}_mean": images.mean(0), f"{name}_std": images.std(0)}


def _coordinates(grid: PixelGrid, suffix: str) -> dict[str, np.ndarray]:
    x, y = grid.coordinates()
    return {f"x{suffix}": x[0], f"y{suffix}": y[:, 0]}
