"""The command line: `tflens fit`, `tflens info`, and the list of all; the other commands have files of their own.

Results go to stdout, messages and progress to stderr. Exit codes: 0 done, 1 the input or a setting was refused,
2 the command was misused, 130 interrupted.
"""

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.markup import escape

from tflens import __version__
from tflens.cli_calibrate import calibrate
from tflens.cli_choices import Sampler, Source, Start
from tflens.cli_compare import compare
from tflens.cli_convert import convert
from tflens.cli_data import data_app
from tflens.cli_evaluate import evaluate_app
from tflens.cli_many import fit_many
from tflens.cli_report import report
from tflens.cli_serving import SERVE_HELP, export_app, serve
from tflens.cli_simulate import simulate
from tflens.cli_train import train
from tflens.terminal import Json, print_findings, print_json, reporting, results_console, say

if TYPE_CHECKING:
    from tflens.config import RunConfig


class _InOrder(typer.core.TyperGroup):
    """Lists commands in the order of `_COMMANDS`, not those with subcommands last."""

    def list_commands(self, context: typer.Context) -> list[str]:
        return [name for panel in _COMMANDS.values() for name in panel]


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; `arguments` are those of the process by default."""
    app(args=None if arguments is None else list(arguments), prog_name="tflens")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tflens {__version__}")
        raise typer.Exit


_ROOT_HELP = (
    "Strong gravitational lensing with differentiable physics and neural galaxies.\n\n"
    "A galaxy model comes with the package: to fit a lens, begin with `tflens fit`. Every command explains itself by "
    "--help, and prints its results on stdout (with --json as one document), all else on stderr."
)


@app.callback(help=_ROOT_HELP)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Strong gravitational lensing. See `_ROOT_HELP`."""


_INPUT, _MODEL, _EFFORT, _OUTPUT = "What to fit", "With what", "How hard to look", "Output"


_FIT_HELP = (
    "Fit a strong lens: mass, lens light and source at once, started blind, with a posterior.\n\n"
    "Prints a table of parameters with 68 % intervals and a verdict on the fit, and writes to OUT: report.html (all of "
    "it on one page, for a browser), posterior.nc (the draws, for ArviZ), summary.json, table.csv, fit.png, fit.pdf, "
    "corner.png, trace.png, best.fits (images of the model), curves.fits (magnification, critical curves, caustics), "
    "and config.json, from which --config repeats the run.\n\n"
    "To watch it: tensorboard --logdir OUT"
)


def fit(
    context: typer.Context,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the results; made if missing.", rich_help_panel=_OUTPUT),
    ],
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE.fits",
            help="FITS file with image, noise (1 sigma), PSF and, if there is one, mask (non-zero = BAD), an "
            "extension each. With --config it may be left out.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[str, typer.Option(help="Extension of the image.", rich_help_panel=_INPUT)] = "SCI",
    noise: Annotated[str, typer.Option(help="Extension of the noise map.", rich_help_panel=_INPUT)] = "ERR",
    psf: Annotated[str, typer.Option(help="Extension of the PSF (odd size).", rich_help_panel=_INPUT)] = "PSF",
    mask: Annotated[
        str, typer.Option(help="Extension of the mask; not needed if missing.", rich_help_panel=_INPUT)
    ] = "MASK",
    no_mask: Annotated[
        bool, typer.Option("--no-mask", help="Use every pixel, whatever the mask says.", rich_help_panel=_INPUT)
    ] = False,
    noise_file: Annotated[
        str | None,
        typer.Option(metavar="PATH[EXT]", help="Noise map in a file of its own.", rich_help_panel=_INPUT),
    ] = None,
    psf_file: Annotated[
        str | None, typer.Option(metavar="PATH[EXT]", help="PSF in a file of its own.", rich_help_panel=_INPUT)
    ] = None,
    mask_file: Annotated[
        str | None, typer.Option(metavar="PATH[EXT]", help="Mask in a file of its own.", rich_help_panel=_INPUT)
    ] = None,
    pixel_scale: Annotated[
        float | None,
        typer.Option(
            help="Arcsec per pixel, if the header has neither PIXSCALE nor a WCS.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    noise_correlation: Annotated[
        str | None,
        typer.Option(
            metavar="auto|none|PATH[EXT]",
            help="How the noise of neighbouring pixels is correlated: auto measures it on the image's blank sky, none "
            "takes it for white. By default the extension CORR, if there is one.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    noise_scale: Annotated[
        str,
        typer.Option(
            metavar="auto|NUMBER",
            help="What the noise map is multiplied by: auto makes it that of the image's blank sky. Maps of drizzled "
            "images are often too large on purpose, to make up for a correlation that is not taken into account.",
            rich_help_panel=_INPUT,
        ),
    ] = "1",
    source: Annotated[
        Source,
        typer.Option(
            help="The lensed galaxy: drawn by the shipped neural network, or a Sersic profile (faster, smooth).",
            rich_help_panel=_MODEL,
        ),
    ] = Source.neural,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="A model of your own instead: its profiles, and priors, fixed values and ties of their parameters.",
            show_default=False,
            rich_help_panel=_MODEL,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of everything random: same seed, same draws.", rich_help_panel=_EFFORT)
    ] = 0,
    starts: Annotated[
        int, typer.Option(min=1, help="Points from which the best fit is sought.", rich_help_panel=_EFFORT)
    ] = 48,
    search_steps: Annotated[
        int, typer.Option(min=12, help="Steps of the search from every start.", rich_help_panel=_EFFORT)
    ] = 240,
    survivors: Annotated[
        int, typer.Option(min=1, help="Starts that are polished to an optimum.", rich_help_panel=_EFFORT)
    ] = 8,
    polish_steps: Annotated[
        int, typer.Option(min=1, help="Steps of the polish of every survivor.", rich_help_panel=_EFFORT)
    ] = 24,
    chains: Annotated[
        int, typer.Option(min=2, help="Independent chains of Hamiltonian Monte Carlo.", rich_help_panel=_EFFORT)
    ] = 8,
    warmup: Annotated[
        int, typer.Option(min=40, help="Steps of each chain that tune it and are dropped.", rich_help_panel=_EFFORT)
    ] = 120,
    draws: Annotated[
        int, typer.Option(min=20, help="Steps of each chain that are kept.", rich_help_panel=_EFFORT)
    ] = 300,
    rounds: Annotated[
        int,
        typer.Option(
            min=1,
            help="At the most: while chains disagree on the mass, a round is dropped and the next draws twice as much.",
            rich_help_panel=_EFFORT,
        ),
    ] = 3,
    supersampling: Annotated[
        int, typer.Option(min=1, help="Samples along each side of a pixel.", rich_help_panel=_EFFORT)
    ] = 2,
    sampler: Annotated[
        Sampler,
        typer.Option(
            help="From the best fit to the posterior: hmc; nuts; smc, for several solutions, with the evidence; or a "
            "variational fit, which approximates it and says how well.",
            rich_help_panel=_EFFORT,
        ),
    ] = Sampler.hmc,
    start: Annotated[
        Start,
        typer.Option(
            help="Where the search begins: broadly, or at a network's guesses, with which fewer --starts and "
            "--search-steps may do.",
            rich_help_panel=_EFFORT,
        ),
    ] = Start.broad,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Repeat the run of this config.json: its input, model and settings.",
            show_default=False,
            rich_help_panel=_INPUT,
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(help="Write events to OUT/tensorboard while the fit runs.", rich_help_panel=_OUTPUT),
    ] = True,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the results of an earlier fit in OUT.", rich_help_panel=_OUTPUT),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json instead of the table.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Fit a strong lens. See `_FIT_HELP`."""
    from tflens.config import Input, RunConfig

    if config is not None:
        _refuse_other_options(context)
    elif file is None:
        raise typer.BadParameter("give the file to fit, or --config", param_hint="FILE.fits")
    elif model is not None and context.get_parameter_source("source").name == "COMMANDLINE":
        raise typer.BadParameter("give either --source or --model, whose file names the source", param_hint="--model")
    with reporting() as messages:
        if config is not None:
            chosen = RunConfig.load(config)
            if file is not None:
                chosen = chosen.with_file(file)
        else:
            files = Input(
                file,
                image,
                noise,
                psf,
                None if no_mask else mask,
                noise_file,
                psf_file,
                mask_file,
                pixel_scale,
                noise_correlation=noise_correlation,
                noise_scale=noise_scale,
            )
            settings = {name: context.params[name] for name in _SETTINGS}
            chosen = RunConfig(files, source.value, settings, tables=_tables(model))
        _fit(chosen, out, overwrite, tensorboard, as_json, messages)


def info(as_json: Json = False) -> None:
    """Print versions, the devices TensorFlow computes on, and the shipped galaxy model."""
    with reporting(tensorflow=True):
        from tflens.run import describe_galaxies, provenance

        found, galaxies = provenance(), describe_galaxies()
        if as_json:
            print_json(found | {"galaxies": galaxies})
            return
        for name, version in found["versions"].items():
            print(f"{name:<24} {version}")
        print(f"{'platform':<24} {found['machine']['platform']}")
        print(f"{'devices':<24} {', '.join(found['machine']['processors'])}")
        print(f"{'commit':<24} {found['commit'] or 'not a checkout'}")
        print(f"{'galaxy model':<24} galaxies, version {galaxies['version']}")


# Arguments of FitSettings, which cannot be asked here without loading TensorFlow; a test compares the two.
_SETTINGS = (
    "seed",
    "starts",
    "search_steps",
    "survivors",
    "polish_steps",
    "chains",
    "warmup",
    "draws",
    "rounds",
    "supersampling",
    "sampler",
    "start",
)


def _tables(model: Path | None) -> dict[str, Any] | None:
    """Of a file that describes a model: refused here, before a folder is made for the results."""
    if model is None:
        return None
    from tflens.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    from tflens.model_file import checked_tables

    return checked_tables(model)


def _fit(config: "RunConfig", out: Path, overwrite: bool, tensorboard: bool, as_json: bool, messages: Console) -> None:
    from tflens.output import RESULTS
    from tflens.quiet import import_tensorflow_quietly
    from tflens.run import execute, prepare
    from tflens.terminal import result_table, showing_progress

    def note(message: str) -> None:
        messages.print(f"[yellow]note:[/] {escape(message)}", highlight=False, soft_wrap=True)

    job = prepare(config, out, overwrite=overwrite, note=note)
    say(messages, f"fitting {job.observation!r}")
    if tensorboard:
        say(messages, f"to watch: tensorboard --logdir {job.folder}")
    with showing_progress(messages) as monitor:
        import_tensorflow_quietly()
        fit = execute(job, tensorboard=tensorboard, monitor=monitor, note=note)
    if as_json:
        print_json({"folder": job.folder, **json.loads((job.folder / "summary.json").read_text())})
    else:
        results = results_console()
        results.print(result_table(fit))
        print_findings(fit.check(), results)
    say(messages, f"wrote {', '.join(RESULTS)} to {job.folder}")


def _refuse_other_options(context: typer.Context) -> None:
    """With --config, an option that it already holds would be a contradiction."""
    allowed = {"config", "file", "out", "overwrite", "tensorboard", "as_json"}
    given = [
        name
        for name in context.params
        if name not in allowed and context.get_parameter_source(name).name == "COMMANDLINE"
    ]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise typer.BadParameter(f"{options} cannot be given with it, for it holds them", param_hint="--config")


# In the order in which they are used.
_COMMANDS: dict[str, dict[str, Any]] = {
    "A galaxy model of your own": {"data": data_app, "train": train, "evaluate": evaluate_app},
    "Lenses": {"fit": fit, "fit-many": fit_many, "report": report, "convert": convert},
    "How often fits are right": {"simulate": simulate, "calibrate": calibrate},
    "Without this package": {"export": export_app, "serve": serve},
    "Looking back": {"compare": compare, "info": info},
}
_HELP = {"fit": _FIT_HELP, "serve": SERVE_HELP}


def _flowing(text: str) -> str:
    """A docstring whose lines the terminal breaks, not the source."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))


for _panel, _inside in _COMMANDS.items():
    for _name, _command in _inside.items():
        if isinstance(_command, typer.Typer):
            for _sub in _command.registered_commands:
                _sub.help = _flowing(_sub.help or _sub.callback.__doc__)
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, help=_HELP.get(_name) or _flowing(_command.__doc__), rich_help_panel=_panel)(_command)
