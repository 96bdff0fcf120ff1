"""The pictures of a report: each with words for those who do not see it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from tflens.errors import ParameterError
from tflens.results import Results
from tflens.style import (
    LIGHT,
    RESIDUAL,
    SPREAD,
    asinh,
    color_bar,
    compass,
    draw_curves,
    on_the_sky,
    page_style,
    scale_bar,
    show,
    to_svg,
)

RESIDUAL_LIMIT = 4.0  # sigma, the ends of the residual's colour bar
_MAGNIFICATIONS = (0.3, 100.0)
# Width of a figure and of its image, and the height of what is below it, inches.
_WIDTH, _IMAGE, _BELOW = 4.4, 2.85, 0.65


class Picture(NamedTuple):
    """A figure of the page.

    Attributes:
        name: an identifier.
        title: a heading of a few words.
        caption: what is seen, and how to read it.
        svg: the figure, an element with its alternative text.
    """

    name: str
    title: str
    caption: str
    svg: str


def image_pictures(results: Results) -> list[Picture]:
    """Data, model, residual; arcs in the data and in the model, source; spreads and magnification."""
    return [_picture(results, *panel) for panel in _panels(results)]


def posterior_pictures(results: Results) -> list[Picture]:
    """Corner and trace plot of the mass; none for a model without mass."""
    from tflens.plotting import corner_figure, mass_parameters, trace_figure

    try:
        names = mass_parameters(results.posterior)
    except ParameterError:
        return []
    sizes = results.posterior.data.posterior.sizes
    what = f"{len(names)} parameters of the mass ({', '.join(names)})"
    with page_style():
        corner = corner_figure(results.posterior, points=False)
        trace = trace_figure(results.posterior)
        return [
            Picture(
                "corner",
                "Posterior of the mass",
                "Pairs of parameters: contours hold 68 % and 95 % of the draws. On the diagonal each by itself, "
                "with its median and the central 68 % as dashed lines.",
                to_svg(corner, "corner", f"Corner plot of the {what}; the table of parameters has the numbers."),
            ),
            Picture(
                "trace",
                "Chains",
                f"{sizes['chain']} chains of {sizes['draw']} draws, one over the other: chains that sample the "
                "same posterior cannot be told apart, and have no trend.",
                to_svg(trace, "trace", f"Trace plot of {sizes['chain']} chains for the {what}; R-hat is in the table."),
            ),
        ]


Panel = tuple[str, str, str, str, Callable[[Figure, Axes], None]]


def _panels(results: Results) -> Iterator[Panel]:
    """Name, title, caption, alternative text, and what draws it."""
    images, extent, mask = results.images, results.extent, results.images["mask"]
    noise = float(np.median(images["noise"][mask]))
    light, faint = asinh(images["data"][mask], noise), asinh(images["arcs"][mask], noise)
    ny, nx = mask.shape
    window = f"{nx} by {ny} pixels, x from {extent[0]:.2f} to {extent[1]:.2f} and y from {extent[2]:.2f} to "
    window += f"{extent[3]:.2f} arcsec"
    curves = " Solid line: tangential critical curve; dashed: radial." if results.curves else ""

    def picture(
        image: np.ndarray, norm: Normalize, cmap=LIGHT, label="counts/s per pixel", lines=False, extend="neither"
    ):
        def draw(figure: Figure, axes: Axes) -> None:
            show(axes, image, extent, norm, cmap)
            if lines:
                _draw_lines(results, axes, 0)
            color_bar(figure, norm, cmap, [axes], label, extend)

        return draw

    def draw_data(figure: Figure, axes: Axes) -> None:
        usable = np.where(images["noise"] < 1e7, images["data"], np.nan)
        show(axes, usable, extent, light, LIGHT, np.where(mask, 1.0, 0.45))
        scale_bar(axes, extent)
        if results.wcs is not None:
            compass(axes, *on_the_sky(results.wcs))
        color_bar(figure, light, LIGHT, [axes], "counts/s per pixel")

    unused = int((~mask).sum())
    left_out = f" {unused} pixels are not used: pale, or hatched where they hold no data." if unused else ""
    yield (
        "data",
        "Data",
        "As observed; faint light is stretched." + left_out,
        f"The observed image, {window}.",
        draw_data,
    )
    yield (
        "model",
        "Model",
        "The best model, on the scale of the data.",
        f"The best model image, {window}.",
        picture(images["model"], light),
    )
    residual = images["residual"]
    within = float(np.mean(np.abs(residual[mask]) < 3))
    chi2 = results.summary.get("diagnostics", {}).get("chi2")
    words = f"{within:.1%} of the pixels are within 3 sigma, of pure noise 99.7 % are"
    yield (
        "residual",
        "Normalised residual",
        f"(data - model) / noise: {words}" + (f"; chi² per pixel {chi2:.2f}." if chi2 is not None else "."),
        f"The normalised residual, {window}: {words}.",
        picture(
            residual,
            Normalize(-RESIDUAL_LIMIT, RESIDUAL_LIMIT),
            RESIDUAL,
            r"(data $-$ model) / noise",
            extend="both",
        ),
    )
    yield (
        "arcs",
        "Arcs in the data",
        "The data without the model's lens light and sky." + curves,
        f"The arcs: data minus the model of the lens light, {window}.",
        picture(np.where(mask, images["data"] - images["lens_light"], np.nan), faint, lines=True),
    )
    yield (
        "arcs-model",
        "Model of the arcs",
        "The lensed source of the best model." + curves,
        f"The best model of the arcs, {window}.",
        picture(images["arcs"], faint, lines=True),
    )
    yield from _source_panels(results)
    if "magnification" in images:
        size = np.clip(np.abs(images["magnification"]), *_MAGNIFICATIONS)
        yield (
            "magnification",
            "Magnification",
            "Of a point source, without its sign: it is largest on the critical curves." + curves,
            f"The absolute magnification, {window}, from below 1 to above 100 on the critical curves.",
            picture(size, LogNorm(*_MAGNIFICATIONS), SPREAD, "magnification", lines=True, extend="both"),
        )
    ratio = images["model_std"] / images["noise"]
    ratio = np.where(mask, ratio, np.nan)
    top = float(np.nanmax(ratio))
    yield (
        "model-spread",
        "Spread of the model",
        f"Standard deviation of the model image over the posterior, in units of the noise: {top:.2g} at most.",
        f"Standard deviation of the model over the noise, {window}: {top:.2g} at most.",
        picture(ratio, Normalize(0, top or 1.0), SPREAD, "spread / noise"),
    )


def _source_panels(results: Results) -> Iterator[Panel]:
    extent = results.source_extent
    side = f"{extent[1] - extent[0]:.2f} by {extent[3] - extent[2]:.2f} arcsec"
    caustics = " Solid line: tangential caustic; dashed: radial." if results.curves else ""
    for name, title, what, caption in (
        ("source", "Source", "source", "The galaxy before lensing, mean of the posterior." + caustics),
        ("source-spread", "Spread of the source", "source_std", "Standard deviation of the source over the posterior."),
    ):
        image = results.images[what]

        def draw(figure: Figure, axes: Axes, image=image, lines=name == "source") -> None:
            peak = float(image.max())
            norm = asinh(image, 0.05 * peak) if lines and peak > 0 else Normalize(0, peak or 1.0)
            if lines and peak > 0:
                norm.vmin = 0.0
            cmap = LIGHT if lines else SPREAD
            show(axes, image, extent, norm, cmap)
            scale_bar(axes, extent)
            if lines:
                _draw_lines(results, axes, 1)
            color_bar(figure, norm, cmap, [axes], "counts/s per arcsec$^2$")

        yield name, title, caption, f"{title} in its own plane, {side}.", draw


def _draw_lines(results: Results, axes: Axes, plane: int) -> None:
    for kind, lines in results.curves[plane]._asdict().items() if results.curves else ():
        draw_curves(axes, lines, kind)


def _picture(
    results: Results, name: str, title: str, caption: str, words: str, draw: Callable[[Figure, Axes], None]
) -> Picture:
    with page_style():
        left, right, bottom, top = results.source_extent if name.startswith("source") else results.extent
        height = min(_IMAGE * (top - bottom) / (right - left), 2 * _IMAGE) + _BELOW
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure, figure.subplots())
        return Picture(name, title, caption, to_svg(figure, name, words))
