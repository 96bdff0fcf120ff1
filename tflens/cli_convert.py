"""The command line of exchange formats: `tflens convert`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tflens.errors import ParameterError
from tflens.terminal import Json, print_paths, reporting, say


class Format(StrEnum):
    """What a fit may be converted to."""

    coolest = "coolest"
    lenstronomy = "lenstronomy"


def convert(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Output folder of `tflens fit`.")],
    to: Annotated[
        Format,
        typer.Option(
            help="coolest: the exchange standard, a template with FITS files and the draws beside it; lenstronomy: its "
            "keyword dictionaries as JSON, data and PSF included."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.json", help="The file to write.")],
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE.fits", help="The input of the fit, if it has been moved.", show_default=False),
    ] = None,
    z_lens: Annotated[
        float | None, typer.Option(min=0, help="Redshift of the lens, for coolest.", show_default=False)
    ] = None,
    z_source: Annotated[
        float | None, typer.Option(min=0, help="Redshift of the source, for coolest.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Json = False,
) -> None:
    """Write a fit in a form that other packages read: its best point, for COOLEST with the posterior."""
    with reporting(tensorflow=True) as messages:
        from tflens.coolest import to_coolest
        from tflens.lenstronomy_io import to_lenstronomy, write_lenstronomy
        from tflens.saved_fit import SavedFit

        if out.suffix != ".json":
            raise ParameterError(f"{out}: the name of the file must end in .json")
        if not out.resolve().parent.is_dir():
            raise ParameterError(f"{out.parent}: the folder of the file does not exist. Make it, or choose another.")
        fit = SavedFit(folder)
        observation = fit.observation(file)
        if not fit.has_best:
            say(messages, "note: this fit did not keep its best point; the best of its draws stands for it")
        if to is Format.coolest:
            redshifts = (z_lens, z_source)
            written = to_coolest(fit.best, out, observation, fit.posterior, redshifts=redshifts, overwrite=overwrite)
        else:
            if out.exists() and not overwrite:
                raise ParameterError(f"{out}: the file exists and is not overwritten. Choose another name.")
            write_lenstronomy(to_lenstronomy(fit.best, observation), out)
            written = [out]
        print_paths("files", written, as_json)
