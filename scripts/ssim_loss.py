"""Find where in the stamp the shipped galaxy model loses structural similarity (G3), on validation galaxies.

For rings around the middle of the stamp: the share of all loss, and how far the model's level is off, both in units of
the galaxy's peak, beside the noise that the data have there.
"""

import argparse
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tflens.datasets.pipeline import observed_galaxies
from tflens.datasets.records import load_dataset
from tflens.galaxies import GalaxyModel
from tflens.galaxies.evaluation import HIGH, LOW, band_name
from tflens.galaxies.metrics import ssim_map, window_means
from tflens.measured import Record, keep_records
from tflens.psf import PSF
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
RINGS = (0, 6, 12, 20, 28, 50)  # pixels from the middle of the stamp
WINDOW = 8
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "saved_models/galaxies/2", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="a dataset (`tflens data`)")
    parser.add_argument("--galaxies", type=int, default=512, help="of the validation split (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=ROOT / "docs/results/ssim_loss.json")
    arguments = parser.parse_args()
    model = GalaxyModel.load(arguments.model)
    galaxies = load_dataset(arguments.data, "validation").images[: arguments.galaxies]
    source = {
        "id": "ssim_loss",
        "variant": "/".join(arguments.model.parts[-2:]),
        "n": len(galaxies),
        "seed": arguments.seed,
        "command": shlex.join(["python", "scripts/ssim_loss.py", *sys.argv[1:]]),
        "commit": commit(),
    }
    records = []
    for band in (LOW, HIGH):
        for record in measure(model, galaxies, band, arguments.seed):
            records.append({**record, "snr": band_name(band), **source})
            print({name: records[-1][name] for name in ("snr", "ring", "value", "level_error", "noise")}, flush=True)
    keep_records(arguments.records, records)


def measure(model: GalaxyModel, galaxies: NDArray[np.float32], band: tuple[float, float], seed: int) -> list[Record]:
    """For each ring: its share of the loss, and root mean squares over its windows of the error of their mean and of
    the noise of that mean, in units of the peak."""
    psf = PSF(model.psf, (model.stamp_size,) * 2)
    truth, seen, sigma = [], [], []
    for batch in observed_galaxies(galaxies, model.psf, BATCH, seed=seed, snr_range=band, augment=False):
        mean, _ = model.encode(batch["image"], batch["sigma"])
        truth.append(batch["signal"].numpy())
        seen.append(psf.convolve(model.decode(mean)).numpy())
        sigma.append(batch["sigma"].numpy())
    truth, seen, sigma = (np.concatenate(parts).astype(np.float64) for parts in (truth, seen, sigma))
    peak = truth.max((1, 2))
    loss = 1 - ssim_map(truth, seen, WINDOW)
    error = (window_means(seen, WINDOW) - window_means(truth, WINDOW)) / peak[:, None, None]
    y, x = np.mgrid[: loss.shape[1], : loss.shape[2]] - (np.array(loss.shape[1:])[:, None, None] - 1) / 2
    records = []
    for low, high in pairwise(RINGS):
        ring = (np.hypot(x, y) >= low) & (np.hypot(x, y) < high)
        records.append(
            {
                "ring": [low, high],
                "value": float(loss[:, ring].sum() / loss.sum()),
                "windows": float(ring.mean()),
                "level_error": float(np.sqrt(np.mean(error[:, ring] ** 2))),
                "noise": float(np.sqrt(np.mean((sigma / peak) ** 2)) / WINDOW),
            }
        )
    return records


if __name__ == "__main__":
    main()
