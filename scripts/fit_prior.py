"""Fit the flow of a trained galaxy model anew, to draws of its aggregate posterior, and save the model with it."""

import argparse
import time
import tomllib
from pathlib import Path

from train_galaxies import ROOT, show

from tflens.datasets.simulated import load_dataset
from tflens.galaxies import GalaxyModel
from tflens.galaxies.recipe import save_measured, train_flow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "saved_models/galaxies/1", help="its autoencoder is kept")
    parser.add_argument("--config", type=Path, default=ROOT / "scripts/train_galaxies.toml")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="what make_dataset.py wrote")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/prior", help="checkpoints, TensorBoard's events")
    parser.add_argument("--out", type=Path, required=True, help="directory of the new version")
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text())
    galaxies = {split: load_dataset(arguments.data, split) for split in ("train", "validation", "test")}
    model = GalaxyModel.load(arguments.model)
    start = time.perf_counter()
    flow = train_flow(config, model.encoder, galaxies, arguments.run, report=show)
    model = GalaxyModel(model.encoder, model.decoder, flow, model.pixel_scale, model.resolution)
    seconds = {"flow_seconds": time.perf_counter() - start}
    for record in save_measured(config, model, galaxies, arguments.out, seconds):
        show(record)


if __name__ == "__main__":
    main()
