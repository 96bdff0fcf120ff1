"""The pictures of the data card: real galaxies above simulated ones, and histograms of their statistics."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tflens.datasets.contact_sheet import stretched

LABELS = {"size": "size (pixels)", "r50": "r50 (pixels)", "ellipticity": "1 - b/a", "rho4": "rho4"}
COLUMNS = 8


def contact_sheet(
    real: NDArray[np.float64], simulated: NDArray[np.float64], snr: NDArray[np.float64], path: Path
) -> None:
    """Rows by turns: real galaxies in units of their noise, and below each a simulated one of its S/N `[N]`."""
    rows = 2 * -(-len(real) // COLUMNS)
    figure = Figure(figsize=(1.2 * COLUMNS + 0.5, 1.3 * rows), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, (a, b, value) in enumerate(zip(real, simulated, snr, strict=True)):
        row, column = 2 * (i // COLUMNS), i % COLUMNS
        for axes, image in zip(grid[row : row + 2, column], (a, b), strict=True):
            axes.imshow(stretched(image, 1.0), origin="lower", cmap="magma", vmin=0, vmax=1)
        grid[row, column].set_title(f"S/N {value:.0f}", fontsize=7, pad=2)
    for row in range(rows):
        text = "real" if row % 2 == 0 else "simulated"
        grid[row, 0].text(-0.06, 0.5, text, rotation=90, va="center", ha="right", transform=grid[row, 0].transAxes)
    figure.subplots_adjust(left=0.05, right=0.995, bottom=0.005, top=0.965, wspace=0.04, hspace=0.18)
    figure.savefig(path, dpi=75)


def histograms(real: dict[str, NDArray[np.float64]], simulated: dict[str, NDArray[np.float64]], path: Path) -> None:
    """One panel for each statistic but the flux; the real galaxies as steps with their Poisson errors."""
    names = [name for name in real if name != "flux"]
    figure = Figure(figsize=(9, 7.5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(3, 3).flat, names, strict=True):
        a, b = (values[name][np.isfinite(values[name])] for values in (real, simulated))
        low, high = np.percentile(np.concatenate([a, b]), [1, 99])
        edges = np.linspace(low, high, 13)
        width = edges[1] - edges[0]
        counts, _ = np.histogram(a, edges)
        axes.hist(b, edges, density=True, color="#9db4c0", label=f"simulated ({len(b)})")
        axes.errorbar(
            (edges[1:] + edges[:-1]) / 2,
            counts / (len(a) * width),
            np.sqrt(counts) / (len(a) * width),
            fmt="o",
            ms=4,
            color="#b23a48",
            label=f"real ({len(a)})",
        )
        axes.set_xlabel(LABELS.get(name, name))
        axes.set_yticks([])
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=90)
