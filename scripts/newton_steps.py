"""Measure the shipped galaxy model with other numbers of Newton's steps, on validation galaxies.

The test galaxies decide nothing: the number of steps was chosen on these.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tflens.datasets.records import Dataset, load_dataset
from tflens.galaxies import GalaxyModel
from tflens.galaxies.evaluation import HIGH, LOW, band_name, held_out_figures
from tflens.measured import Record, keep_records
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
STEPS = (0, 1, 2, 3, 4, 6, 8, 12)
BANDS = {"G2": (LOW, HIGH), "G4": (LOW, HIGH), "flow_nll": (HIGH,)}
"""Figures of `held_out_figures`, and the ranges of S/N that they are kept of."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "saved_models/galaxies/2", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="a dataset (`tflens data`)")
    parser.add_argument("--galaxies", type=int, default=512, help="of the validation split (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=ROOT / "docs/results/newton_steps.json")
    arguments = parser.parse_args()
    model = GalaxyModel.load(arguments.model)
    galaxies = first(load_dataset(arguments.data, "validation"), arguments.galaxies)
    source = {
        "seed": arguments.seed,
        "command": shlex.join(["python", "scripts/newton_steps.py", *sys.argv[1:]]),
        "commit": commit(),
    }
    records = []
    for steps in STEPS:
        for record in measure(model.replace(newton_steps=steps), galaxies, arguments.seed):
            records.append({"variant": "/".join(arguments.model.parts[-2:]), **record, **source})
            print(f"{steps:>2} steps, S/N {record['snr']}: {record['id']} {record['value']:.3f}", flush=True)
    keep_records(arguments.records, records)


def measure(model: GalaxyModel, galaxies: Dataset, seed: int) -> list[Record]:
    """Medians over the galaxies of G2 and G4 of the mean of q, and the mean of -log p(z) of draws of q, in nats."""
    figures = {band: held_out_figures(model, galaxies, band, seed, optimised=0) for band in (LOW, HIGH)}
    return [
        {"id": id, "snr": band_name(band), "newton_steps": model.newton_steps, "value": figures[band][id]}
        | {"n": len(galaxies.images)}
        for id, bands in BANDS.items()
        for band in bands
    ]


def first(galaxies: Dataset, count: int) -> Dataset:
    metadata = {name: values[:count] for name, values in galaxies.metadata.items()}
    return replace(galaxies, images=galaxies.images[:count], index=galaxies.index[:count], metadata=metadata)


if __name__ == "__main__":
    main()
