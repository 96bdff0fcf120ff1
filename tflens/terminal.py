"""On a terminal: messages, options and errors in words, the progress of work, and the table of what came out."""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tflens.errors import ParameterError, TflensError
from tflens.plain import plain
from tflens.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from tflens.galaxies.training import Record
    from tflens.inference.check import Finding
    from tflens.inference.pipeline import Fit
    from tflens.inference.progress import Monitor, Status

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout instead of text.")]
"""The option of every command that prints results."""

# As in tflens.inference.progress, which this module does without so that the command line starts quickly.
_STAGES = ("look", "search", "polish", "warm-up", "sampling")


@contextmanager
def reporting(tensorflow: bool = False) -> Iterator[Console]:
    """Turns errors into one message on stderr and an exit code; gives the console for messages.

    Args:
        tensorflow: import it as well, without its chatter.
    """
    messages = Console(stderr=True)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # those of libraries; ours come as notes
            if tensorflow:
                import_tensorflow_quietly()
            yield messages
    except TflensError as error:
        messages.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say(messages, "interrupted")
        raise typer.Exit(130) from None


def say(console: Console, message: str) -> None:
    """A message as it is: neither markup nor numbers in it are coloured, and only the terminal breaks its lines."""
    console.print(escape(message), highlight=False, soft_wrap=True)


def print_json(content: Any) -> None:
    """The results of a command as one JSON document on stdout."""
    print(json.dumps(plain(content), indent=2, allow_nan=False))


def print_paths(name: str, paths: Iterable[Path], as_json: bool) -> None:
    """What a command wrote: a line for each path, as soon as it is there, or JSON with a list of this name."""
    written = []
    for path in paths:
        written.append(path)
        if not as_json:
            print(path)
    if as_json:
        print_json({name: written})


def results_console() -> Console:
    """For tables on stdout; wide where it is no terminal, for a line must not break within a row."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def two_numbers(option: str, text: str) -> tuple[float, float]:
    """The value of an option that is two numbers.

    Raises:
        ParameterError: it is something else; the option is named.

    Example:
        >>> two_numbers("--snr", "15,50")
        (15.0, 50.0)
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ParameterError(
            f"{option} must be two numbers with a comma between them, as in 15,50; got {text!r}"
        ) from None
    return low, high


@contextmanager
def showing_count(console: Console, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Galaxies done and kept: a bar with the time left on a terminal, a line at every quarter elsewhere."""
    if not console.is_terminal:
        told = 0

        def tell(done: int, kept: int) -> None:
            nonlocal told
            quarter = 4 * done // total if total else 0
            if quarter > told:
                told = quarter
                say(console, f"{done} of {total} done, {kept} kept")

        yield tell
        return
    columns = (
        TextColumn("galaxies"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[kept]} kept"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("galaxies", total=total, kept=0)
        yield lambda done, kept: bars.update(task, completed=done, kept=kept)


@contextmanager
def showing_progress(console: Console) -> "Iterator[Monitor]":
    """A monitor of a fit for the console: bars with time left on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with _stage_bars(console) as progress:
        yield _Bars(progress)


@contextmanager
def showing_training(console: Console) -> "Iterator[Callable[[str, float, Record], None]]":
    """What `tflens.galaxies.recipe.Reports` takes as `progress`, for the console: bars with the time left at most on a
    terminal, a line for each epoch elsewhere."""
    if not console.is_terminal:
        yield _Epochs(console)
        return
    with _stage_bars(console) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, fraction: float, record: "Record") -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0, live="preparing")
                progress.reset(tasks[stage], completed=fraction)  # what an earlier call did took no time of this one
            progress.update(tasks[stage], completed=fraction, live=losses(record) or "preparing")

        yield show


def losses(record: "Record") -> str:
    """Where a training stands after an epoch, in words; "" before the first.

    Example:
        >>> losses({"epoch": 3, "loss": 1.5, "validation_loss": 1.625, "seconds": 2.0})
        'epoch 3: loss 1.5, of validation data 1.625'
    """
    if not record:
        return ""
    return f"epoch {record['epoch']:.0f}: loss {record['loss']:.4g}, of validation data {record['validation_loss']:.4g}"


def _stage_bars(console: Console) -> Progress:
    """A bar for each stage. Time left follows from all of a stage so far: its steps come in long calls."""
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[live]}"),
    )
    return Progress(*columns, console=console, speed_estimate_period=1e9)


def result_table(fit: "Fit") -> Table:
    """Median and central 68 % of every parameter, with its convergence."""
    from tflens.plotting import interval_decimals

    table = Table(title=f"{fit.observation.name}: posterior median and central 68 %", title_justify="left")
    for heading, justify in (
        ("parameter", "left"),
        ("median", "right"),
        ("-", "right"),
        ("+", "right"),
        ("unit", "left"),
        ("R-hat", "right"),
        ("ESS", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)
    group = None
    for row in fit.posterior.table():
        if group not in (None, row.name.split(".")[0]):
            table.add_section()
        group = row.name.split(".")[0]
        digits = interval_decimals(row.low, row.median, row.high)
        table.add_row(
            row.name,
            f"{row.median:.{digits}f}",
            f"{row.median - row.low:.{digits}f}",
            f"{row.high - row.median:.{digits}f}",
            row.unit,
            f"{row.r_hat:.3f}",
            f"{row.ess:.0f}",
        )
    return table


def print_findings(findings: "Sequence[Finding]", console: Console) -> None:
    """As `tflens.inference.check.in_words`, in colours."""
    from tflens.inference.check import verdict, worst_first

    console.print(f"[bold]{escape(verdict(findings))}[/]", highlight=False, soft_wrap=True)
    for finding in worst_first(findings):
        level = f"[{_COLORS[finding.level]}]{finding.level:<7}[/]"
        console.print(f"{level}  {escape(finding.words)}", highlight=False, soft_wrap=True)


_COLORS = {"ok": "green", "note": "cyan", "warning": "yellow", "failure": "bold red"}


def live_values(status: "Status") -> str:
    """Where the best point stands: chi^2 per pixel, and theta_E with its spread over starts or chains."""
    if status.target is None:
        return ""
    text = f"chi^2 {status.chi2:.3g}"
    radius = status.parameters.get("lens.theta_E")
    if radius is not None:
        text += f'   theta_E {radius[0]:.3f}" (all: {radius.min():.2f}-{radius.max():.2f})'
    return text


class _Bars:
    """A bar for each stage; the next one shows as soon as the one before is done, for it compiles first."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._begin("look")

    def __call__(self, status: "Status") -> None:
        self._begin(status.stage)
        task = self._tasks[status.stage]
        if status.fraction < (self._progress.tasks[task].completed or 0):
            self._progress.reset(task)  # the polish runs more than once
        self._progress.update(task, total=1.0, completed=status.fraction, live=live_values(status))
        following = _STAGES.index(status.stage) + 1
        if status.fraction >= 1 and following < len(_STAGES):
            self._begin(_STAGES[following])

    def _begin(self, stage: str) -> None:
        if stage not in self._tasks:
            name = "first look" if stage == "look" else stage
            self._tasks[stage] = self._progress.add_task(name, total=None, live="preparing")


class _Epochs:
    """A line for each epoch of a training, with the time left of its stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._epoch = "", 0.0
        self._since = (0.0, 0.0)  # the clock and the share done when the stage began, in this call

    def __call__(self, stage: str, fraction: float, record: "Record") -> None:
        now, epoch = time.monotonic(), record.get("epoch", 0.0)
        if stage != self._stage:
            self._stage, self._epoch, self._since = stage, epoch, (now, fraction)
            say(self._console, f"{stage:<10} {fraction:4.0%} done")
        elif fraction == self._since[1]:
            self._since = (now, fraction)  # what came before was preparation
        elif epoch != self._epoch:
            self._epoch = epoch
            began, share = self._since
            left = timedelta(seconds=round((now - began) * (1 - fraction) / (fraction - share)))
            say(self._console, f"{stage:<10} {fraction:4.0%}  {losses(record)}; {left} left at most")


class _Lines:
    """A line at every quarter of a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told = ("", 0)

    def __call__(self, status: "Status") -> None:
        told = (status.stage, int(4 * status.fraction))
        if told == self._told:
            return
        self._told = told
        line = f"{status.stage:<10} {100 * status.fraction:3.0f} %   {live_values(status)}"
        say(self._console, line.rstrip())
