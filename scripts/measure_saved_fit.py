"""Seconds that a whole fit takes in a SavedModel, with the neural source: to export, to load, and lens by lens.

python scripts/measure_saved_fit.py             # writes docs/results/saved_fit.json; five minutes
python scripts/update_tables.py                 # and the table of docs/serving.md from it
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tflens.measured import keep_records
from tflens.observation import Observation
from tflens.quiet import import_tensorflow_quietly
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results/saved_fit.json"
TFLENS = [sys.executable, "-c", "from tflens.cli import main; main()"]
GRID = ["--shape", "52,54", "--pixel-scale", "0.16"]
EFFORT = "--starts 8 --survivors 2 --chains 4 --warmup 40 --draws 40 --supersampling 1"
SEED = 3  # of the mocks


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [*TFLENS, "simulate", "-o", str(folder / "mocks"), "--n", "2", "--seed", str(SEED), *GRID],
            check=True,
            capture_output=True,
        )
        lenses = [Observation.from_fits(path) for path in sorted((folder / "mocks").glob("*.fits"))]
        settings = f"{' '.join(GRID)} --psf-side {len(lenses[0].psf)} {EFFORT}"
        began = time.monotonic()
        subprocess.run(
            [*TFLENS, "export", "fit", "-o", name, *settings.split()],
            check=True,
            capture_output=True,
        )
        records = [{"variant": "to export", "value": time.monotonic() - began}]
        records += calls(folder / "fit/1", lenses)
    about = {"id": "saved fit", "seed": SEED, "settings": settings, "cores": len(os.sched_getaffinity(0))}
    about |= {"command": "python scripts/measure_saved_fit.py", "commit": commit()}
    keep_records(RESULTS, [record | about for record in records])
    for record in records:
        print(record)


def calls(model: Path, lenses: list[Observation]) -> list[dict[str, Any]]:
    """A record for loading the model, and for each lens."""
    import_tensorflow_quietly()
    import tensorflow as tf

    began = time.monotonic()
    fit = tf.saved_model.load(str(model)).signatures["fit"]
    records: list[dict[str, Any]] = [{"variant": "to load", "value": time.monotonic() - began}]
    for number, lens in enumerate(lenses, 1):
        one = {name: np.asarray(getattr(lens, name), np.float32)[None] for name in ("image", "noise", "psf")}
        began = time.monotonic()
        found = fit(
            **{k: tf.constant(v) for k, v in one.items()}, mask=tf.constant(lens.mask[None]), seed=tf.constant([0])
        )
        figures = {"r_hat": float(found["max_r_hat"][0]), "chi2": float(found["chi2"][0])}
        records.append({"variant": f"call {number}", "value": time.monotonic() - began, **figures})
    return records


if __name__ == "__main__":
    main()
