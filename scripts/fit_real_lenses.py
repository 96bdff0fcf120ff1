"""Fit every real lens of a folder blind, and compare with the published Einstein radii.

    python scripts/fit_real_lenses.py --data ../shared/data/lenses --out runs/real_lenses

Each FITS file is fitted as `tflens fit` would, with default settings but for the noise, whose correlation and size are
measured on the blank sky of the image (`--noise-correlation auto --noise-scale auto`); the published radius (THETA_E of
the header) is read only afterwards. Lenses that are finished in `--out` are not fitted again. The table is printed, and
written with the commit of each fit to `docs/results/real_lenses.json`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from astropy.io import fits
from rich.console import Console
from rich.table import Table

from tflens.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python scripts/fit_real_lenses.py --data DIR --out DIR"
NOISE = ("--noise-correlation", "auto", "--noise-scale", "auto")  # drizzled images; maps of noise that are too large
REACH = 0.03  # of the published Einstein radius


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of FITS files with THETA_E in the header")
    parser.add_argument("--out", type=Path, required=True, help="one folder of results for each file")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/real_lenses.json")
    arguments = parser.parse_args()
    records = []
    for path in sorted(arguments.data.glob("*.fits")):
        folder = arguments.out / path.stem
        if not (folder / "summary.json").exists():
            run(path, folder)
        records.append(compare(path, folder))
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.results, lambda file: file.write_text(json.dumps(records, indent=2) + "\n"))
    show(records)


def run(path: Path, folder: Path) -> None:
    # In a process of its own: one that has compiled the programs of four shapes has taken 11 GB, and gives none back.
    command = [sys.executable, "-m", "tflens", "fit", str(path), "--out", str(folder), "--overwrite", *NOISE]
    subprocess.run(command, check=True)


def compare(path: Path, folder: Path) -> dict:
    """The record of one lens, from the files that its fit wrote."""
    summary = json.loads((folder / "summary.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    published = float(fits.getheader(path)["THETA_E"])
    theta_E, diagnostics = summary["parameters"]["lens.theta_E"], summary["diagnostics"]
    return {
        "id": "theta_E",
        "variant": summary["name"],
        "value": theta_E["median"],
        "spread": [theta_E["low"], theta_E["high"]],
        "published": published,
        "error": theta_E["median"] / published - 1,
        "reach": REACH,
        "chi2_arcs": diagnostics["chi2_arcs"],
        "chi2": diagnostics["chi2"],
        "arc_pixels": diagnostics["arc_pixels"],
        "r_hat": theta_E["r_hat"],
        "max_r_hat": diagnostics["max_r_hat"],
        "min_ess": diagnostics["min_ess"],
        "acceptance": diagnostics["acceptance"],
        "divergences": diagnostics["divergences"],
        "starts_agreeing": f"{diagnostics['starts_agreeing']} of {diagnostics['starts_polished']}",
        "latent_norm": diagnostics["latent_norm"],
        "seconds": sum(summary["seconds"].values()),
        "seed": config["settings"]["seed"],
        "draws": config["settings"]["draws"],
        "command": COMMAND,
        "commit": config["commit"],
    }


def show(records: list[dict]) -> None:
    table = Table(title="real lenses, started blind", title_justify="left")
    for heading in ("lens", "theta_E", "68 %", "published", "error", "chi^2 arcs", "R-hat", "worst R-hat", "seconds"):
        table.add_column(heading, justify="left" if heading == "lens" else "right", no_wrap=True)
    for r in records:
        low, high = r["spread"]
        table.add_row(
            r["variant"],
            f"{r['value']:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{r['published']:.3f}",
            f"{r['error']:+.1%}" + ("" if abs(r["error"]) <= r["reach"] else " !"),
            f"{r['chi2_arcs']:.2f}" if r["chi2_arcs"] is not None else "no arcs",
            f"{r['r_hat']:.3f}",
            f"{r['max_r_hat']:.2f}",
            f"{r['seconds']:.0f}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
