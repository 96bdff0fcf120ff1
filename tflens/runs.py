"""Finished runs side by side: what fits and trainings left in their folders, in a few numbers each.

Reads JSON alone: TensorFlow is not loaded.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tflens.errors import ParameterError


@dataclass(frozen=True)
class FitRun:
    """A fit.

    Attributes:
        run: its folder.
        name: of the observation.
        parameters: for each that was asked for, median and central 68 % `[median, low, high]`, or None.
        chi2, chi2_arcs: per pixel, of all that were fitted and of the arcs.
        max_r_hat, min_ess: worst of all that was sampled.
        level: worst of what the checks found: "ok", "note", "warning" or "failure".
        verdict: of the checks, in words.
        seconds: of the fit.
    """

    run: str
    name: str
    parameters: dict[str, list[float] | None]
    chi2: float | None
    chi2_arcs: float | None
    max_r_hat: float | None
    min_ess: float | None
    level: str
    verdict: str
    seconds: float


@dataclass(frozen=True)
class TrainingRun:
    """A training, or one stage of one.

    Attributes:
        run: its folder.
        epochs: done so far.
        loss: of the training data in the last epoch.
        validation_loss: the lowest.
        best_epoch: that had it.
        seconds: of all epochs.
        metrics: other means of the validation data at the best epoch, by name.
    """

    run: str
    epochs: int
    loss: float
    validation_loss: float
    best_epoch: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)


def find_runs(folders: Sequence[str | Path]) -> list[Path]:
    """The files that runs left in folders: `summary.json` of fits, `history.json` of trainings.

    A folder that is no run itself stands for all runs inside of it, as that of `tflens fit-many` does.

    Raises:
        ParameterError: a folder does not exist, or has no run.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ParameterError(f"{folder}: the folder of the run does not exist. Check the path.")
        inside = list(_results(folder)) or sorted(
            path for name in ("summary.json", "history.json") for path in folder.rglob(name)
        )
        if not inside:
            raise ParameterError(
                f"{folder}: has no run: neither summary.json of a fit nor history.json of a training is in it."
            )
        found += [path for path in inside if path not in found]
    return found


def read_runs(
    folders: Sequence[str | Path], parameters: Sequence[str] = ("lens.theta_E",)
) -> tuple[list[FitRun], list[TrainingRun]]:
    """All runs of the folders.

    Args:
        folders: as `find_runs` takes them.
        parameters: of fits, by full name.

    Raises:
        ParameterError: as `find_runs`; or a file is none that a run wrote; or no fit has a parameter of that name.
    """
    fits, trainings = [], []
    for path in find_runs(folders):
        try:
            content = json.loads(path.read_text())
            if path.name == "summary.json":
                fits.append(_fit(path.parent, content, parameters))
            else:
                trainings.append(_training(path.parent, content))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise ParameterError(f"{path}: is not what a run of tflens writes ({error!r})") from None
    for name in parameters if fits else ():
        if all(run.parameters[name] is None for run in fits):
            raise ParameterError(f"no fit has a parameter {name!r}; table.csv in its folder lists those it has")
    return fits, trainings


def _results(folder: Path) -> Iterator[Path]:
    for name in ("summary.json", "history.json"):
        if (folder / name).is_file():
            yield folder / name


def _fit(folder: Path, summary: dict[str, Any], names: Sequence[str]) -> FitRun:
    from tflens.inference.check import LEVELS, Finding, verdict

    rows, diagnostics = summary["parameters"], summary["diagnostics"]
    findings = [Finding(**each) for each in summary["check"]]
    return FitRun(
        run=str(folder),
        name=summary["name"],
        parameters={
            name: [rows[name][key] for key in ("median", "low", "high")] if name in rows else None for name in names
        },
        chi2=diagnostics["chi2"],
        chi2_arcs=diagnostics["chi2_arcs"],
        max_r_hat=diagnostics["max_r_hat"],
        min_ess=diagnostics["min_ess"],
        level=max((each.level for each in findings), key=LEVELS.index, default="ok"),
        verdict=verdict(findings),
        seconds=sum(summary["seconds"].values()),
    )


def _training(folder: Path, history: list[dict[str, float]]) -> TrainingRun:
    best = min(history, key=lambda record: record["validation_loss"])
    prefix = "validation_"
    return TrainingRun(
        run=str(folder),
        epochs=len(history),
        loss=history[-1]["loss"],
        validation_loss=best["validation_loss"],
        best_epoch=int(best["epoch"]),
        seconds=sum(record["seconds"] for record in history),
        metrics={k.removeprefix(prefix): v for k, v in best.items() if k.startswith(prefix) and k != "validation_loss"},
    )
