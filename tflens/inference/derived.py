"""What follows from the parameters of a fit: Einstein radii, and flux, size and magnification of the source."""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tflens.einstein import EinsteinRadii, einstein_radii
from tflens.errors import ParameterError
from tflens.inference.images import half_light_radius, sources_on, thinned
from tflens.inference.posterior import draw_images, source_images, source_plane
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
    drawn = _draw(fit)
    flux = source_fluxes(model, {name: posterior.draws(name) for name in posterior.names})
    if drawn.field is not None:  # beside the only source
        flux = {name: drawn.unlensed for name in flux}
    if flux is not None:
        found |= {name: _interval("counts/s", draws) for name, draws in flux.items()}
    for label, draws in _half_light_radii(fit, drawn).items():
        if np.isfinite(draws).all():
            found[f"{label}.half_light_radius"] = _interval("arcsec", draws)
    if flux is not None:
        found["source.magnification"] = _magnification(fit, drawn)
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
    return _half_light_radii(fit, _draw(fit))


def _half_light_radii(fit: Any, drawn: "_Draws") -> dict[str, np.ndarray]:
    model, posterior = fit.model, fit.posterior
    values = model.complete({name: posterior.draws(name) for name in posterior.names})
    closed = {label for label, source in model.labelled_sources() if isinstance(source, Sersic)}
    found = {}
    if len(closed) < len(model.sources):
        physical = {name: value.numpy() for name, value in model.physical(tf.constant(drawn.u)).items()}
        grid = source_plane(fit.target, physical, _SOURCE_PIXELS)
        images = sources_on(model, posterior, grid, DRAWS)
        if drawn.field is not None:  # beside the only source
            whole = source_images(fit.target, grid, drawn.u, drawn.amplitudes, drawn.field)
            images = dict.fromkeys(images, whole)
        found = {label: half_light_radius(each, grid) for label, each in images.items() if label not in closed}
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


class _Draws(NamedTuple):
    """Some draws of a fit.

    Attributes:
        u, amplitudes: `[draws, dim]` and `[draws, components]`.
        field: what the source has beside what its network draws, see `draw_images`.
        lensed, unlensed: light of the arcs in the frame and of all sources (None if that has no closed form), counts/s
            `[draws]`.
    """

    u: np.ndarray
    amplitudes: np.ndarray
    field: np.ndarray | None
    lensed: np.ndarray
    unlensed: np.ndarray | None


def _draw(fit: Any) -> _Draws:
    rng = np.random.default_rng([fit.settings.seed, 3])
    return _light_at(fit, *thinned(fit.model, fit.posterior, DRAWS), rng)


def _light_at(fit: Any, u: np.ndarray, amplitudes: np.ndarray, rng: np.random.Generator | None) -> _Draws:
    """What goes with points; the mean of the field without a generator."""
    images, field = draw_images(fit.target, u, amplitudes, rng)
    lensed = images[:, list(fit.model.source_amplitudes)].sum((1, 2, 3), dtype=np.float64)
    unlensed = _total_flux(fit.model, {n: v.numpy() for n, v in fit.model.physical(tf.constant(u)).items()}, amplitudes)
    if unlensed is not None and field is not None:
        unlensed = unlensed + field.sum((1, 2))
    return _Draws(u, amplitudes, field, lensed, unlensed)


def _magnification(fit: Any, drawn: _Draws) -> dict[str, Any]:
    best = _light_at(fit, fit.optimum.u[:1], fit.best.amplitudes[None], None)
    shining = drawn.unlensed > 0
    ratio = drawn.lensed[shining] / drawn.unlensed[shining]
    return {
        **(_interval("", ratio) if shining.any() else {"unit": ""}),
        "best": float(best.lensed[0] / best.unlensed[0]) if best.unlensed[0] > 0 else None,
    }


def _total_flux(model: Any, values: dict[str, np.ndarray], amplitudes: np.ndarray) -> np.ndarray | None:
    given = {name: amplitudes[..., i] for i, name in enumerate(model.amplitude_names)}
    fluxes = source_fluxes(model, values | given)
    return None if fluxes is None else sum(fluxes.values())


def _interval(unit: str, draws: np.ndarray) -> dict[str, Any]:
    low95, low, median, high, high95 = (float(q) for q in np.quantile(draws, [0.025, 0.16, 0.5, 0.84, 0.975]))
    bounds = {"median": median, "low": low, "high": high, "low95": low95, "high95": high95}
    return {"unit": unit, **bounds, "draws": int(np.size(draws))}
