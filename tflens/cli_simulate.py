"""The command line of mock observations: `tflens simulate`."""

from pathlib import Path
from typing import Annotated

import typer

from tflens.terminal import Json, print_json, reporting, say, two_numbers


def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the lenses; made if missing.")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="A model, as for `tflens fit --model`, whose prior the lenses are drawn from. By default a power law "
            "with shear, a Sersic profile of lens light and a neural galaxy, as in `tflens calibrate`.",
            show_default=False,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Lenses.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random; lens i does not depend on --n.")] = 0,
    shape: Annotated[str, typer.Option(metavar="NY,NX", help="Pixels of an image.")] = "52,54",
    pixel_scale: Annotated[float, typer.Option(help="Arcsec.")] = 0.1,
    fwhm: Annotated[float, typer.Option(help="Of the PSF, a Gaussian, arcsec.")] = 0.16,
    peak_snr: Annotated[
        str, typer.Option(metavar="LOW,HIGH", help="S/N of the brightest pixel of the arcs, log-uniform.")
    ] = "10,50",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that has content.")] = False,
    as_json: Json = False,
) -> None:
    """Draw lenses from a model's prior: OUT/mock-0000.fits and so on, as `tflens fit` reads them, and OUT/truth.csv.

    `tflens fit-many OUT/truth.csv` fits them all.
    """
    with reporting(tensorflow=True) as messages:
        from tflens.galaxies import NeuralSource
        from tflens.grid import PixelGrid
        from tflens.inference.mock_lenses import lens_model
        from tflens.inference.mocks import Survey, gaussian_psf, write_mocks
        from tflens.model_file import read_model
        from tflens.output import prepare_folder

        sizes = two_numbers("--shape", shape)
        grid = PixelGrid(tuple(int(size) if size.is_integer() else size for size in sizes), pixel_scale)
        survey = Survey(grid, gaussian_psf(fwhm, pixel_scale), two_numbers("--peak-snr", peak_snr))
        chosen = read_model(model) if model else lens_model(NeuralSource())
        table = write_mocks(survey, chosen, n, seed, prepare_folder(out, overwrite), overwrite)
        say(messages, f"wrote {n} lenses and {table}")
        if as_json:
            print_json({"lenses": n, "truth": table})
