"""Simulate the galaxies that the galaxy model is trained on: `tflens data simulate` with the settings of the project.

A run that was killed goes on where it stopped.
"""

import argparse
from pathlib import Path

from rich.console import Console

from tflens.datasets.simulated import make_dataset
from tflens.terminal import showing_count

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "cache/galaxies", help="directory (default: %(default)s)")
    parser.add_argument("--count", type=int, default=40_000, help="number of galaxies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default: %(default)s)")
    arguments = parser.parse_args()
    with showing_count(Console(stderr=True), arguments.count) as progress:
        make_dataset(arguments.out, arguments.count, arguments.seed, processes=arguments.processes, progress=progress)


if __name__ == "__main__":
    main()
