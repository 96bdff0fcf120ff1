"""Small jobs that write, for `scripts/soak.py` to kill: each goes on where it stopped, and says what must come out."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from stub_fit import StubFit, posterior, summary, write_catalogue

from tflens.catalogue import read_catalogue
from tflens.config import Input, RunConfig
from tflens.many import fit_many
from tflens.outcomes import PARQUET, SUMMARY
from tflens.run import prepare

LENSES = 12
FILES = ("config.json", "posterior.nc", "summary.json")


@dataclass(frozen=True)
class JobKind:
    """A job: `work` writes to a folder, and takes up what it finds there; `content` is all that must be the same of
    two folders, by name; `check` refuses a folder that a kill has left half-written."""

    work: Callable[[Path, Path], None]
    content: Callable[[Path], dict[str, Any]]
    check: Callable[[Path], None]


def simulate(folder: Path, inputs: Path) -> None:
    """What `tflens data simulate` does: 24 galaxies in blocks of 3."""
    from tflens.datasets.simulated import make_dataset

    make_dataset(folder, 24, seed=3, stamp=32, pixel_scale=0.05, processes=1, shard_size=3)


def all_bytes(folder: Path) -> dict[str, Any]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_dataset(folder: Path) -> None:
    """What the ledger names is there, and whole."""
    ledger = folder / "dataset.json"
    if ledger.exists():
        for block in filter(None, json.loads(ledger.read_text())["blocks"]):
            sizes = {shard["bytes"] for shard in block["shards"].values() if shard["records"]}
            there = {path.stat().st_size for path in folder.glob("*.gz")}
            assert sizes <= there, f"{folder}: files of a finished block are missing"


def train(folder: Path, inputs: Path) -> None:
    """30 epochs of a model of one weight, in the loop of every training."""
    import keras
    import tensorflow as tf
    from soak_line import Line

    from tflens.galaxies.training import train as run

    points = tf.data.Dataset.from_tensor_slices(np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32))
    model = Line()
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    run(model, lambda epoch: points.shuffle(40, seed=epoch).batch(8), points.batch(40), folder, 30, patience=30)


def trained(folder: Path) -> dict[str, Any]:
    history = json.loads((folder / "history.json").read_text())
    clocks = ("seconds", "data_wait")
    found: dict[str, Any] = {"history": [{k: v for k, v in row.items() if k not in clocks} for row in history]}
    with h5py.File(folder / "best.weights.h5") as weights:
        weights.visititems(lambda name, item: found.update({name: item[()].tolist()} if hasattr(item, "shape") else {}))
    names = sorted(path.name for path in folder.rglob("*"))
    return {**found, "files": [name for name in names if not name.endswith(("-of-00001", ".index"))]}


def check_training(folder: Path) -> None:
    """Whatever is there can be read."""
    if (folder / "history.json").exists():
        json.loads((folder / "history.json").read_text())
    if (folder / "best.weights.h5").exists():
        h5py.File(folder / "best.weights.h5").close()


def fit(folder: Path, inputs: Path) -> None:
    """One lens after another, each as `tflens fit --overwrite`, with the stub."""
    for i in range(LENSES):
        place = folder / f".lens-{i}.0.fit"  # the name that the stub takes for the lens's
        job = prepare(RunConfig(Input(str(inputs / "lens.fits")), "sersic"), place, overwrite=True)
        StubFit(seconds=0.02).fit(job)


def check_fits(folder: Path) -> None:
    """Every file that has its name is whole."""
    for place in folder.glob(".lens-*"):
        _check_lens(place, place.name.removeprefix(".").split(".")[0])


def fit_all(folder: Path, inputs: Path) -> None:
    """What `tflens fit-many` does, with the stub, in two processes."""
    entries = read_catalogue(inputs / "lenses.csv")
    options = {"processes": 2, "parquet": True, "start": StubFit(seconds=0.1)}
    fit_many(entries, folder, "sersic", **options)


def fitted(folder: Path) -> dict[str, Any]:
    """All files; of the table, what is not about which call has fitted a lens."""
    found = {name: content for name, content in all_bytes(folder).items() if name not in (SUMMARY, PARQUET)}
    for name, content in found.items():
        if name.endswith("config.json"):  # lenses that share differ with what else is left to be fitted
            found[name] = {k: v for k, v in json.loads(content).items() if k != "shared"}
    with (folder / SUMMARY).open(newline="") as table:
        rows = [{k: v for k, v in row.items() if k != "status"} for row in csv.DictReader(table)]
    return {**found, "rows": rows}


def check_many(folder: Path) -> None:
    """A lens that has its folder has all of its files, its own."""
    for place in folder.glob("lens-*"):
        assert sorted(path.name for path in place.iterdir()) == sorted(FILES), f"{place}: not complete"
        _check_lens(place, place.name)


def _check_lens(place: Path, name: str) -> None:
    for file, content in (("posterior.nc", posterior(name)), ("summary.json", summary(name))):
        path = place / file
        assert not path.exists() or path.read_bytes() == content, f"{path}: not whole, or of another lens"
    if (place / "config.json").exists():
        json.loads((place / "config.json").read_text())


JOBS = {
    "data simulate": JobKind(simulate, all_bytes, check_dataset),
    "train": JobKind(train, trained, check_training),
    "fit": JobKind(fit, all_bytes, check_fits),
    "fit-many": JobKind(fit_all, fitted, check_many),
}


def make_inputs(folder: Path) -> Path:
    """What the jobs read."""
    shutil.rmtree(folder, ignore_errors=True)
    write_catalogue(folder, LENSES)
    return folder
