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
from tflens.config import Input, RunConfig
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
    tables: Mapping[str, Any] | None = None,
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
        tables: of a model of one's own, as `RunConfig` takes them, instead of `source`.

    Raises:
        ParameterError: the folder cannot be written to, or holds fits of other input, model or settings; nothing has
            been done then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"{folder}: the output folder cannot be made ({error.strerror}). Choose another."
        ) from None
    configs = [RunConfig(entry.input, source, dict(settings or {}), tables=tables) for entry in entries]
    kept = [_kept(folder / entry.name, config) for entry, config in zip(entries, configs, strict=True)]
    outcomes: list[Outcome] = []
    for index, entry in enumerate(entries):
        outcome = kept[index] or _fit(entry.name, configs[index], folder)
        outcomes.append(outcome)
        write_atomically(folder / SUMMARY, lambda path: _write(path, outcomes))
        tell(index, outcome)
    return outcomes


def _kept(place: Path, config: RunConfig) -> Outcome | None:
    """The outcome of an earlier call, None if there is none."""
    if not place.exists():
        return None
    earlier = RunConfig.load(place / "config.json")
    differing = [name for name, value in config.settings.items() if earlier.settings.get(name) != value]
    if earlier.source != config.source:
        differing.append("source")
    if earlier.tables != config.tables:
        differing.append("model")
    if _digests(config.input) != dict(earlier.input.sha256):
        differing.append("input")
    if differing:
        raise ParameterError(
            f"{place}: holds a fit of another {', '.join(differing)}. Choose another output folder, or remove it."
        )
    summary = json.loads((place / "summary.json").read_text())
    return Outcome(place.name, "kept", _verdict(summary), summary)


def _digests(files: Input) -> Mapping[str, str] | None:
    try:
        return files.with_digests().sha256
    except TflensError:  # a file is not there any more
        return None


def _fit(name: str, config: RunConfig, folder: Path) -> Outcome:
    work = folder / f".{name}.in-work"
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    try:
        job = prepare(config, work, note=lambda message: None)
        execute(job, tensorboard=False, note=lambda message: None)
    except TflensError as error:
        shutil.rmtree(work, ignore_errors=True)
        return Outcome(name, "refused", str(error))
    except Exception as error:  # one lens must not end the night of all others
        shutil.rmtree(work, ignore_errors=True)
        (folder / f"{name}.error.txt").write_text(traceback.format_exc())
        return Outcome(name, "failed", f"{type(error).__name__}: {error} (see {name}.error.txt)")
    (folder / f"{name}.error.txt").unlink(missing_ok=True)
    work.rename(folder / name)
    summary = json.loads((folder / name / "summary.json").read_text())
    return Outcome(name, "fitted", _verdict(summary), summary)


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
