"""The command line of many fits: `tflens fit-many`.

The table goes to stdout, messages to stderr; exit codes are those of `tflens.cli`, 1 also if a lens has no fit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tflens.cli_choices import Sampler, Source, Start
from tflens.terminal import Json, print_json, reporting, results_console, say
from tflens.workers import MEMORY

if TYPE_CHECKING:
    from tflens.many import Outcome


def fit_many(
    catalogue: Annotated[
        Path,
        typer.Argument(
            help="Table with a column `file` (and, if you like, name, image, noise, psf, mask, noise_file, psf_file, "
            "mask_file, pixel_scale), or a folder of FITS files.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; made if missing.")],
    source: Annotated[Source, typer.Option(help="The lensed galaxies, of the default model.")] = Source.neural,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="A model of your own, as for `tflens fit`.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random, for every lens.")] = 0,
    starts: Annotated[int, typer.Option(min=1, help="Points from which the best fit is sought.")] = 48,
    chains: Annotated[int, typer.Option(min=2, help="Independent chains.")] = 8,
    warmup: Annotated[int, typer.Option(min=40, help="Steps of each chain that tune it and are dropped.")] = 120,
    draws: Annotated[int, typer.Option(min=20, help="Steps of each chain that are kept.")] = 300,
    rounds: Annotated[int, typer.Option(min=1, help="Of sampling, at the most, as for `tflens fit`.")] = 3,
    sampler: Annotated[
        Sampler, typer.Option(help="From the best fit to the posterior, as for `tflens fit`.")
    ] = Sampler.hmc,
    start: Annotated[Start, typer.Option(help="Where the search begins, as for `tflens fit`.")] = Start.broad,
    processes: Annotated[
        int, typer.Option(min=1, help="Lenses fitted at a time; the processor's cores are divided among them.")
    ] = 1,
    share: Annotated[
        bool,
        typer.Option(help="Lenses of one shape, pixel scale, PSF and model share what is compiled, over whole images."),
    ] = True,
    memory: Annotated[
        float, typer.Option(min=0, help="GB that a process may hold after a lens; with more it is replaced.")
    ] = MEMORY,
    as_json: Json = False,
) -> None:
    """Fit every lens of a catalogue: a folder of results for each, and OUT/summary.csv for all.

    Input that cannot be right is reported and skipped. Lenses whose results are complete are not fitted again, so that
    a killed call, given once more, goes on with the lenses it was at. Fits run in processes of their own: if the system
    kills one, its lens is tried once more, and the others go on.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.catalogue import read_catalogue
        from tflens.many import SUMMARY, fit_many
        from tflens.model_file import checked_tables

        entries = read_catalogue(catalogue)
        settings = {"seed": seed, "starts": starts, "chains": chains, "warmup": warmup, "draws": draws}
        settings |= {"rounds": rounds, "sampler": sampler.value, "start": start.value}

        tables = None if model is None else checked_tables(model)
        with _showing_lenses(messages, len(entries), out) as tell:
            outcomes = fit_many(
                entries, out, source.value, settings, tell, tables, processes=processes, share=share, memory=memory
            )
        if as_json:
            print_json({"table": out / SUMMARY, "lenses": outcomes})
        else:
            results_console().print(_table(outcomes))
        say(messages, f"wrote {out / SUMMARY}")
    if any(outcome.summary is None for outcome in outcomes):
        raise typer.Exit(1)


@contextmanager
def _showing_lenses(messages: Console, total: int, out: Path) -> "Iterator[Callable[[Outcome], None]]":
    """A line for each lens, with a bar and the time left below them on a terminal; and after Ctrl-C, how to go on."""
    done = fitted = 0
    columns = (TextColumn("lenses"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    # The speed is that of all lenses so far: one alone may take longer than the usual window of half a minute.
    bars = Progress(
        *columns, TimeRemainingColumn(), console=messages, speed_estimate_period=1e9, disable=not messages.is_terminal
    )
    task = bars.add_task("lenses", total=total)

    def tell(outcome: "Outcome") -> None:
        nonlocal done, fitted
        done, fitted = done + 1, fitted + (outcome.summary is not None)
        say(messages, f"{done} of {total}: {outcome.name} {outcome.status}: {outcome.words}")
        if outcome.status in ("kept", "refused"):
            bars.reset(task, completed=done)  # these took no time, and say nothing of the others
        else:
            bars.update(task, completed=done)

    try:
        with bars:
            yield tell
    except KeyboardInterrupt:
        say(messages, f"{fitted} of {total} lenses are fitted and kept in {out}: the same command goes on from there")
        raise


def _table(outcomes: "list[Outcome]") -> Table:
    table = Table(title=f"{len(outcomes)} lenses", title_justify="left")
    table.add_column("lens", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("theta_E, arcsec", justify="right", no_wrap=True)
    table.add_column("chi^2 in the arcs", justify="right")
    table.add_column("verdict")
    for outcome in outcomes:
        theta_E = chi2 = ""
        if outcome.summary is not None:
            found = outcome.summary["parameters"]["lens.theta_E"]
            theta_E = f"{found['median']:.4f} +- {(found['high'] - found['low']) / 2:.4f}"
            value = outcome.summary["diagnostics"]["chi2_arcs"]
            chi2 = "no arcs" if value is None else f"{value:.2f}"
        colour = {"fitted": "green", "kept": "cyan"}.get(outcome.status, "bold red")
        table.add_row(escape(outcome.name), f"[{colour}]{outcome.status}[/]", theta_E, chi2, escape(outcome.words))
    return table
