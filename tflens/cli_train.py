"""The command line of trainings: `tflens train galaxies`, `tflens train mnist`.

What came out goes to stdout, messages and progress to stderr; exit codes are those of `tflens.cli`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tflens.cli_compare import training_table
from tflens.errors import ParameterError
from tflens.terminal import Json, print_json, reporting, results_console, say, showing_training, two_numbers

if TYPE_CHECKING:
    from tflens.datasets.records import Dataset
    from tflens.galaxies.recipe import Reports
    from tflens.galaxies.source import GalaxyModel

train_app = typer.Typer(
    help="Train a model that draws galaxies, or digits. A command that was interrupted goes on where it stopped.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Data = Annotated[Path, typer.Option(help="Dataset, as `tflens data` makes it.")]
_Run = Annotated[
    Path,
    typer.Option(
        help="Folder of the training: checkpoints, TensorBoard's events, and at the end the model. The same command, "
        "given once more, goes on where it stopped."
    ),
]
_Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        help='What to train, and how. `extends = "galaxies"` in it takes all that it does not name from the shipped '
        "configuration, which is the default.",
        show_default=False,
    ),
]
_Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the model; RUN/model if not given.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another model in its folder.")]
_Profile = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST,LAST", help="Steps of each stage for TensorFlow's profiler, in TensorBoard.", show_default=False
    ),
]


@train_app.command()
def galaxies(
    data: _Data,
    run: _Run,
    config: _Config = None,
    out: _Out = None,
    profile: _Profile = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """A model of galaxies: autoencoder, then flow, then, where the configuration says so, both together.

    Prints the loss of each stage. `tflens evaluate galaxies RUN/model` measures the model on held-out galaxies,
    `tensorboard --logdir RUN` shows the training while it runs.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.records import load_dataset
        from tflens.galaxies.recipe import SHIPPED, read_config, stages_of, train_galaxy_model

        chosen = read_config(config or SHIPPED["galaxies"])
        splits = {split: load_dataset(data, split) for split in ("train", "validation")}
        folder = _model_folder(out or run / "model", chosen, overwrite)
        with _showing(messages, run, profile) as reports:
            model, seconds = train_galaxy_model(chosen, splits, run, reports)
        _finish(model, folder, chosen, splits["train"], seconds)
        _print_stages(run, stages_of(chosen), folder, {}, as_json, messages)


@train_app.command()
def mnist(
    data: _Data,
    run: _Run,
    config: _Config = None,
    out: _Out = None,
    profile: _Profile = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """A model of handwritten digits, and a classifier that reads them.

    Prints the loss of each stage, and figures on digits that no part of the model has seen.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.records import load_dataset
        from tflens.galaxies.digit_recipe import (
            READER,
            digits_figure,
            measure_digits,
            measure_reader,
            read_digit_config,
            train_digit_model,
        )
        from tflens.galaxies.recipe import SHIPPED, stages_of

        chosen = read_digit_config(config or SHIPPED["mnist"])
        splits = {split: load_dataset(data, split) for split in ("train", "validation", "test")}
        test = splits.pop("test")
        folder = _model_folder(out or run / "model", chosen, overwrite)
        with _showing(messages, run, profile) as reports:
            model, reader, seconds = train_digit_model(chosen, splits, run, reports)
        say(messages, f"measuring on {len(test.images)} held-out digits")
        figures = [measure_digits(chosen, model, reader, test, snr) for snr in ((20.0, 50.0), (100.0, 300.0))]
        measured = {"held_out": figures, "reader": measure_reader(reader, test)}
        _finish(model, folder, chosen, splits["train"], seconds, measured)
        reader.save_beside(folder, held_out_accuracy=measured["reader"])
        digits_figure(model, test.images).savefig(folder / "digits.png", dpi=60)
        _print_stages(run, (*stages_of(chosen), READER), folder, measured, as_json, messages)


@contextmanager
def _showing(messages: Console, run: Path, profile: str | None) -> "Iterator[Reports]":
    """Progress on the way; and after Ctrl-C, how to go on."""
    from tflens.galaxies.recipe import Reports

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


def _model_folder(folder: Path, config: dict[str, Any], overwrite: bool) -> Path:
    """The folder, if no model of another training is in it: refused before hours are spent."""
    if (folder / "config.json").exists() and not overwrite:
        try:
            theirs = json.loads((folder / _NOTED).read_text())["config"]
        except (OSError, ValueError, KeyError, TypeError):
            theirs = None
        if theirs != json.loads(json.dumps(config)):
            raise ParameterError(
                f"--out {folder}: must be no folder of another model, but it holds one. Choose another, or give "
                "--overwrite."
            )
    return folder


_NOTED = "training.json"


def _finish(
    model: "GalaxyModel",
    folder: Path,
    config: dict[str, Any],
    dataset: "Dataset",
    seconds: Mapping[str, float],
    measured: Mapping[str, Any] | None = None,
) -> None:
    model.save(folder)
    noted = {"config": config, "dataset": dataset.manifest, "seconds": dict(seconds), **(measured or {})}
    (folder / _NOTED).write_text(json.dumps(noted, indent=2) + "\n")


def _print_stages(
    run: Path, stages: Sequence[str], folder: Path, measured: dict[str, Any], as_json: bool, messages: Console
) -> None:
    from tflens.runs import read_runs

    _, trainings = read_runs([run / stage for stage in stages])
    if as_json:
        print_json({"model": folder, "run": run, "trainings": trainings, **measured})
    else:
        console = results_console()
        console.print(training_table(trainings))
        if measured:
            console.print(_digits_table(measured))
    say(messages, f"wrote the model to {folder}")


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
