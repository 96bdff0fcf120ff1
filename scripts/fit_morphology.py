"""Fit the distribution of galaxy morphology to a catalogue of parametric fits, and write its few parameters."""

import argparse
from pathlib import Path

from astropy.table import Table

from tflens.datasets.morphology import Morphology

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "catalogue",
        nargs="?",
        type=Path,
        default=ROOT.parent / "shared/data/galaxies/parametric/cosmos_parametric_600.ecsv",
        help="ECSV table of COSMOS fits (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "tflens/datasets/cosmos_morphology.json")
    arguments = parser.parse_args()
    if not arguments.catalogue.is_file():
        parser.error(f"{arguments.catalogue}: no such catalogue; give its path as the argument")
    table = Table.read(arguments.catalogue, format="ascii.ecsv")
    table = table[table["ok"]]
    morphology = Morphology.fit({name: table[name].data for name in table.colnames})
    arguments.out.write_text(morphology.to_json() + "\n")
    print(f"{len(table)} fits, {morphology.bulge_disk_fraction:.0%} with bulge and disk -> {arguments.out}")


if __name__ == "__main__":
    main()
