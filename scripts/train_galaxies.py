"""Train the galaxy model: autoencoder, then flow, then, where the configuration says so, both together; and save it.

A run that was killed goes on where it stopped when it is started again.
"""

import argparse
import json
from pathlib import Path

from tflens.datasets.records import load_dataset
from tflens.galaxies.recipe import Reports, read_config, train_galaxy_model

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=ROOT / "scripts/train_galaxies.toml")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="a dataset (`tflens data`)")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/galaxies", help="checkpoints, TensorBoard's events")
    parser.add_argument("--out", type=Path, default=ROOT / "saved_models/galaxies/2", help="where the model goes")
    parser.add_argument("--profile", type=int, nargs=2, metavar=("FIRST", "LAST"), help="steps for the profiler")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    galaxies = {split: load_dataset(arguments.data, split) for split in ("train", "validation")}
    model, seconds = train_galaxy_model(config, galaxies, arguments.run, Reports(show, profile=arguments.profile))
    model.save(arguments.out)
    training = {"config": config, "dataset": galaxies["train"].manifest, "seconds": seconds}
    (arguments.out / "training.json").write_text(json.dumps(training, indent=2) + "\n")


def show(record: dict[str, float]) -> None:
    print("  ".join(f"{name} {value:.5g}" for name, value in record.items()), flush=True)


if __name__ == "__main__":
    main()
