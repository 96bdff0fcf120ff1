"""The command line of many fits: `tflens fit-many`.

The table goes to stdout, messages to stderr; exit codes are those of `tflens.cli`, 1 also if a lens has no fit.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tflens.cli_choices import Engine, Sampler, Source, Start
from tflens.errors import ParameterError
from tflens.plain import plain
from tflens.terminal import Json, reporting, results_console, say
from tflens.workers import ATTEMPTS, MEMORY

if TYPE_CHECKING:
    from tflens.outcomes import Outcome, Outcomes


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
        int | None,
        typer.Option(
            min=1,
            help="Lenses fitted at a time: 1, the processor's cores divided among them; with ray, as many as it has "
            "CPUs for.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(help="Lenses of one shape, pixel scale, PSF and model share what is compiled, over whole images."),
    ] = True,
    memory: Annotated[
        float, typer.Option(min=0, help="GB that a process may hold after a lens; with more it is replaced.")
    ] = MEMORY,
    attempts: Annotated[
        int, typer.Option(min=1, help="How many workers may die of a lens before it is given up.")
    ] = ATTEMPTS,
    engine: Annotated[
        Engine, typer.Option(help="Who runs the fits: child processes of this one, or the actors of a Ray cluster.")
    ] = Engine.local,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Of a Ray cluster, all of whose nodes have tflens and the folder OUT; one on this machine if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Of each fit; with ray, as many CPUs are taken for it, 1.", show_default=False),
    ] = None,
    parquet: Annotated[
        bool | None,
        typer.Option(help="Write OUT/summary.parquet as well; with ray, if nothing is said.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit every lens of a catalogue: a folder of results for each, and OUT/summary.csv for all.

    Input that cannot be right is reported and skipped. Lenses whose results are complete are not fitted again, so that
    a killed call, given once more, goes on with the lenses it was at. Fits run in processes of their own: if the system
    kills one, its lens is tried once more, and the others go on. With `--engine ray` they may be on many machines.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.catalogue import read_catalogue
        from tflens.many import SUMMARY, fit_many
        from tflens.model_file import checked_tables

        if address is not None and engine is not Engine.ray:
            raise ParameterError(f"--address {address}: is that of a Ray cluster; give --engine ray as well.")
        entries = read_catalogue(catalogue)
        settings = {"seed": seed, "starts": starts, "chains": chains, "warmup": warmup, "draws": draws}
        settings |= {"rounds": rounds, "sampler": sampler.value, "start": start.value}

        tables = None if model is None else checked_tables(model)
        options = {"share": share, "memory": memory, "attempts": attempts}
        with _engine(engine, address, processes, threads) as run, _showing_lenses(messages, len(entries), out) as tell:
            options |= {"parquet": engine is Engine.ray if parquet is None else parquet, **run}
            outcomes = fit_many(entries, out, source.value, settings, tell, tables, **options)
        if as_json:
            _print_json(out / SUMMARY, outcomes)
        else:
            results_console().print(_table(outcomes))
        say(messages, f"wrote {out / SUMMARY}")
    if outcomes.counts["refused"] or outcomes.counts["failed"]:
        raise typer.Exit(1)


@contextmanager
def _engine(engine: Engine, address: str | None, processes: int | None, threads: int | None) -> Iterator[dict]:
    """Arguments of `fit_many`: who runs the fits, how many at a time."""
    if engine is Engine.local:
        yield {"processes": processes or 1, "threads": threads}
        return
    from tflens.ray_workers import connected, run_on_ray

    cpus = threads or 1
    with connected(address, None if processes is None else processes * cpus) as found:
        if found < cpus:
            raise ParameterError(f"--threads {cpus}: must not exceed the CPUs of the Ray cluster, which has {found}.")
        yield {"processes": processes or found // cpus, "threads": cpus, "engine": partial(run_on_ray, cpus=cpus)}


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


def _print_json(table: Path, outcomes: "Outcomes") -> None:
    """One document, a lens at a time: all of them may be more than memory holds."""
    print(f'{{"table": {json.dumps(str(table))},\n "lenses": [', end="")
    for i, outcome in enumerate(outcomes):
        print("," if i else "", json.dumps(plain(outcome), indent=2, allow_nan=False), sep="\n", end="")
    print("]}")


def _table(outcomes: "Outcomes") -> Table:
    """Of all lenses; of a long catalogue, of the first of those that have no fit."""
    title, shown = f"{len(outcomes)} lenses", outcomes
    if len(outcomes) > _MOST_ROWS:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(outcomes.counts.items()))
        title, shown = f"{title}: {counts}; the first without a fit", islice(outcomes.without_fit(), _MOST_ROWS)
    table = Table(title=title, title_justify="left")
    table.add_column("lens", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("theta_E, arcsec", justify="right", no_wrap=True)
    table.add_column("chi^2 in the arcs", justify="right")
    table.add_column("verdict")
    for outcome in shown:
        theta_E = chi2 = ""
        if outcome.summary is not None:
            found = outcome.summary["parameters"]["lens.theta_E"]
            theta_E = f"{found['median']:.4f} +- {(found['high'] - found['low']) / 2:.4f}"
            value = outcome.summary["diagnostics"]["chi2_arcs"]
            chi2 = "no arcs" if value is None else f"{value:.2f}"
        colour = {"fitted": "green", "kept": "cyan"}.get(outcome.status, "bold red")
        table.add_row(escape(outcome.name), f"[{colour}]{outcome.status}[/]", theta_E, chi2, escape(outcome.words))
    return table


_MOST_ROWS = 500
