"""Simulate the galaxies that the galaxy model is trained on."""

import argparse
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tflens.datasets.simulated import make_dataset

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "cache/galaxies", help="directory (default: %(default)s)")
    parser.add_argument("--count", type=int, default=12_000, help="number of galaxies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default: %(default)s)")
    arguments = parser.parse_args()
    columns = TextColumn("galaxies"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns) as bar:
        task = bar.add_task("galaxies", total=arguments.count)
        make_dataset(
            arguments.out,
            arguments.count,
            arguments.seed,
            arguments.processes,
            progress=lambda done: bar.update(task, completed=done),
        )


if __name__ == "__main__":
    main()
