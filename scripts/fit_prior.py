"""Fit the flow of a trained galaxy model anew, to draws of its aggregate posterior, and save the model with it."""

import argparse
import json
from pathlib import Path

from rich.console import Console

from tflens.datasets.records import load_dataset
from tflens.galaxies import GalaxyModel
from tflens.galaxies.condition import Condition
from tflens.galaxies.recipe import SHIPPED, Reports, read_config, train_flow
from tflens.terminal import showing_training

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "saved_models/galaxies/2", help="its autoencoder is kept")
    parser.add_argument("--config", type=Path, default=SHIPPED["galaxies"], help="flow and condition")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="a dataset (`tflens data`)")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/prior", help="checkpoints, TensorBoard's events")
    parser.add_argument("--out", type=Path, required=True, help="directory of the new version")
    arguments = parser.parse_args()
    config = read_config(arguments.config)
    galaxies = {split: load_dataset(arguments.data, split) for split in ("train", "validation")}
    model = GalaxyModel.load(arguments.model)
    with showing_training(Console(stderr=True)) as progress:
        flow = train_flow(config, model.posterior, galaxies, arguments.run, Reports(progress=progress))
    condition = Condition(**config["condition"]) if "condition" in config else None
    model.replace(flow=flow, condition=condition).save(arguments.out)
    (arguments.out / "training.json").write_text(json.dumps({"config": config}, indent=2) + "\n")


if __name__ == "__main__":
    main()
