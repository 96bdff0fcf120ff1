"""The command line of trainings: `tflens train galaxies`, `tflens train mnist`.

What came out goes to stdout, messages and progress to stderr; exit codes are those of `tflens.cli`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tflens.cli_compare import training_table
from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.terminal import Json, print_json, reporting, results_console, say, showing_training, two_numbers

if TYPE_CHECKING:
    from tflens.galaxies.recipe import Reports


class Kind(StrEnum):
    """What a model may draw."""

    galaxies = "galaxies"
    mnist = "mnist"


def train(
    kind: Annotated[
        Kind,
        typer.Argument(
            help="galaxies; or mnist: handwritten digits, with a classifier that reads them, and figures on digits "
            "that no part of the model has seen.",
            show_default=False,
        ),
    ],
    data: Annotated[Path, typer.Option(help="Dataset, as `tflens data` makes it.")],
    run: Annotated[
        Path,
        typer.Option(
            help="Folder of the training: checkpoints, TensorBoard's events, and at the end the model. The same "
            "command, given once more, goes on after the last epoch that was finished."
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="What to train, and how, instead of the shipped configuration; `extends = 'galaxies'` (or 'mnist') in "
            "it takes from there all that it does not name.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the model; RUN/model if not given.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST,LAST",
            help="Steps of each stage for TensorFlow's profiler, in TensorBoard.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another model in its folder.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model that draws galaxies, or digits: autoencoder, then flow, then, if the configuration says so, both.

    Prints the loss of each stage. `tflens evaluate galaxies RUN/model` measures the model on held-out galaxies,
    `tensorboard --logdir RUN` shows the training while it runs.

    Several machines train together if each is given the same command, a RUN that all of them can read, and the
    environment variable TF_CONFIG of TensorFlow's MultiWorkerMirroredStrategy; the first of them writes.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.records import load_dataset
        from tflens.galaxies import digit_recipe
        from tflens.galaxies.recipe import SHIPPED, read_config, stages_of, train_galaxy_model
        from tflens.galaxies.training import is_chief, strategy_of_environment

        strategy = strategy_of_environment()
        writes = is_chief(strategy)
        digits = kind is Kind.mnist
        chosen = (digit_recipe.read_digit_config if digits else read_config)(config or SHIPPED[kind])
        splits = {split: load_dataset(data, split) for split in ("train", "validation")}
        test = load_dataset(data, "test") if digits else None
        if out is not None and not overwrite:
            _check_folder(out, chosen)
        folder = out or run / "model"
        stages, measured = stages_of(chosen), {}
        with _showing(messages, run, profile, writes) as reports, strategy.scope():
            if digits:
                model, reader, seconds = digit_recipe.train_digit_model(chosen, splits, run, reports)
                stages = (*stages, digit_recipe.READER)
            else:
                model, seconds = train_galaxy_model(chosen, splits, run, reports)
        if not writes:
            say(messages, f"trained; the first worker writes the model to {folder}")
            return
        if digits:
            say(messages, f"measuring on {len(test.images)} held-out digits")
            measured = digit_recipe.measure(chosen, model, reader, test)
        model.save(folder)
        if digits:
            reader.save_beside(folder, held_out_accuracy=measured["reader"])
            figure = digit_recipe.digits_figure(model, test.images)
            write_atomically(folder / "digits.png", lambda path: figure.savefig(path, dpi=60))
        noted = {"config": chosen, "dataset": splits["train"].manifest, "seconds": seconds, **measured}
        write_atomically(folder / _NOTED, lambda path: path.write_text(json.dumps(noted, indent=2) + "\n"))
        _print_stages(run, stages, folder, measured, as_json)
        say(messages, f"wrote the model to {folder}")


@contextmanager
def _showing(messages: Console, run: Path, profile: str | None, writes: bool) -> "Iterator[Reports]":
    """Progress on the way, of the one that writes; and after Ctrl-C, how to go on."""
    from tflens.galaxies.recipe import Reports

    if not writes:
        yield Reports(watch=False)
        return
    steps = None
    if profile is not None:
        first, last = two_numbers("--profile", profile)
        steps = (int(first), int(last))
    say(messages, f"to watch: tensorboard --logdir {run}")
    try:
        with showing_training(messages) as progress:
            yield Reports(profile=steps, progress=progress)
    except KeyboardInterrupt:
        say(messages, f"all finished epochs are kept in {run}: the same command goes on from there")
        raise


def _check_folder(folder: Path, config: dict[str, Any]) -> None:
    """Refuses the folder of another training's model, before hours are spent."""
    if (folder / "config.json").exists():
        try:
            theirs = json.loads((folder / _NOTED).read_text())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            theirs = None
        if theirs != json.loads(json.dumps(config)):
            raise ParameterError(
                f"--out {folder}: must be no folder of another model, but it holds one. Choose another, or give "
                "--overwrite."
            )


_NOTED = "training.json"


def _print_stages(run: Path, stages: Sequence[str], folder: Path, measured: dict[str, Any], as_json: bool) -> None:
    from tflens.runs import read_runs

    _, trainings = read_runs([run / stage for stage in stages])
    if as_json:
        print_json({"model": folder, "run": run, "trainings": trainings, **measured})
    else:
        console = results_console()
        console.print(training_table(trainings))
        if measured:
            console.print(_digits_table(measured))


def _digits_table(measured: dict[str, Any]) -> Table:
    figures = measured["held_out"]
    table = Table(title=f"{figures[0]['digits']} held-out digits", title_justify="left")
    table.add_column("figure")
    for found in figures:
        table.add_column(f"S/N {found['snr_low']:.0f}-{found['snr_high']:.0f}", justify="right")
    for name in figures[0]:
        if name not in ("digits", "snr_low", "snr_high"):
            table.add_row(name, *(f"{found[name]:.4g}" for found in figures))
    table.add_section()
    for name, value in measured["reader"].items():
        if name != "digits":
            table.add_row(f"digits themselves read right, {name}", *(f"{value:.4g}" for _ in figures))
    return table
