"""Figures of a fit. Each function returns a matplotlib `Figure` and leaves matplotlib's global state alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from tflens.critical import Curves
from tflens.errors import ParameterError
from tflens.inference.pipeline import Fit
from tflens.inference.posterior import Posterior
from tflens.style import (
    BLUE,
    LIGHT,
    ORANGE,
    RESIDUAL,
    SPREAD,
    asinh,
    color_bar,
    compass,
    draw_curves,
    on_the_sky,
    scale_bar,
    show,
    style,
)

RESIDUAL_LIMIT = 4.0  # sigma, the ends of the residual's colour bar

_SYMBOLS = {
    "theta_E": r"$\theta_E$",
    "gamma": r"$\gamma$",
    "e1": "$e_1$",
    "e2": "$e_2$",
    "center_x": "$x$",
    "center_y": "$y$",
    "gamma1": r"$\gamma_1$",
    "gamma2": r"$\gamma_2$",
}


@style()
def fit_figure(fit: Fit, curves: tuple[Curves, Curves] | None = None) -> Figure:
    """The fit at a glance: data, model, normalised residual; arcs in the data, arcs in the model, and the source.

    Data and model share one colour scale, the two pictures of the arcs another. Pixels that the fit did not use are
    hatched, in the data pale. The source is the posterior's mean. Without `curves`, dashed ellipses are R = theta_E.

    Args:
        fit: of `tflens.fit`.
        curves: critical curves and caustics, drawn over the arcs and the source; tangential ones solid, radial dashed.
    """
    figure = Figure(figsize=(13.5, 8.4), layout="constrained")
    (data, model, residual), (arcs, lensed, source) = figure.subplots(2, 3)
    target, best = fit.target, fit.best
    extent, used = target.grid.extent, target.mask
    noise = float(np.median(target.noise[used]))

    light = asinh(target.image[used], noise)
    show(data, np.where(_has_data(target), target.image, np.nan), extent, light, LIGHT, np.where(used, 1.0, 0.45))
    show(model, best.image, extent, light, LIGHT)
    color_bar(figure, light, LIGHT, [data, model], "counts/s per pixel")
    draw_residual(residual, best.residual, extent)
    color_bar(figure, residual.images[0].norm, RESIDUAL, [residual], r"(data $-$ model) / noise", extend="both")

    faint = asinh(best.lensed_source[used], noise)
    show(arcs, np.where(used, target.image - best.lens_light, np.nan), extent, faint, LIGHT)
    show(lensed, best.lensed_source, extent, faint, LIGHT)
    color_bar(figure, faint, LIGHT, [arcs, lensed], "counts/s per pixel")
    source_norm = draw_source(source, fit.posterior)
    color_bar(figure, source_norm, LIGHT, [source], "counts/s per arcsec$^2$")

    medians = {name: float(np.median(fit.posterior.draws(name))) for name in fit.posterior.names}
    values = fit.model.complete(medians)
    for axes in () if curves else (data, arcs, lensed):
        _draw_einstein_ellipse(axes, values)
    for kind in Curves._fields if curves else ():
        for axes, lines in ((arcs, curves[0]), (lensed, curves[0]), (source, curves[1])):
            draw_curves(axes, getattr(lines, kind), kind)
    scale_bar(data, extent)
    if fit.observation.wcs is not None:
        compass(data, *on_the_sky(fit.observation.wcs))
    titles = {
        data: "data",
        model: "model",
        residual: rf"residual, $\chi^2$ per pixel {best.chi2:.2f}",
        arcs: "data $-$ lens light",
        lensed: "model of the arcs",
        source: "source, before lensing",
    }
    for axes, title in titles.items():
        axes.set_title(title)
    figure.suptitle(_headline(fit), fontsize=14)
    return figure


@style()
def corner_figure(
    posterior: Posterior, truths: Mapping[str, float] | None = None, points: bool | None = None
) -> Figure:
    """Corner plot of the mass parameters (`lens.*`, `shear.*`); titles give the median and the central 68 %.

    Args:
        posterior: the draws.
        truths: true values by name, drawn as lines; names that are missing have none.
        points: whether draws outside of the contours are shown; if None, where there are fewer than 2000.

    Raises:
        ParameterError: the posterior has no mass parameters.
    """
    import corner  # imports pyplot, which the other figures do without

    names = mass_parameters(posterior)
    draws = np.stack([posterior.draws(name) for name in names], -1).astype(float)
    figure = Figure(figsize=(2.0 * len(names) + 0.6,) * 2)
    corner.corner(
        draws,
        fig=figure,
        labels=[_label(name) for name in names],
        quantiles=[0.16, 0.5, 0.84],
        truths=None if truths is None else [truths.get(name) for name in names],
        truth_color=ORANGE,
        color=BLUE,
        show_titles=True,
        titles=[_symbol(name) for name in names],
        title_fmt=None,
        title_kwargs={"fontsize": 11},
        label_kwargs={"fontsize": 12},
        plot_datapoints=len(draws) < 2000 if points is None else points,
        fill_contours=True,
        levels=(0.68, 0.95),
        smooth=1.0,
        max_n_ticks=3,
        hist_kwargs={"color": rcParams["text.color"]},
    )
    for i, name in enumerate(names):
        low, median, high = np.quantile(draws[:, i], [0.16, 0.5, 0.84])
        figure.axes[i * (len(names) + 1)].set_title(f"{_symbol(name)} = {format_interval(median, low, high)}")
    figure.align_labels()
    return figure


@style()
def trace_figure(posterior: Posterior) -> Figure:
    """Every chain of the mass parameters, draw by draw: chains that sample alike cannot be told apart.

    Raises:
        ParameterError: the posterior has no mass parameters.
    """
    names = mass_parameters(posterior)
    figure = Figure(figsize=(10, 1.3 * len(names) + 0.5), layout="constrained")
    rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(rows, names, strict=True):
        chains = posterior.data.posterior[name].to_numpy()
        axes.set_prop_cycle(color=SPREAD(np.linspace(0.25, 0.8, len(chains))))
        axes.plot(chains.T, linewidth=0.6, alpha=0.8, rasterized=True)
        axes.set_ylabel(_label(name))
    rows[-1].set_xlabel("draw")
    return figure


@style()
def progress_figure(residual: np.ndarray, extent: tuple[float, ...]) -> Figure:
    """The normalised residual of a running fit."""
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.subplots()
    draw_residual(axes, residual, extent)
    color_bar(figure, axes.images[0].norm, RESIDUAL, [axes], r"(data $-$ model) / noise", extend="both")
    return figure


@style()
def source_figure(image: np.ndarray, extent: tuple[float, ...]) -> Figure:
    """A source, counts/s/arcsec^2."""
    figure = Figure(figsize=(4.6, 4.0), layout="constrained")
    axes = figure.subplots()
    color_bar(figure, _draw_source(axes, image, extent), LIGHT, [axes], "counts/s per arcsec$^2$")
    return figure


def draw_residual(axes: Axes, residual: np.ndarray, extent: tuple[float, ...]) -> None:
    """Draws a normalised residual, NaN where masked, between +-4 sigma."""
    show(axes, residual, extent, Normalize(-RESIDUAL_LIMIT, RESIDUAL_LIMIT), RESIDUAL)


def draw_source(axes: Axes, posterior: Posterior) -> Normalize:
    """Draws the posterior mean of the source in its own plane; returns the colour scale."""
    mean = posterior.data.predictions["source_mean"]
    x, y = (mean[f"{axis}_source"].to_numpy() for axis in "xy")
    half_x, half_y = (x[1] - x[0]) / 2, (y[1] - y[0]) / 2
    extent = (x[0] - half_x, x[-1] + half_x, y[0] - half_y, y[-1] + half_y)
    return _draw_source(axes, mean.to_numpy().reshape(len(y), len(x)), extent)


def mass_parameters(posterior: Posterior) -> list[str]:
    """Names of the parameters of the mass: those of the lens, then of the shear.

    Raises:
        ParameterError: there are none.
    """
    names = [
        name
        for part in ("lens", "shear")
        for name in posterior.names
        if name.split(".")[0].rstrip("0123456789") == part
    ]
    if not names:
        raise ParameterError(f"the posterior has no parameters lens.* or shear.*, only {', '.join(posterior.names)}")
    return names


def format_interval(median: float, low: float, high: float) -> str:
    """Median and the distances to the ends of an interval, with two digits of the smaller.

    Example:
        >>> format_interval(1.03712, 1.03398, 1.04133)
        '$1.0371_{-0.0031}^{+0.0042}$'
    """
    decimals = interval_decimals(low, median, high)
    return f"${median:.{decimals}f}_{{-{median - low:.{decimals}f}}}^{{+{high - median:.{decimals}f}}}$"


def interval_decimals(low: float, median: float, high: float) -> int:
    """How many decimals show two digits of the smaller half of an interval.

    Example:
        >>> interval_decimals(1.03398, 1.03712, 1.04133), interval_decimals(90.0, 100.0, 110.0)
        (4, 0)
    """
    smaller = min((half for half in (median - low, high - median) if half > 0), default=0.0)
    return int(np.clip(1 - np.floor(np.log10(smaller)), 0, 8)) if smaller > 0 else 4


def _draw_source(axes: Axes, image: np.ndarray, extent: tuple[float, ...]) -> Normalize:
    peak = float(image.max())
    norm = AsinhNorm(0.1 * peak, 0.0, peak) if peak > 0 else Normalize(0, 1)
    show(axes, image, extent, norm, LIGHT)
    scale_bar(axes, extent)
    return norm


def _draw_einstein_ellipse(axes: Axes, values: Mapping[str, float]) -> None:
    if not {"lens.theta_E", "lens.e1", "lens.e2"} <= set(values):
        return
    e1, e2, radius = values["lens.e1"], values["lens.e2"], values["lens.theta_E"]
    e = float(np.hypot(e1, e2))
    root_q = float(np.sqrt((1 - e) / (1 + e)))
    axes.add_patch(
        Ellipse(
            (values["lens.center_x"], values["lens.center_y"]),
            2 * radius / root_q,
            2 * radius * root_q,
            angle=float(np.degrees(np.arctan2(e2, e1) / 2)),
            fill=False,
            edgecolor="white",
            linestyle=(0, (4, 4)),
            linewidth=0.9,
        )
    )


def _has_data(target: Any) -> np.ndarray:
    return target.observation.mask[target.frame]


def _headline(fit: Fit) -> str:
    parts = [fit.observation.name]
    if "lens.theta_E" in fit.posterior.names:
        low, median, high = np.quantile(fit.posterior.draws("lens.theta_E"), [0.16, 0.5, 0.84])
        parts.append(rf"$\theta_E$ = {format_interval(median, low, high)}" + '"')
    chi2_arcs = fit.diagnostics()["chi2_arcs"]
    if chi2_arcs is not None:
        parts.append(rf"$\chi^2$ per pixel in the arcs {chi2_arcs:.2f}")
    # A name of a file must not be read as mathematics.
    parts[0] = parts[0].replace("$", r"\$")
    return "     ".join(part for part in parts if part)


def _symbol(name: str) -> str:
    label, _, leaf = name.partition(".")
    return _SYMBOLS.get(leaf, leaf) + ("" if label in ("lens", "shear") else f" ({label})")


def _label(name: str) -> str:
    return _symbol(name) + (' ["]' if name.endswith(("theta_E", "center_x", "center_y")) else "")
