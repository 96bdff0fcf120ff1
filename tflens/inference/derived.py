"""What follows from the parameters of a fit: Einstein radii, and flux, size and magnification of the source."""

from typing import Any

import numpy as np
import tensorflow as tf

from tflens.einstein import EinsteinRadii, einstein_radii
from tflens.errors import ParameterError
from tflens.inference.images import half_light_radius, sources_on, thinned
from tflens.inference.posterior import source_plane
from tflens.light import Pixelated, Sersic
from tflens.mass import Shear

DRAWS = 64  # of those quantities that need images or curves
_SOURCE_PIXELS = 160  # along the side of the grid that sizes are measured on


def derived(fit: Any) -> dict[str, dict[str, Any]]:
    """Derived quantities with their intervals, in plain values, by name.

    - `lens.einstein_radius`: sqrt(area inside the tangential critical curve / pi), of the whole lens.
    - `lens.einstein_radius_convergence`: radius of the circle of mean convergence 1.
    - `SOURCE.flux`: of the whole source before lensing.
    - `SOURCE.half_light_radius`: of a Sersic source its own (intermediate axis), else of the circle around the centre
      of its light that holds half of it.
    - `source.magnification`: light of the arcs in the frame of the fit over that of all sources; `best` is that of the
      best point, the others are of `DRAWS` draws, as are sizes and Einstein radii.

    What cannot be had is left out: fluxes and magnification of a source without total flux in closed form, Einstein
    radii of a lens that has none inside twice the frame.

    Args:
        fit: a `tflens.inference.pipeline.Fit`.

    Returns:
        For each `unit`, `median`, `low`, `high` (central 68 %), `low95`, `high95`, and `draws`, how many it is from.
    """
    model, posterior = fit.model, fit.posterior
    found = {}
    radii = _einstein_radii(fit)
    if radii is not None:
        for name, draws in zip(("einstein_radius", "einstein_radius_convergence"), radii, strict=True):
            if np.isfinite(draws).all():
                found[f"lens.{name}"] = _interval("arcsec", draws)
    flux = source_fluxes(model, {name: posterior.draws(name) for name in posterior.names})
    if flux is not None:
        found |= {name: _interval("counts/s", draws) for name, draws in flux.items()}
    for label, draws in half_light_radii(fit).items():
        if np.isfinite(draws).all():
            found[f"{label}.half_light_radius"] = _interval("arcsec", draws)
    if flux is not None:
        found["source.magnification"] = _magnification(fit)
    return found


def source_fluxes(model: Any, values: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Total flux of every source, counts/s, by name, from parameters and amplitudes of any shape.

    A source of pixels has unit flux, so its amplitude is the flux. None if a profile has no flux in closed form.
    """
    values = model.complete(values)
    found = {}
    for label, source in model.labelled_sources():
        amp = np.asarray(values[f"{label}.amp"], np.float64)
        if isinstance(source, Pixelated):
            found[f"{label}.flux"] = amp
            continue
        parameters = {name: np.asarray(values[f"{label}.{name}"], np.float64) for name in source.parameter_names}
        try:
            found[f"{label}.flux"] = amp * np.asarray(source.flux(**source.inputs(parameters)))
        except ParameterError:
            return None
    return found


def half_light_radii(fit: Any) -> dict[str, np.ndarray]:
    """Draws of the half-light radius of every source, arcsec, by label; see `derived`."""
    model, posterior = fit.model, fit.posterior
    values = model.complete({name: posterior.draws(name) for name in posterior.names})
    closed = {label for label, source in model.labelled_sources() if isinstance(source, Sersic)}
    found = {}
    if len(closed) < len(model.sources):
        u, _ = thinned(model, posterior, DRAWS)
        physical = {name: value.numpy() for name, value in model.physical(tf.constant(u)).items()}
        grid = source_plane(fit.target, physical, _SOURCE_PIXELS)
        found = {
            label: half_light_radius(images, grid)
            for label, images in sources_on(model, posterior, grid, DRAWS).items()
            if label not in closed
        }
    found |= {label: np.atleast_1d(values[f"{label}.R_sersic"]) for label in closed}
    return {label: found[label] for label, _ in model.labelled_sources()}


def _einstein_radii(fit: Any) -> EinsteinRadii | None:
    """Of `DRAWS` draws; None if no mass has a centre to look out from."""
    model = fit.model
    label = next(
        (
            label
            for label, profile in zip(model.mass_labels, model.lens, strict=True)
            if not isinstance(profile, Shear) and {"center_x", "center_y"} <= set(profile.parameter_names)
        ),
        None,
    )
    if label is None:
        return None
    u, _ = thinned(model, fit.posterior, DRAWS)
    values = {name: tf.cast(value, tf.float64) for name, value in model.physical(tf.constant(u)).items()}
    center = (values[f"{label}.center_{axis}"].numpy() for axis in "xy")
    grid = fit.target.grid
    reach = 2 * float(np.hypot(*grid.shape)) * grid.pixel_scale / 2
    return einstein_radii(model.total_mass(values).deflection, *center, reach)


def _magnification(fit: Any) -> dict[str, Any]:
    model = fit.model
    u, amplitudes = thinned(model, fit.posterior, DRAWS)
    images = fit.target.component_images(tf.constant(u), tf.constant(amplitudes)).numpy()
    lensed = images[:, list(model.source_amplitudes)].sum((1, 2, 3), dtype=np.float64)
    unlensed = _total_flux(
        model, {name: value.numpy() for name, value in model.physical(tf.constant(u)).items()}, amplitudes
    )
    best_point = {name: value.numpy() for name, value in model.physical(fit.optimum.u[0]).items()}
    best_flux = float(_total_flux(model, best_point, fit.best.amplitudes))
    best = float(fit.best.lensed_source.sum()) / best_flux if best_flux > 0 else None
    shining = unlensed > 0
    interval = _interval("", lensed[shining] / unlensed[shining]) if shining.any() else {"unit": ""}
    return {**interval, "best": best}


def _total_flux(model: Any, values: dict[str, np.ndarray], amplitudes: np.ndarray) -> np.ndarray:
    given = {name: amplitudes[..., i] for i, name in enumerate(model.amplitude_names)}
    return sum(source_fluxes(model, values | given).values())


def _interval(unit: str, draws: np.ndarray) -> dict[str, Any]:
    low95, low, median, high, high95 = (float(q) for q in np.quantile(draws, [0.025, 0.16, 0.5, 0.84, 0.975]))
    bounds = {"median": median, "low": low, "high": high, "low95": low95, "high95": high95}
    return {"unit": unit, **bounds, "draws": int(np.size(draws))}
