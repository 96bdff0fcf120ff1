"""The command line of calibration: `tflens calibrate`.

Tables go to stdout, messages to stderr; exit codes are those of `tflens.cli`.
"""

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tflens.errors import ParameterError
from tflens.terminal import reporting, say

if TYPE_CHECKING:
    import numpy as np

    from tflens.inference.pipeline import Fitter


class FittedWith(StrEnum):
    """The source of the fits."""

    flow = "flow"
    normal = "normal"
    sersic = "sersic"


def calibrate(
    run: Annotated[Path, typer.Option(help="Folder with a file for each finished mock; a killed run goes on.")],
    n: Annotated[int, typer.Option(min=1, help="Number of mocks.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the mocks.")] = 1,
    source: Annotated[
        FittedWith, typer.Option(help="Fits with the neural source and its flow, with N(0, I) for it, or a Sersic.")
    ] = FittedWith.flow,
    data: Annotated[
        Path | None, typer.Option(help="Dataset of simulated galaxies: its test split is lensed.", show_default=False)
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="Stamps of real galaxies (.npz) to be lensed.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Galaxy model: a shipped one by name, or a folder.")] = "galaxies",
    records: Annotated[Path | None, typer.Option(help="File of the records; RUN/fits.json by default.")] = None,
) -> None:
    """Fits mocks whose truth is known, each blind, and counts: figures F1-F7, and the failures one by one.

    Sources of the mocks: --data, --real, or, if neither is given, draws of the galaxy model's own prior.
    """
    if data is not None and real is not None:
        raise typer.BadParameter("give --data or --real, not both", param_hint="--data")
    with reporting(tensorflow=True) as messages:
        from tflens.galaxies.evaluation import keep_records
        from tflens.inference.calibration import figures, fitted_source, lens_model
        from tflens.inference.pipeline import Fitter
        from tflens.plotting import calibration_figure

        kind, stamps, pixel_scale = _stamps(data, real, model, n, seed)
        fitter = Fitter(lens_model(fitted_source(source.value, model)), _settings(), crop=False)
        results = []
        for index in range(n):
            file = run / f"{kind}-{source.value}-{seed}-{index:04d}.json"
            results.append(_result(file, fitter, stamps, pixel_scale, seed, index))
            say(messages, f"{index + 1} of {n}: {_line(results[-1])}")
        given = ["--data", str(data)] if data else ["--real", str(real)] if real else []
        command = shlex.join(
            ["tflens", "calibrate", "--n", str(n), "--seed", str(seed), "--source", source.value, *given]
        )
        run.mkdir(parents=True, exist_ok=True)
        variant = f"{kind} sources, fitted with {_FITTED[source]}"
        commits = ", ".join(sorted({result["commit"] for result in results}))
        common = {"variant": variant, "n": n, "seed": seed, "command": command, "commit": commits}
        found = [record | common for record in figures(results)]
        keep_records(records or run / "fits.json", found)
        calibration_figure(results).savefig(run / f"{kind}-{source.value}-{seed}.png", dpi=100)
        out = Console() if Console().is_terminal else Console(width=140)
        out.print(_table(found, variant))
        for result in results:
            if _failed(result):
                out.print(f"failed: {_line(result)}", highlight=False, soft_wrap=True)


_FITTED = {
    FittedWith.flow: "the flow prior",
    FittedWith.normal: "N(0, I)",
    FittedWith.sersic: "a Sersic profile",
}


def _settings() -> Any:
    from tflens.inference.pipeline import FitSettings

    return FitSettings(starts=32, survivors=4, draws=200)


def _stamps(data: Path | None, real: Path | None, model: str, n: int, seed: int) -> tuple[str, "np.ndarray", float]:
    """What they are, the galaxies `[N, n, n]`, and the side of their pixels, arcsec."""
    import numpy as np

    if data is not None:
        from tflens.datasets.records import load_dataset

        galaxies = load_dataset(data, "test")
        return "simulated", galaxies.images, float(galaxies.manifest["pixel_scale"])
    if real is not None:
        from tflens.galaxies.real_stamps import load_real_stamps

        stamps = load_real_stamps(real)
        return "real", np.asarray(stamps.images), stamps.pixel_scale
    from tflens.galaxies.source import load_galaxy_model

    galaxies = load_galaxy_model(model)
    return "prior", galaxies.sample_prior(n, seed).numpy(), galaxies.pixel_scale


def _result(
    file: Path, fitter: "Fitter", stamps: "np.ndarray", pixel_scale: float, seed: int, index: int
) -> dict[str, Any]:
    """Truth and fit of one mock, from its file if it has one."""
    from dataclasses import asdict

    from tflens.files import write_atomically
    from tflens.inference.calibration import compare, draw_mock
    from tflens.run import commit, describe_model

    made_with = json.loads(json.dumps({"model": describe_model(fitter.model), "settings": asdict(fitter.settings)}))
    if file.exists():
        found = json.loads(file.read_text())
        if found.get("made_with") != made_with:
            raise ParameterError(f"{file} is of another model or other settings; choose another --run, or remove it")
        return found
    mock = draw_mock(stamps, pixel_scale, seed, index)
    fit = fitter.fit(mock.observation, seed=index)
    result = {**compare(mock, fit), "made_with": made_with, "commit": commit()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda temporary: temporary.write_text(json.dumps(result, indent=1) + "\n"))
    return result


def _failed(result: dict[str, Any]) -> bool:
    from tflens.inference.calibration import failed

    return failed(result)


def _line(result: dict[str, Any]) -> str:
    theta_E = result["parameters"]["lens.theta_E"]
    z = (theta_E["median"] - theta_E["truth"]) / theta_E["std"]
    r_hat = max(found["r_hat"] for found in result["parameters"].values())
    return (
        f"{result['name']}: theta_E {theta_E['truth']:.4f}, fit {theta_E['median']:.4f} "
        f"({theta_E['median'] / theta_E['truth'] - 1:+.2%}, z {z:+.1f})"
        f"  chi^2 {result['chi2']:.3f}  R-hat of the mass {r_hat:.3f}, of all {result['max_r_hat']:.3f}  "
        f"source {result['source']['error']:.2f}  {result['seconds']:.0f} s"
    )


def _table(records: list[dict[str, Any]], variant: str) -> Table:
    table = Table(title=f"{records[0]['n']} mocks: {variant}", title_justify="left")
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
