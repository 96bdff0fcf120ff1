"""Many fits, one after another: finished ones are kept, bad input is reported and skipped."""

import csv
import json
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tflens.catalogue import Entry
from tflens.config import RunConfig
from tflens.errors import ParameterError, TflensError
from tflens.files import write_atomically
from tflens.run import execute, prepare

SUMMARY = "summary.csv"
"""The table of all lenses, in the folder of the results."""


@dataclass(frozen=True)
class Outcome:
    """What became of one lens.

    Attributes:
        name: of the lens, and of the folder with its results.
        status: "fitted" now; "kept" from an earlier call; "refused", its input cannot be right; "failed", an error of
            the fit itself.
        words: the verdict on the fit, or the error.
        summary: content of the fit's `summary.json`, None without a fit.
    """

    name: str
    status: Literal["fitted", "kept", "refused", "failed"]
    words: str
    summary: Mapping[str, Any] | None = None


def fit_many(
    entries: Sequence[Entry],
    folder: Path,
    source: str = "neural",
    settings: Mapping[str, int] | None = None,
    tell: Callable[[int, Outcome], None] = lambda index, outcome: None,
) -> list[Outcome]:
    """Fits every lens of a catalogue, and writes `folder/NAME/` for each and `folder/summary.csv` for all.

    A lens's folder appears when its fit is complete, so that a call that was killed loses the lens in work at most;
    those that are there are not fitted again. The table is written anew after every lens.

    Args:
        entries: from `tflens.catalogue.read_catalogue`.
        folder: for the results; made if missing.
        source: of every lens, "neural" or "sersic".
        settings: arguments of `FitSettings`.
        tell: called with the place in the catalogue and the outcome, as soon as there is one.

    Raises:
        ParameterError: the folder cannot be written to, or holds fits of other input, source or settings; nothing has
            been done then.
    """
    settings = dict(settings or {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"{folder}: the output folder cannot be made ({error.strerror}). Choose another."
        ) from None
    kept = {entry.name: _kept(entry, folder, source, settings) for entry in entries}
    outcomes: list[Outcome] = []
    for index, entry in enumerate(entries):
        outcome = kept[entry.name] or _fit(entry, folder, source, settings)
        outcomes.append(outcome)
        write_atomically(folder / SUMMARY, lambda path: _write(path, outcomes))
        tell(index, outcome)
    return outcomes


def _kept(entry: Entry, folder: Path, source: str, settings: Mapping[str, int]) -> Outcome | None:
    """The outcome of an earlier call, None if there is none."""
    place = folder / entry.name
    if not place.exists():
        return None
    earlier = RunConfig.load(place / "config.json")
    differing = [name for name, value in settings.items() if earlier.settings.get(name) != value]
    if earlier.source != source:
        differing.append("source")
    if _digests(entry) != dict(earlier.input.sha256):
        differing.append("input")
    if differing:
        raise ParameterError(
            f"{place}: holds a fit of another {', '.join(differing)}. Choose another output folder, or remove it."
        )
    summary = json.loads((place / "summary.json").read_text())
    return Outcome(entry.name, "kept", _verdict(summary), summary)


def _digests(entry: Entry) -> Mapping[str, str] | None:
    try:
        return entry.input.with_digests().sha256
    except TflensError:  # a file is not there any more
        return None


def _fit(entry: Entry, folder: Path, source: str, settings: Mapping[str, int]) -> Outcome:
    work = folder / f".{entry.name}.in-work"
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    try:
        job = prepare(RunConfig(entry.input, source, settings), work, note=lambda message: None)
        execute(job, tensorboard=False, note=lambda message: None)
    except TflensError as error:
        shutil.rmtree(work, ignore_errors=True)
        return Outcome(entry.name, "refused", str(error))
    except Exception as error:  # one lens must not end the night of all others
        shutil.rmtree(work, ignore_errors=True)
        (folder / f"{entry.name}.error.txt").write_text(traceback.format_exc())
        return Outcome(entry.name, "failed", f"{type(error).__name__}: {error} (see {entry.name}.error.txt)")
    (folder / f"{entry.name}.error.txt").unlink(missing_ok=True)
    work.rename(folder / entry.name)
    summary = json.loads((folder / entry.name / "summary.json").read_text())
    return Outcome(entry.name, "fitted", _verdict(summary), summary)


def _verdict(summary: Mapping[str, Any]) -> str:
    from tflens.inference.check import Finding, verdict

    return verdict([Finding(**found) for found in summary["check"]])


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    """A row for each lens: what became of it, median and 68 % interval of every parameter, and the diagnostics."""
    rows = [_row(outcome) for outcome in outcomes]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {name: value for name, value in asdict(outcome).items() if name != "summary"}
    if outcome.summary is None:
        return row
    for name, parameter in outcome.summary["parameters"].items():
        row |= {f"{name}_{part}": parameter[part] for part in ("median", "low", "high")}
    return row | outcome.summary["diagnostics"] | {"seconds": sum(outcome.summary["seconds"].values())}
