"""The command line of runs side by side: `tflens compare`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tflens.terminal import Json, print_json, reporting, results_console

if TYPE_CHECKING:
    from tflens.runs import FitRun, TrainingRun

_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "failure": "bold red"}


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of fits (`tflens fit`, `tflens fit-many`) or trainings; a folder of many stands for all.",
        ),
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", help="Parameter of the fits to show, lens.theta_E by default; may be repeated."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare finished runs: a row for each fit, with its verdict, and for each training."""
    with reporting():
        from tflens.runs import read_runs

        names = parameter or ["lens.theta_E"]
        fits, trainings = read_runs(runs, names)
        if as_json:
            print_json({"fits": fits, "trainings": trainings})
            return
        console = results_console()
        if fits:
            console.print(fit_table(fits, names))
        if trainings:
            console.print(training_table(trainings))


def fit_table(fits: "Sequence[FitRun]", names: Sequence[str]) -> Table:
    """A row for each fit."""
    table = Table(title="fits: median and central 68 %", title_justify="left")
    table.add_column("run", overflow="fold")
    for heading in (*names, "chi^2", "arcs", "R-hat", "ESS", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("checks")
    labels = _labels([run.run for run in fits])
    for label, run in zip(labels, fits, strict=True):
        failed = run.verdict.rpartition("(")[2].rstrip(")") if run.level in ("warning", "failure") else ""
        table.add_row(
            label,
            *(_interval(run.parameters[name]) for name in names),
            _number(run.chi2, 3),
            _number(run.chi2_arcs, 3),
            _number(run.max_r_hat, 3),
            _number(run.min_ess, 0),
            _number(run.seconds, 0),
            Text(f"{run.level}: {failed}" if failed else run.level, style=_COLORS[run.level]),
        )
    return table


def training_table(trainings: "Sequence[TrainingRun]") -> Table:
    """A row for each training; metrics that all of them have in columns of their own."""
    shared = [name for name in trainings[0].metrics if all(name in run.metrics for run in trainings)]
    table = Table(title="trainings: validation data at the best epoch", title_justify="left")
    table.add_column("run", overflow="fold")
    for heading in ("epochs", "best", "loss", *shared, "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, run in zip(_labels([run.run for run in trainings]), trainings, strict=True):
        table.add_row(
            label,
            str(run.epochs),
            str(run.best_epoch),
            _significant(run.validation_loss),
            *(_significant(run.metrics[name]) for name in shared),
            _number(run.seconds, 0),
        )
    return table


def _labels(paths: Sequence[str]) -> list[str]:
    """Paths without the part that all have in common."""
    parts = [Path(path).parts for path in paths]
    shared = 0
    while len(paths) > 1 and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return [str(Path(*p[shared:])) for p in parts]


def _interval(values: list[float] | None) -> str:
    if values is None:
        return "-"
    median, low, high = values
    smaller = min(median - low, high - median)
    # Two digits of the smaller half, as in the table of a fit.
    digits = max(0, min(8, 1 - math.floor(math.log10(smaller)))) if smaller > 0 else 4
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _significant(value: float) -> str:
    return f"{value:.4g}"
