"""One style for every figure: fonts, colour maps, and what an image of the sky is drawn with."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

# Perceptually uniform, or diverging about a neutral middle, and told apart by colour-blind readers.
LIGHT, RESIDUAL, SPREAD = colormaps["inferno"], colormaps["RdBu_r"], colormaps["cividis"]
BLUE, ORANGE = "#0072b2", "#d55e00"  # of Okabe & Ito
# Told apart without colour: by their dashes.
CURVES = {"tangential": "-", "radial": (0, (2, 2))}
NO_DATA = "0.82"

_INK = "#0a0b0c"  # stands for the colour of a page's text
_RC: dict[str, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.2,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "pdf.fonttype": 42,  # journals refuse type 3
    "svg.fonttype": "path",
    "savefig.dpi": 150,
    "image.interpolation": "none",
}


@contextmanager
def style(ink: str | None = None) -> Iterator[None]:
    """The settings of matplotlib that figures are made and saved with; they end with the context. A decorator as well.

    Args:
        ink: colour of text, axes and ticks; black by default, or the page's within `page_style`.

    Example:
        >>> with style():
        ...     mpl.rcParams["mathtext.fontset"]
        'stix'
    """
    ink = ink or (_INK if mpl.rcParams["text.color"] == _INK else "black")
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    ground = {"axes.facecolor": "none"} if ink == _INK else {}
    with mpl.rc_context(_RC | dict.fromkeys(inked, ink) | ground):
        yield


def page_style() -> AbstractContextManager[None]:
    """As `style`, for figures that `to_svg` turns into parts of a page."""
    return style(_INK)


def save(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes a figure, in the format that the path's suffix tells, without the time."""
    undated = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    with style():
        figure.draw_without_rendering()  # the layout settles at the second pass
        figure.savefig(path, dpi=dpi, metadata=undated.get(Path(path).suffix))


def to_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an element for an HTML page: as wide as its place, on no background, in the page's ink.

    Args:
        figure: made within `page_style`.
        name: of letters, digits and hyphens; all identifiers begin with it, so that several figures share a page.
        title: what the figure shows, for those who do not see it; plain text.
    """
    from html import escape

    buffer = io.StringIO()
    with page_style(), mpl.rc_context({"svg.hashsalt": name}):
        figure.draw_without_rendering()  # the layout settles at the second pass
        figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None, "Creator": None}, dpi=110)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # Only what is referred to needs a name, one that no other figure on the page has.
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg).replace(_INK, "currentColor")
    head = re.match(r"<svg[^>]*>", svg)[0]
    box = re.search(r'viewBox="[^"]*"', head)[0]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box} role="img" '
        f'aria-labelledby="{name}-title"><title id="{name}-title">{escape(title)}</title>'
    )
    return (opening + svg[len(head) :]).strip()


def show(
    axes: Axes, image: np.ndarray, extent: tuple[float, ...], norm: Normalize, cmap: Any, alpha: Any = None
) -> None:
    """An image on arcsec axes, first pixel at the bottom left; where it is NaN it is hatched."""
    axes.set_facecolor(NO_DATA)
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("0.68")
    masked = np.ma.masked_invalid(image)
    axes.imshow(masked, origin="lower", extent=extent, norm=norm, cmap=cmap, alpha=alpha, interpolation="nearest")
    axes.set_xlabel("x [arcsec]")
    axes.set_ylabel("y [arcsec]")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def asinh(pixels: np.ndarray, noise: float) -> Normalize:
    """Linear near the noise, logarithmic above, so that faint arcs and a bright core show in one picture."""
    return AsinhNorm(2 * noise, -noise, max(float(pixels.max()), 5 * noise))


def color_bar(
    figure: Figure, norm: Normalize, cmap: Any, axes: list[Axes], label: str, extend: str = "neither"
) -> None:
    """A colour bar beside the last of some axes, as high as its image, for all of them."""
    place = axes[-1].inset_axes((1.03, 0.0, 0.05, 1.0))
    bar = figure.colorbar(ScalarMappable(norm, cmap), cax=place, label=label, extend=extend)
    if isinstance(norm, AsinhNorm):
        bar.ax.yaxis.set_major_locator(FixedLocator(_asinh_ticks(norm)))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    if isinstance(norm, AsinhNorm | LogNorm):
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def scale_bar(axes: Axes, extent: tuple[float, ...]) -> None:
    """A bar of a round length, outlined so that it shows on light and on dark."""
    left, right, bottom, top = extent
    width, height = right - left, top - bottom
    length = max((n for n in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if n < 0.4 * width), default=0.4 * width)
    x, y = left + 0.06 * width, bottom + 0.07 * height
    outline = [withStroke(linewidth=4.5, foreground="black")]
    axes.plot(
        [x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt", path_effects=outline, zorder=5
    )
    axes.text(
        x + length / 2,
        y + 0.02 * height,
        f"{length:g}″",
        color="white",
        ha="center",
        va="bottom",
        path_effects=[withStroke(linewidth=2, foreground="black")],
        zorder=5,
    )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


def compass(axes: Axes, north: tuple[float, float], east: tuple[float, float]) -> None:
    """Arrows to the north and the east in the top right corner.

    Args:
        axes: of an image.
        north, east: directions (x, y) on the image.
    """
    outline = [withStroke(linewidth=2.5, foreground="black")]
    for name, direction in (("N", north), ("E", east)):
        unit = np.asarray(direction) / np.hypot(*direction)
        start = np.array([0.86, 0.84])
        axes.annotate(
            name,
            start,
            start + 0.12 * unit,
            "axes fraction",
            "axes fraction",
            ha="center",
            va="center",
            color="white",
            fontsize="small",
            arrowprops={"arrowstyle": "<-", "color": "white", "shrinkA": 4, "shrinkB": 0, "path_effects": outline},
            path_effects=outline,
            zorder=5,
        )


def on_the_sky(wcs: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Directions (x, y) of north and east on an image with celestial coordinates.

    Args:
        wcs: an `astropy.wcs.WCS`.

    Example:
        >>> from astropy.wcs import WCS
        >>> wcs = WCS(naxis=2)
        >>> wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---TAN", "DEC--TAN"], [-1e-5, 1e-5]
        >>> north, east = on_the_sky(wcs)
        >>> [float(v) + 0 for v in north], [float(v) + 0 for v in east]
        ([0.0, 1.0], [-1.0, 0.0])
    """
    matrix = np.linalg.inv(wcs.pixel_scale_matrix)
    east, north = (column / np.hypot(*column) for column in matrix.T)
    return tuple(north), tuple(east)


def draw_curves(axes: Axes, lines: Iterable[np.ndarray], kind: str) -> None:
    """Critical curves or caustics `[n, 2]`, outlined: tangential ones solid, radial ones dashed."""
    for line in lines:
        axes.plot(
            *line.T,
            color="white",
            linestyle=CURVES[kind],
            linewidth=1.1,
            path_effects=[withStroke(linewidth=2.2, foreground="black")],
            zorder=4,
            scalex=False,
            scaley=False,
        )


def to_pixels(figure: Figure, dpi: int = 100) -> np.ndarray:
    """A figure as an image `[rows, columns, 3]`, uint8, the first row at the top."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with style():
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        figure.draw_without_rendering()  # the layout settles at the second pass
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _asinh_ticks(norm: AsinhNorm) -> list[float]:
    """0 and a few round numbers, evenly spread to the eye."""
    top = np.floor(np.log10(norm.vmax))
    decades = [leading * 10.0 ** (top - i) for i in range(5) for leading in (5, 2, 1)]
    ticks = [0.0]
    for value in sorted(value for value in decades if value <= norm.vmax):
        if norm(value) - norm(ticks[-1]) > 0.11:
            ticks.append(float(value))
    return ticks
