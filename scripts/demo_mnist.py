"""The demo of the talk: three handwritten digits behind lenses, found again with their lenses, and read.

Lens and digit are recovered together, started blind; a frozen classifier then reads the digit in the reconstructed
source. No part of the model has seen these digits. `make demo-mnist` calls it; the figure goes to `demo_output`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from tflens.files import write_atomically
from tflens.quiet import import_tensorflow_quietly
from tflens.terminal import showing_progress

if TYPE_CHECKING:
    from lensed_digits import Reading, System
    from matplotlib.figure import Figure

    from tflens.inference.pipeline import Fit

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2019, help="of the three systems (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo_output", help="folder of the figure")
    arguments = parser.parse_args()
    messages, results = Console(stderr=True), Console()
    if not results.is_terminal:
        results = Console(width=120)
    import_tensorflow_quietly()
    from lensed_digits import compare, fit_blind, read

    from tflens.galaxies.digit_reader import load_digit_reader

    reader = load_digit_reader("mnist")
    systems = three_systems(arguments.seed)
    figure, axes = panels(len(systems))
    records = []
    for system, row in zip(systems, axes, strict=True):
        messages.print(f"fitting {system.observation!r}")
        with showing_progress(messages) as monitor:
            result, notes = fit_blind(system, monitor=monitor)
        for note in notes:
            messages.print(note, highlight=False, soft_wrap=True)
        reading = read(result, reader)
        records.append(compare(system, result, reading))
        draw(row, system, result, reading)

    table = Table(title="three lensed digits, started blind", title_justify="left")
    for heading in (
        "theta_E truth",
        "fit",
        "error",
        "in 95 %",
        "digit",
        "read",
        "probability",
        "chi^2 arcs",
        "seconds",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for r in records:
        table.add_row(
            f"{r['theta_E_truth']:.4f}",
            f"{r['theta_E']:.4f}",
            f"{r['theta_E_error']:+.2%}",
            "yes" if r["inside_95"] else "NO",
            str(r["label"]),
            str(r["read"]),
            f"{r['probability']:.3f}",
            f"{r['chi2_arcs']:.2f}" if r["chi2_arcs"] is not None else "no arcs",
            f"{r['seconds']:.0f}",
        )
    results.print(table)
    right = sum(r["label"] == r["read"] for r in records)
    worst = max(abs(r["theta_E_error"]) for r in records)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out / "mnist.png", lambda path: figure.savefig(path, dpi=110))
    results.print(
        f"{right} of {len(records)} digits read right; theta_E within {worst:.2%}. Figure: {arguments.out}/mnist.png",
        highlight=False,
        soft_wrap=True,
    )


def three_systems(seed: int) -> "list[System]":
    """The first systems of the seed that show three different digits."""
    from lensed_digits import draw_system

    found: dict[int, System] = {}
    index = 0
    while len(found) < 3:
        system = draw_system(seed, index)
        found.setdefault(system.label, system)
        index += 1
    return list(found.values())


def panels(rows: int) -> "tuple[Figure, np.ndarray]":
    """A figure and its axes `[rows, 6]`, with a title over each column."""
    from matplotlib.figure import Figure

    titles = ("data", "model", "residual / noise", "true source", "reconstructed source", "read as")
    figure = Figure(figsize=(2.35 * len(titles), 2.35 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, len(titles), squeeze=False)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=10)
    return figure, axes


def draw(row: np.ndarray, system: "System", fit: "Fit", reading: "Reading") -> None:
    """Data, model, residual; the digit, its reconstruction, and how it is read."""
    from tflens.plotting import draw_residual

    extent, noise = fit.target.grid.extent, float(np.median(fit.target.noise))
    faint, bright = 0.0, np.arcsinh(fit.target.image.max() / (3 * noise))
    for panel, image in zip(row[:2], (fit.target.image, fit.best.image), strict=True):
        stretched = np.arcsinh(image / (3 * noise))
        panel.imshow(stretched, origin="lower", extent=extent, cmap="inferno", vmin=faint, vmax=bright)
    draw_residual(row[2], fit.best.residual, extent)
    peak = max(system.stamp.max(), reading.stamp.max())
    for panel, stamp in zip(row[3:5], (system.stamp, reading.stamp), strict=True):
        panel.imshow(stamp, origin="lower", cmap="inferno", vmin=0, vmax=peak)
    for panel in row[:5]:
        panel.set(xticks=[], yticks=[], xlabel="", ylabel="")
    colors = ["C0" if digit == system.label else "0.6" for digit in range(10)]
    row[5].bar(range(10), reading.probabilities, color=colors)
    row[5].set(xticks=range(10), ylim=(0, 1), yticks=[0, 1])
    row[5].set_box_aspect(1)


if __name__ == "__main__":
    main()
