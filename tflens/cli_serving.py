"""The command line of SavedModels: `tflens export galaxies`, `lens` and `fit`, and `tflens serve`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tflens.cli_choices import Source
from tflens.errors import ParameterError
from tflens.terminal import Json, print_json, reporting, say, two_numbers

if TYPE_CHECKING:
    from tflens.grid import PixelGrid
    from tflens.model import LensModel
    from tflens.observation import Observation
    from tflens.serving.signature import Signature

export_app = typer.Typer(
    help="Write SavedModels that run without this package: in TensorFlow alone, in `tflens serve`, in TensorFlow "
    "Serving.",
    no_args_is_help=True,
)

_Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of models; OUT/NAME/VERSION is written, whole or not at all.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the version if it is there.")]


@export_app.command("galaxies")
def export_galaxies(
    out: _Out,
    model: Annotated[
        str, typer.Argument(help="A galaxy model: the name of one that is shipped, or the path of one.")
    ] = "galaxies",
    name: Annotated[
        str | None, typer.Option(help="In the server's addresses; that of the model if not given.", show_default=False)
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="That of the galaxy model, the newest there is, if not given.", show_default=False),
    ] = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """A galaxy model: `encode`, `decode`, `sample_prior`, `log_prior`.

    Prints the folder that was written. Its README.md tells what each signature takes and gives.
    """
    with reporting(tensorflow=True):
        from tflens.galaxies.source import find_galaxy_model, load_galaxy_model
        from tflens.serving.export import write_saved_model
        from tflens.serving.galaxies import galaxy_signatures

        folder = find_galaxy_model(model).resolve()
        galaxies = load_galaxy_model(model)
        numbered = folder.name.isdigit()
        about = {
            "title": "Galaxies drawn by a variational autoencoder with a normalising flow as its prior",
            "source": f"{folder.parent.name}/{folder.name}" if numbered else folder.name,
            "pixel_scale": galaxies.pixel_scale,
        }
        name = name or (folder.parent.name if numbered else folder.name)
        version = version or (int(folder.name) if numbered else 1)
        signatures = galaxy_signatures(galaxies)
        _print_export(write_saved_model(out, name, version, signatures, about, overwrite), signatures, as_json)


_Like = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.fits",
        help="An observation, as for `tflens fit`: grid and PSF are its own. Its data are not exported.",
        show_default=False,
    ),
]
_Shape = Annotated[
    str | None, typer.Option(metavar="NY,NX", help="Pixels of an image, without --like.", show_default=False)
]
_PixelScale = Annotated[
    float | None, typer.Option(help="Arcsec; with --like, if its header has none.", show_default=False)
]
_Source = Annotated[
    Source, typer.Option(help="The lensed galaxy: drawn by the shipped neural network, or a Sersic profile.")
]
_Model = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml", help="A model of your own instead, as for `tflens fit --model`.", show_default=False
    ),
]
_Supersampling = Annotated[int, typer.Option(min=1, help="Samples along each side of a pixel.")]
_Name = Annotated[str, typer.Option(help="In the server's addresses.")]
_Version = Annotated[int, typer.Option(min=1)]


@export_app.command("lens")
def export_lens(
    out: _Out,
    like: _Like = None,
    shape: _Shape = None,
    pixel_scale: _PixelScale = None,
    psf_fwhm: Annotated[
        float | None,
        typer.Option(help="Of a Gaussian PSF, arcsec, without --like; none if not given.", show_default=False),
    ] = None,
    source: _Source = Source.neural,
    model: _Model = None,
    supersampling: _Supersampling = 2,
    name: _Name = "lens",
    version: _Version = 1,
    overwrite: _Overwrite = False,
    as_json: Json = False,
    *,
    context: typer.Context,
) -> None:
    """A lens model on one grid with one PSF: `simulate`, `parameters`, `log_prob`.

    Give the grid by --like, or by --shape and --pixel-scale. Prints the folder that was written.
    """
    _check_grid(like, shape, pixel_scale, {"--psf-fwhm": psf_fwhm})
    _check_model(context, model)
    with reporting(tensorflow=True) as messages:
        from tflens.inference.mocks import gaussian_psf
        from tflens.serving.export import write_saved_model
        from tflens.serving.lens import lens_signatures

        grid, observation = _grid(messages, like, shape, pixel_scale, "`log_prob`")
        if observation is not None:
            psf = observation.psf
        else:
            psf = None if psf_fwhm is None else gaussian_psf(psf_fwhm, pixel_scale)
        chosen = _lens_model(model, source, observation)
        signatures = lens_signatures(chosen, grid, psf, supersampling)
        about = _about(chosen, grid, supersampling)
        _print_export(write_saved_model(out, name, version, signatures, about, overwrite), signatures, as_json)


@export_app.command("fit")
def export_fit(
    out: _Out,
    like: _Like = None,
    shape: _Shape = None,
    pixel_scale: _PixelScale = None,
    psf_side: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels along each side of the PSFs of requests, odd, without --like.", show_default=False
        ),
    ] = None,
    source: _Source = Source.neural,
    model: _Model = None,
    supersampling: _Supersampling = 2,
    starts: Annotated[int, typer.Option(min=1, help="Points from which the best fit is sought.")] = 32,
    survivors: Annotated[int, typer.Option(min=1, help="Starts that are polished.")] = 4,
    chains: Annotated[int, typer.Option(min=2, help="Independent chains.")] = 8,
    warmup: Annotated[int, typer.Option(min=40, help="Steps of each chain that tune it and are dropped.")] = 120,
    draws: Annotated[int, typer.Option(min=20, help="Steps of each chain that are kept.")] = 200,
    name: _Name = "fit",
    version: _Version = 1,
    overwrite: _Overwrite = False,
    as_json: Json = False,
    *,
    context: typer.Context,
) -> None:
    """The whole fit of lenses on one grid: `fit`, and `fit_without_xla` for servers without XLA.

    Takes image, noise, PSF, mask and seed; gives intervals of all parameters, images of the best model, its source, and
    diagnostics. Give the grid by --like, or by --shape, --pixel-scale and --psf-side. Prints the folder that was
    written.
    """
    _check_grid(like, shape, pixel_scale, {"--psf-side": psf_side})
    if like is None and psf_side is None:
        raise typer.BadParameter("give it, or --like", param_hint="--psf-side")
    _check_model(context, model)
    with reporting(tensorflow=True) as messages:
        from tflens.inference.settings import FitSettings
        from tflens.serving.export import write_saved_model
        from tflens.serving.fit import fit_signatures

        settings = FitSettings(
            starts=starts,
            survivors=survivors,
            chains=chains,
            warmup=warmup,
            draws=draws,
            rounds=1,  # a program of fixed length
            supersampling=supersampling,
        )
        grid, observation = _grid(messages, like, shape, pixel_scale, "`fit`")
        side = psf_side if observation is None else max(observation.psf.shape)
        chosen = _lens_model(model, source, observation)
        signatures = fit_signatures(chosen, grid, side, settings)
        about = _about(chosen, grid, supersampling) | {"psf_side": side, "settings": asdict(settings)}
        _print_export(write_saved_model(out, name, version, signatures, about, overwrite), signatures, as_json)


SERVE_HELP = (
    "Serve SavedModels over HTTP, by the REST interface of TensorFlow Serving.\n\n"
    "DIR holds NAME/VERSION/saved_model.pb, as `tflens export` writes them. Ask by POST to "
    "/v1/models/NAME:predict; /v1/models/NAME/metadata tells what there is, /healthz whether the server is up, "
    "/monitoring/prometheus/metrics how it does. Ends on Ctrl-C or SIGTERM, once requests in work are answered.\n\n"
    "WARNING: a SavedModel is a program, which can read and write files as you can. One that `tflens export` did not "
    "write, or that was changed since, is refused unless you --trust it: do so if it comes from somebody whose "
    "programs you would run. There is no password: whoever reaches the port can ask. With another --host than the "
    "default, that is whoever reaches this machine."
)
_LIMITS = "Limits"


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of models, or of the versions of one.")],
    host: Annotated[str, typer.Option(help="Address to listen at; by default this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8501,
    all_versions: Annotated[
        bool, typer.Option("--all-versions", help="Serve all versions of a model, not the newest alone.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Serve SavedModels that `tflens export` did not write, too.")
    ] = False,
    max_batch: Annotated[
        int,
        typer.Option(
            min=0, help="Rows computed in one call; 0 neither joins nor splits requests.", rich_help_panel=_LIMITS
        ),
    ] = 32,
    window: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a request waits for others.", rich_help_panel=_LIMITS)
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests in work or waiting; more get 429.", rich_help_panel=_LIMITS)
    ] = 256,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request.", rich_help_panel=_LIMITS)] = 1024,
    max_body: Annotated[
        float, typer.Option(min=0.001, max=4096, help="MB of a request; more get 413.", rich_help_panel=_LIMITS)
    ] = 16.0,
    timeout: Annotated[
        float, typer.Option(min=0.01, max=86400, help="Seconds for a request, then 504.", rich_help_panel=_LIMITS)
    ] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="Calls computed at once.", rich_help_panel=_LIMITS)] = 2,
) -> None:
    """Serve SavedModels. See `SERVE_HELP`."""
    with reporting(tensorflow=True) as messages:
        try:
            from tflens.serving.app import Limits
            from tflens.serving.server import listen, load_models, run
        except ModuleNotFoundError as error:
            raise ParameterError(f"tflens serve needs {error.name}: pip install 'tflens[serve]'") from None

        limits = Limits(int(max_body * 2**20), max_rows, queue, timeout, max_batch, window / 1000, workers)
        models = load_models(folder, all_versions, trust)
        with listen(host, port) as place:
            address, number = place.getsockname()[:2]
            base = f"http://{f'[{address}]' if ':' in address else address}:{number}"
            for model in models:
                say(messages, f"{base}/v1/models/{model.name}/versions/{model.version}: {', '.join(model.signatures)}")
            # On stdout and at once, for a program that waits for it.
            print(base, flush=True)
            idle = run(models, place, limits)
        say(messages, "stopped")
        if not idle:
            say(messages, "note: what took longer than the time limit was still running and is given up")
            os._exit(0)


def _print_export(folder: Path, signatures: "Sequence[Signature]", as_json: bool) -> None:
    if as_json:
        print_json({"folder": folder, "signatures": [signature.name for signature in signatures]})
    else:
        print(folder)


def _check_grid(
    like: Path | None, shape: str | None, pixel_scale: float | None, psf: Mapping[str, float | None]
) -> None:
    if like is None and (shape is None or pixel_scale is None):
        raise typer.BadParameter("give --like, or --shape and --pixel-scale", param_hint="--like")
    ((option, given),) = psf.items()
    if like is not None and (shape is not None or given is not None):
        raise typer.BadParameter(f"it has a grid and a PSF: no --shape and {option} with it", param_hint="--like")


def _check_model(context: typer.Context, model: Path | None) -> None:
    if model is not None and context.get_parameter_source("source").name == "COMMANDLINE":
        raise typer.BadParameter("give either --source or --model, whose file names the source", param_hint="--model")


def _grid(
    messages: Console, like: Path | None, shape: str | None, pixel_scale: float | None, signature: str
) -> "tuple[PixelGrid, Observation | None]":
    from tflens.grid import PixelGrid
    from tflens.observation import Observation

    if like is None:
        sizes = two_numbers("--shape", shape)
        return PixelGrid(tuple(int(size) if size.is_integer() else size for size in sizes), pixel_scale), None
    observation = Observation.from_fits(like, pixel_scale=pixel_scale)
    if observation.noise_correlation is not None:
        say(messages, f"note: {like} has correlated noise, but {signature} takes noise for white")
    return observation.grid, observation


def _lens_model(file: Path | None, source: Source, observation: object | None) -> "LensModel":
    from tflens.inference.initial import find_center
    from tflens.inference.pipeline import default_model
    from tflens.light import Sersic
    from tflens.model_file import read_model

    if file is not None:
        return read_model(file)
    center = (0.0, 0.0) if observation is None else find_center(observation)
    return default_model(tuple(center), Sersic() if source is Source.sersic else None)


def _about(model: "LensModel", grid: "PixelGrid", supersampling: int) -> dict:
    from tflens.run import describe_model

    return {
        "title": f"A strong lens on {grid.shape[0]} x {grid.shape[1]} pixels of {grid.pixel_scale:g} arcsec",
        "shape": list(grid.shape),
        "pixel_scale": grid.pixel_scale,
        "supersampling": supersampling,
        "names": list(model.names),
        "model": describe_model(model),
    }
