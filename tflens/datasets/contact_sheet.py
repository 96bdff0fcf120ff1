"""A page of galaxies out of a dataset, to look at before anything is trained on it."""

from itertools import islice
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tflens.datasets.records import SPLITS, Split, read_dataset, summarize_dataset
from tflens.errors import ParameterError
from tflens.files import write_atomically


def write_contact_sheet(directory: str | Path, split: Split | None = None, count: int = 60, columns: int = 10) -> Path:
    """Writes `contact_sheet.png` into the folder of a dataset: its first galaxies, and what is known of each.

    The stretch is an arcsinh, linear below 3 sigma of the noise (without noise: below 1 % of the peak).

    Args:
        directory: of the dataset.
        split: which galaxies; that with most by default.
        count: galaxies at most.
        columns: galaxies in a row.

    Returns:
        The path of the picture.

    Raises:
        ParameterError: no dataset in the directory, or none of its galaxies is in the split.
    """
    summary = summarize_dataset(directory)
    if split is None:
        split = max(SPLITS, key=summary.kept.__getitem__)
    if not summary.kept.get(split):
        raise ParameterError(f"write_contact_sheet: the dataset in {directory} has no galaxy in its split {split}")
    galaxies = list(islice(read_dataset(directory, split, interleave=16).as_numpy_iterator(), count))
    columns = min(columns, len(galaxies))
    rows = -(-len(galaxies) // columns)
    figure = Figure(figsize=(1.3 * columns + 0.1, 1.62 * rows + 0.5), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, galaxy in zip(grid.flat, galaxies, strict=False):
        axes.imshow(stretched(galaxy["image"], galaxy.get("sigma")), origin="lower", cmap="magma", vmin=0, vmax=1)
        axes.set_title(_caption(galaxy), fontsize=6.5, pad=2)
    _draw_scale(grid[0, 0], summary.manifest.get("pixel_scale"))
    kept = ", ".join(f"{number} {name}" for name, number in summary.kept.items())
    figure.suptitle(
        f"{Path(directory).resolve().name}: {kept} (here: {split})", fontsize=9, y=1 - 0.1 / (1.62 * rows + 0.5)
    )
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.6 / (1.62 * rows + 0.5), wspace=0.04, hspace=0.2
    )
    path = Path(directory) / "contact_sheet.png"
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=130))
    return path


def stretched(image: NDArray[np.float32], sigma: float | None = None) -> NDArray[np.float32]:
    """An image on 0 to 1 for the eye: arcsinh, from -2 sigma of the noise to the brightest pixel.

    Example:
        >>> shown = stretched(np.array([[-2.0, 0.0], [3.0, 100.0]], np.float32), sigma=1.0)
        >>> float(shown.min()), float(shown.max()), bool(np.all(np.diff(shown.ravel()) > 0))
        (0.0, 1.0, True)
    """
    peak = max(float(image.max()), 0.0)
    linear, floor = (3 * float(sigma), -2 * float(sigma)) if sigma is not None else (0.01 * peak, 0.0)
    linear = linear or 1.0  # an empty image
    low, high = np.arcsinh(floor / linear), np.arcsinh(max(peak, linear) / linear)
    return np.clip((np.arcsinh(image / linear) - low) / (high - low), 0, 1).astype(np.float32)


def _caption(galaxy: dict[str, NDArray[np.float32]]) -> str:
    forms = (("snr", "S/N {:.0f}"), ("magnitude", "{:.1f} mag"), ("label", "{:.0f}"))
    parts = [form.format(float(galaxy[name])) for name, form in forms if np.isfinite(galaxy.get(name, np.nan))]
    return "  ".join(parts) or f"{int(galaxy['index'])}"


def _draw_scale(axes: Axes, pixel_scale: float | None) -> None:
    if pixel_scale:
        axes.plot([2, 2 + 1 / pixel_scale], [2.5, 2.5], color="white", lw=1.5, solid_capstyle="butt")
        axes.text(2, 4.5, '1"', color="white", fontsize=6.5)
