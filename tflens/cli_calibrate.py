"""The command line of calibration: `tflens calibrate`.

Tables go to stdout, messages to stderr; exit codes are those of `tflens.cli`.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tflens.cli_choices import Sampler
from tflens.files import write_atomically
from tflens.terminal import Json, print_json, reporting, results_console, say
from tflens.workers import MEMORY

if TYPE_CHECKING:
    from tflens.calibrate import Sources


class FittedWith(StrEnum):
    """The source of the fits."""

    flow = "flow"
    normal = "normal"
    sersic = "sersic"


class ShotBy(StrEnum):
    """The code that draws the mocks."""

    tflens = "tflens"
    lenstronomy = "lenstronomy"


def calibrate(
    run: Annotated[Path, typer.Option(help="Folder with a file for each finished mock; a killed run goes on.")],
    n: Annotated[
        int, typer.Option(min=1, help="Number of mocks; a larger one goes on with those that are there.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the mocks.")] = 1,
    source: Annotated[
        FittedWith, typer.Option(help="Fits with the neural source and its flow, with N(0, I) for it, or a Sersic.")
    ] = FittedWith.flow,
    data: Annotated[
        Path | None, typer.Option(help="Dataset of simulated galaxies: its test split is lensed.", show_default=False)
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz",
            help="Stamps of real galaxies to be lensed, those of S/N 100 or more; docs/fits.md says which files suit.",
            show_default=False,
        ),
    ] = None,
    shot_by: Annotated[
        ShotBy, typer.Option(help="What draws the mocks: the same lenses and noise, by our code or by another.")
    ] = ShotBy.tflens,
    model: Annotated[str, typer.Option(help="Galaxy model: a shipped one by name, or a folder.")] = "galaxies",
    starts: Annotated[int, typer.Option(min=1, help="Points from which the best fit is sought.")] = 32,
    chains: Annotated[int, typer.Option(min=2, help="Independent chains.")] = 8,
    warmup: Annotated[int, typer.Option(min=40, help="Steps of each chain that tune it and are dropped.")] = 120,
    draws: Annotated[int, typer.Option(min=20, help="Steps of each chain that are kept.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Of sampling, at the most, as for `tflens fit`.")] = 3,
    sampler: Annotated[
        Sampler, typer.Option(help="From the best fit to the posterior, as for `tflens fit`.")
    ] = Sampler.hmc,
    processes: Annotated[
        int, typer.Option(min=1, help="Mocks fitted at a time, by one thread each if there are several.")
    ] = 1,
    memory: Annotated[
        float, typer.Option(min=0, help="GB that a process may hold after a mock; with more it is replaced.")
    ] = MEMORY,
    share: Annotated[
        bool, typer.Option(help="Mocks share what is compiled; without, each compiles for itself.")
    ] = True,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Go on with the mocks of a file of --keep.", show_default=False),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FILE.jsonl", help="Write all mocks' results to one small file.", show_default=False),
    ] = None,
    records: Annotated[
        Path | None, typer.Option(help="File of the records; RUN/fits.json by default.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit mocks whose truth is known, each blind, and count: figures F1-F7, and the failures one by one.

    Sources of the mocks: --data, --real, or, if neither is given, draws of the galaxy model's own prior. The same call
    goes on where a killed one stopped. If RUN holds the same mocks fitted with several sources, the gain of the flow
    prior over the others (F6) is counted too. Figures go to RUN as a picture and as records.
    """
    if data is not None and real is not None:
        raise typer.BadParameter("give --data or --real, not both", param_hint="--data")
    with reporting(tensorflow=True) as messages:
        from tflens import calibrate as calibration
        from tflens.calibration_figure import calibration_figure
        from tflens.inference.calibration import figures, reasons
        from tflens.inference.gain import NAMES, gains
        from tflens.measured import keep_records

        settings = calibration.SETTINGS | {"starts": starts, "draws": draws}
        settings |= {"chains": chains, "warmup": warmup, "rounds": rounds, "sampler": sampler.value}
        plan = calibration.Plan(_sources(data, real), source.value, seed, model, shot_by.value, settings)
        if resume is not None:
            put = calibration.resume(resume, plan, run)
            say(messages, f"{put} mocks from {resume}")
        with _showing_mocks(messages, n, run) as tell:
            results = calibration.fit_mocks(plan, n, run, tell, processes=processes, memory=memory, share=share)
        if keep is not None:
            calibration.keep(keep, results)
        fixed = {"--n": n, "--seed": seed, "--source": source}
        chosen = {"--data": (data, None), "--real": (real, None), "--shot-by": (shot_by, ShotBy.tflens)}
        chosen |= {"--model": (model, "galaxies"), "--starts": (starts, 32), "--chains": (chains, 8)}
        chosen |= {
            "--warmup": (warmup, 120),
            "--draws": (draws, 200),
            "--rounds": (rounds, 3),
            "--sampler": (sampler, Sampler.hmc),
        }
        command = _command(fixed | {name: value for name, (value, default) in chosen.items() if value != default})
        commits = ", ".join(sorted({str(result["commit"]) for result in results}))
        common = {"n": n, "seed": seed, "command": command, "commit": commits}
        found = [record | {"variant": plan.variant} | common for record in figures(results)]
        gained = [
            record | {"variant": f"{plan.mocks}, {NAMES[record['over']]} over the flow prior"} | common
            for record in gains(calibration.same_mocks(plan, n, run))
        ]
        file = records or run / "fits.json"
        keep_records(file, [*found, *gained])
        picture = run / f"{plan.label}.png"
        figure = calibration_figure(results, plan.variant)
        write_atomically(picture, lambda path: figure.savefig(path, dpi=100))
        if as_json:
            failures = {result["name"]: why for result in results if (why := reasons(result))}
            print_json({"figures": found, "gains": gained, "failures": failures, "records": file, "picture": picture})
        else:
            _print(found, gained, results, f"{n} mocks, {found[0]['fits']} with fits: {plan.variant}")
        say(messages, f"wrote {file} and {picture}")


def _sources(data: Path | None, real: Path | None) -> "Sources":
    from tflens.calibrate import prior_sources, real_sources, simulated_sources

    return simulated_sources(data) if data else real_sources(real) if real else prior_sources()


def _command(options: dict[str, Any]) -> str:
    """What repeats the figures: the options that determine them."""
    return shlex.join(["tflens", "calibrate", *(str(part) for option in options.items() for part in option)])


@contextmanager
def _showing_mocks(messages: Console, total: int, run: Path) -> "Iterator[Callable[[dict[str, Any], bool], None]]":
    """A line for each mock, with a bar and the time left below them on a terminal; and after Ctrl-C, how to go on."""
    done = fitted = 0
    columns = (TextColumn("mocks"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn())
    # The speed is that of all mocks so far: one alone may take longer than the usual window of half a minute.
    bars = Progress(
        *columns, TimeRemainingColumn(), console=messages, speed_estimate_period=1e9, disable=not messages.is_terminal
    )
    task = bars.add_task("mocks", total=total)

    def tell(result: dict[str, Any], kept: bool) -> None:
        nonlocal done, fitted
        done, fitted = done + 1, fitted + ("no_fit" not in result)
        say(messages, f"{done} of {total}{', kept' if kept else ''}: {_line(result)}")
        if kept:
            bars.reset(task, completed=done)  # it took no time, and says nothing of the others
        else:
            bars.update(task, completed=done)

    try:
        with bars:
            yield tell
    except KeyboardInterrupt:
        say(messages, f"{fitted} of {total} mocks are fitted and kept in {run}: the same command goes on from there")
        raise


def _line(result: dict[str, Any]) -> str:
    from tflens.inference.calibration import MASS, reasons, theta_E_error, z_score

    if "no_fit" in result:
        return f"{result['name']}: {reasons(result)[0]}"
    theta_E = result["parameters"]["lens.theta_E"]
    r_hat = max(result["parameters"][name]["r_hat"] for name in MASS)
    return (
        f"{result['name']}: theta_E {theta_E['truth']:.4f}, fit {theta_E['median']:.4f} "
        f"({theta_E_error(result):+.2%}, z {z_score(result, 'lens.theta_E'):+.1f})"
        f"  chi^2 {result['chi2']:.3f}  R-hat of the mass {r_hat:.3f}, of all {result['max_r_hat']:.3f}  "
        f"source {result['source']['error']:.2f}  {result['seconds']:.0f} s"
    )


def _print(
    found: Sequence[dict[str, Any]], gained: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], title: str
) -> None:
    out = results_console()
    out.print(_table(found, title))
    if gained:
        named = [record | {"figure": f"{record['figure']}, {record['variant']}"} for record in gained]
        out.print(_table(named, f"gain of the flow prior, {gained[0]['fits']} lenses"))
    _print_failures(results, out)


def _table(records: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("id", "figure", "value", "68 %", "null", "reach", "beat"):
        table.add_column(heading, justify="left" if heading in ("id", "figure") else "right")
    for record in records:
        spread = record["spread"] and f"{record['spread'][0]:.4g} to {record['spread'][1]:.4g}"
        aims = [_aim(record[name]) for name in ("null", "reach", "beat")]
        table.add_row(record["id"], record["figure"], f"{record['value']:.4g}", spread or "", *aims)
    return table


def _aim(value: Any) -> str:
    if value is None:
        return ""
    return f"{value[0]:.4g}-{value[1]:.4g}" if isinstance(value, list | tuple) else f"{value:.4g}"


def _print_failures(results: Sequence[dict[str, Any]], out: Console) -> None:
    """Every mock that counts as failed, with the reasons, and what the fit itself said of it."""
    from tflens.inference.calibration import reasons

    failed = [(result, why) for result in results if (why := reasons(result))]
    if not failed:
        out.print("no failures")
        return
    table = Table(title=f"{len(failed)} of {len(results)} mocks failed", title_justify="left")
    for heading in ("mock", "why", "chi^2 in the arcs", "S/N of the peak", "its checks: failures", "warnings"):
        table.add_column(heading, justify="right" if heading in ("chi^2 in the arcs", "S/N of the peak") else "left")
    for result, why in failed:
        row = [result["name"], "; ".join(why), "", "", "", ""]
        if "no_fit" not in result:
            chi2 = result["chi2_arcs"]
            row[2:4] = "no arcs" if chi2 is None else f"{chi2:.2f}", f"{result['peak_snr']:.0f}"
            row[4:] = [_named(result["checks"], level) or "none" for level in ("failure", "warning")]
        table.add_row(*map(escape, row))
    out.print(table)


def _named(checks: dict[str, str], level: str) -> str:
    return ", ".join(name for name, found in checks.items() if found == level)
