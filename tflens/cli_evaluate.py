"""The command line of evaluations: `tflens evaluate galaxies`.

Tables go to stdout, messages to stderr; exit codes are those of `tflens.cli`.
"""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.terminal import Json, print_json, reporting, results_console, say, two_numbers

if TYPE_CHECKING:
    import numpy as np

    from tflens.datasets.records import Dataset
    from tflens.galaxies.evaluation import EvaluationSettings
    from tflens.galaxies.real_stamps import RealFits, RealStamps

evaluate_app = typer.Typer(
    help="Measure a trained model on what it has never seen.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Psf(StrEnum):
    """What galaxies are observed with."""

    hst = "hst"
    dataset = "dataset"


@evaluate_app.callback()
def root() -> None:
    """Measure a trained model on what it has never seen."""


@evaluate_app.command()
def galaxies(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for figures and galaxies.json; made if missing.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Models: a shipped one by name, or a folder. The shipped galaxies if none is given.",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="A model with a name for the tables; may be repeated."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset of simulated galaxies (tflens data simulate); its test split is measured."),
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="Stamps of real galaxies (.npz), to be fitted with correlated noise.")
    ] = None,
    galaxies: Annotated[int, typer.Option(min=20, help="Held-out galaxies, and as many samples of the prior.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    latent_snr: Annotated[
        str | None,
        typer.Option(
            metavar="LOWEST,HIGHEST",
            help="S/N of the L figures; that of the model's training if its training.json says it, else 15,50.",
        ),
    ] = None,
    psf: Annotated[Psf, typer.Option(help="hst, or the one in the dataset's manifest.")] = Psf.hst,
    optimised: Annotated[int, typer.Option(min=0, help="Galaxies whose u is found by optimisation as well.")] = 128,
    latent_seeds: Annotated[int, typer.Option(min=1, help="Repetitions of L1 and L2, comparisons of draws.")] = 5,
    iwae_galaxies: Annotated[int, typer.Option(min=0, help="Galaxies of L4, the likelihood; 0 leaves it out.")] = 1000,
    iwae_samples: Annotated[int, typer.Option(min=1, help="Draws of q a galaxy for L4.")] = 500,
    processes: Annotated[int, typer.Option(min=1, help="That measure morphology.")] = 2,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps measured morphologies.")] = None,
    records: Annotated[
        Path | None, typer.Option(help="File of the records; OUT/galaxies.json by default.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure galaxy models: what they draw (figures G) and their prior (figures L), beside what the truth itself would
    reach and what is aimed at; with --real, chi^2 of real galaxies.

    Records of other variants in the file stay there, so that an ablation may be measured piece by piece.
    """
    if data is None and real is None:
        raise typer.BadParameter("give --data, --real, or both", param_hint="--data")
    with reporting(tensorflow=True) as messages:
        from tflens.galaxies.evaluation import EvaluationSettings
        from tflens.run import commit

        named = _named_models(models or [], variant or [])
        file = records or out / "galaxies.json"
        out.mkdir(parents=True, exist_ok=True)
        asked = ["tflens", "evaluate", "galaxies", *(models or [])]
        asked += [part for name in variant or [] for part in ("--variant", name)]
        noted = {"commit": commit()}
        measured: list[dict[str, Any]] = []
        for name, model in named.items():
            folder = out if len(named) == 1 else out / name.replace("/", "_")
            if data is not None:
                trained = _training(model)
                settings = EvaluationSettings(
                    galaxies=galaxies,
                    seed=seed,
                    latent_snr=two_numbers("--latent-snr", latent_snr) if latent_snr else trained["snr"],
                    optimised=optimised,
                    prior_draws=trained["draws"],
                    latent_seeds=latent_seeds,
                    iwae_galaxies=iwae_galaxies,
                    iwae_samples=iwae_samples,
                    processes=processes,
                    cache=cache,
                )
                sizes = ["--galaxies", str(galaxies), "--seed", str(seed), *_given(context, _FIGURES_DEPEND_ON)]
                command = shlex.join([*asked, "--data", str(data), *sizes])
                output = _Output(folder, file, {"command": command, **noted}, as_json, messages)
                measured += _evaluate(model, name, data, psf, settings, output)
            if real is not None:
                command = shlex.join([*asked, "--real", str(real), "--seed", str(seed)])
                output = _Output(folder, file, {"command": command, **noted}, as_json, messages)
                measured += _fit_real(model, name, real, seed, output)
        if as_json:
            print_json({"records": measured, "file": file})


# Beside the number of galaxies and the seed; the other options change where results go, or how fast.
_FIGURES_DEPEND_ON = ("latent_snr", "psf", "optimised", "latent_seeds", "iwae_galaxies", "iwae_samples")


def _given(context: typer.Context, names: Iterable[str]) -> list[str]:
    """The options of these names as they were written on the command line, for a record that can be repeated."""
    chosen = [name for name in names if context.get_parameter_source(name).name == "COMMANDLINE"]
    return [part for name in chosen for part in ("--" + name.replace("_", "-"), str(context.params[name]))]


def g_table(records: list[dict[str, Any]], variant: str) -> Table:
    """A row for each of the G figures of a variant."""
    from tflens.galaxies.targets import NAMES

    table = Table(title=f"{variant}: held-out galaxies", title_justify="left")
    for heading in ("", "figure", "S/N", "of", "value", "from - to", "null", "reach", "beat", "", "elsewhere"):
        numeric = heading in ("value", "from - to", "null")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=heading != "elsewhere")
    for r in (r for r in records if r["variant"] == variant and r["id"].startswith("G")):
        low, high = r["spread"]
        table.add_row(
            r["id"],
            NAMES[r["id"]],
            r["snr"] or "-",
            r.get("method") or "prior samples",
            f"{r['value']:.3f}",
            f"{low:.3f} - {high:.3f}",
            f"{r['null']:.3f}",
            *_aims(r),
            _verdict(r["verdict"]),
            r["anchor"] or "",
        )
    return table


def l_table(records: list[dict[str, Any]], variant: str) -> Table:
    """A row for each prior, then the null and the aims."""
    from tflens.galaxies.targets import ANCHORS, FIRST_TRY

    chosen = [r for r in records if r["variant"] == variant and r["id"].startswith("L")]
    columns = {
        "C2ST": ("L1", None),
        "sliced W1 / null": ("L2", None),
        "nats over full Gaussian": ("L3", "full Gaussian"),
        "nats over best mixture": ("L3", "best mixture"),
        "IWAE over N(0, I)": ("L4", None),
    }
    found = {
        (r["prior"], heading): r
        for r in chosen
        for heading, (id, over) in columns.items()
        if r["id"] == id and (over is None or r.get("over", "").startswith(over))
    }
    snr = chosen[0]["snr"] if chosen else "-"
    table = Table(title=f"{variant}: prior against aggregate posterior, S/N {snr}", title_justify="left")
    table.add_column("prior", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for prior in dict.fromkeys(r["prior"] for r in chosen):
        cells = [found.get((prior, heading)) for heading in columns]
        table.add_row(prior, *(_cell(r) for r in cells))
    table.add_section()
    flow = [found.get(("flow", heading)) for heading in columns]
    table.add_row("null", *(f"{r['null']:.3f}" if r else "" for r in flow))
    table.add_row("reach", *(_aims(r)[0] if r else "" for r in flow))
    table.add_row("beat", *(_aims(r)[1] if r else "" for r in flow))
    table.add_row("elsewhere", *(FIRST_TRY.get(id) or ANCHORS.get(id, "") for id, _ in columns.values()))
    return table


def real_table(stamps: "RealStamps", fits: "RealFits", variant: str) -> Table:
    """A row for each real galaxy."""
    table = Table(title=f"{variant}: real galaxies, whitened chi^2 per pixel", title_justify="left")
    for heading in ("galaxy", "mag", "S/N", "u optimised", "encoder", "|u|^2/D"):
        table.add_column(heading, justify="right")
    for i in range(len(fits.chi2)):
        good = fits.chi2[i] < _GOOD
        table.add_row(
            str(stamps.ident[i]),
            f"{stamps.mag[i]:.2f}",
            f"{stamps.snr[i]:.0f}",
            f"[{'green' if good else 'yellow'}]{fits.chi2[i]:.3f}[/]",
            f"{fits.chi2_encoder[i]:.3f}",
            f"{fits.u2[i]:.2f}",
        )
    return table


_GOOD = 1.15
"""Whitened chi^2 per pixel below which a real galaxy counts as fitted."""


@dataclass(frozen=True)
class _Output:
    """Where the results of a model go: its figures, its records with what is noted in each, and what is printed."""

    folder: Path
    file: Path
    noted: dict[str, Any]
    as_json: bool
    messages: Console


def _evaluate(
    model: Path,
    name: str,
    data: Path,
    psf: Psf,
    settings: "EvaluationSettings",
    output: "_Output",
) -> list[dict[str, Any]]:
    from tflens.datasets.records import load_dataset
    from tflens.galaxies.evaluation import evaluate_galaxy_model
    from tflens.galaxies.pictures import draw_evaluation
    from tflens.galaxies.source import load_galaxy_model
    from tflens.measured import keep_records

    train, test = load_dataset(data, "train"), load_dataset(data, "test")
    found = evaluate_galaxy_model(
        load_galaxy_model(model),
        train,
        test,
        name,
        settings,
        _kernel(psf, test, data),
        lambda message: say(output.messages, message),
    )
    records = [{**record, **output.noted} for record in found.records]
    keep_records(output.file, records)
    paths = draw_evaluation(found, output.folder)
    if not output.as_json:
        tables = results_console()
        tables.print(g_table(found.records, name))
        tables.print(l_table(found.records, name))
    say(output.messages, f"wrote {output.file} and {len(paths)} figures to {output.folder}")
    return records


def _fit_real(model: Path, name: str, real: Path, seed: int, output: "_Output") -> list[dict[str, Any]]:
    import numpy as np

    from tflens.galaxies.pictures import real_stamps_figure
    from tflens.galaxies.real_stamps import fit_real_stamps, load_real_stamps
    from tflens.galaxies.source import load_galaxy_model
    from tflens.measured import keep_records

    stamps = load_real_stamps(real)
    fits = fit_real_stamps(
        load_galaxy_model(model), stamps, seed=seed, report=lambda message: say(output.messages, f"{name}: {message}")
    )
    good = float(np.mean(fits.chi2 < _GOOD))
    record = {
        "id": "real",
        "variant": name,
        "value": good,
        "spread": np.percentile(fits.chi2, [16, 84]).tolist(),
        "null": 1.0,
        "n": len(fits.chi2),
        "seed": seed,
        "reach": None,
        "beat": None,
        "modes": fits.modes,
        "median": float(np.median(fits.chi2)),
        "encoder": float(np.mean(fits.chi2_encoder < _GOOD)),
        "galaxies": {str(ident): float(value) for ident, value in zip(stamps.ident, fits.chi2, strict=True)},
        **output.noted,
    }
    keep_records(output.file, [record])
    output.folder.mkdir(parents=True, exist_ok=True)
    picture = output.folder / "real.png"
    figure = real_stamps_figure(stamps, fits, name)
    write_atomically(picture, lambda path: figure.savefig(path, dpi=80))
    if not output.as_json:
        tables = results_console()
        tables.print(real_table(stamps, fits, name))
        say(
            tables,
            f"{good:.0%} of {len(fits.chi2)} real galaxies have a chi^2 below {_GOOD}, median "
            f"{np.median(fits.chi2):.3f}; {fits.modes} independent pixels each",
        )
    say(output.messages, f"wrote {output.file} and {picture}")
    return [record]


def _named_models(models: list[str], variants: list[str]) -> dict[str, Path]:
    """Names for the tables, and the folders of the models."""
    from tflens.galaxies.source import find_galaxy_model

    named: dict[str, Path] = {}
    pairs = [(None, model) for model in models]
    for variant in variants:
        name, equals, model = variant.partition("=")
        if not (name and equals and model):
            raise ParameterError(f"--variant must be NAME=MODEL, got {variant!r}")
        pairs.append((name, model))
    for name, model in pairs or [(None, "galaxies")]:
        folder = find_galaxy_model(model, None)
        name = name or (f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name)
        if name in named:
            raise ParameterError(f"two models are called {name!r}; name one of them by --variant NAME=MODEL")
        named[name] = folder
    return named


def _training(model: Path) -> dict[str, Any]:
    """What the prior was fitted to: the range of S/N, and the draws of q for each training galaxy."""
    for file in ("training.json", "metrics.json"):
        if (model / file).is_file():
            config = json.loads((model / file).read_text()).get("config", {})
            low, high = config.get("observation", {}).get("snr_range", (15.0, 50.0))
            return {"snr": (low, high), "draws": config.get("flow_training", {}).get("draws", 4)}
    return {"snr": (15.0, 50.0), "draws": 4}


def _kernel(psf: Psf, dataset: "Dataset", path: Path) -> "np.ndarray | None":
    import numpy as np

    if psf is Psf.hst:
        return None
    kernel = dataset.manifest.get("psf")
    if not isinstance(kernel, list):
        raise ParameterError(f"--psf dataset: the manifest of {path} has no PSF for all its galaxies")
    return np.asarray(kernel, np.float32)


def _aims(record: dict[str, Any]) -> tuple[str, str]:
    from tflens.galaxies.targets import target_of

    if record["verdict"] is None:
        return "", ""
    low = float(record["snr"].split("-")[0]) if record["snr"] else None
    target = target_of(record["id"], low, record.get("over", ""))
    return str(target.reach), str(target.beat)


def _cell(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    low, high = record["spread"]
    mark = f" {_verdict(record['verdict'])}" if record["verdict"] else ""
    return f"{record['value']:.3f} ({low:.3f} - {high:.3f}){mark}"


def _verdict(found: str | None) -> str:
    return f"[{_COLORS[found]}]{found}[/]" if found else ""


_COLORS = {"beat": "bold green", "reach": "green", "short": "yellow"}
