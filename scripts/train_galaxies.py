"""Train the galaxy model: autoencoder, then flow; measure it on held-out galaxies, and save it.

A run that was killed goes on where it stopped when it is started again.
"""

import argparse
import tomllib
from pathlib import Path

from tflens.datasets.simulated import load_dataset
from tflens.galaxies.recipe import save_measured, train_galaxy_model

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "scripts/train_galaxies.toml")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="what make_dataset.py wrote")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/galaxies", help="checkpoints, TensorBoard's events")
    parser.add_argument("--out", type=Path, default=ROOT / "saved_models/galaxies/1", help="where the model goes")
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text())
    galaxies = {split: load_dataset(arguments.data, split) for split in ("train", "validation", "test")}
    model, seconds = train_galaxy_model(config, galaxies, arguments.run, report=show)
    for record in save_measured(config, model, galaxies, arguments.out, seconds):
        show(record)


def show(record: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.5g}" for name, value in record.items()), flush=True)


if __name__ == "__main__":
    main()
