"""`report.html`: a fit on one page that needs nothing but a browser, made from the files of its output folder."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.results import Results

REPORT = "report.html"

# A level is told by sign and word; colour only repeats it.
SIGNS = {"ok": "✓", "note": "•", "warning": "▲", "failure": "✖"}

_DERIVED = {
    "einstein_radius": "Einstein radius by area: that of a circle as large as the area inside the tangential critical "
    "curve",
    "einstein_radius_convergence": "radius of the circle in which the mean convergence is 1",
    "flux": "flux of the source before lensing",
    "half_light_radius": "half-light radius of the source before lensing",
    "magnification": "light of the arcs over that of the source before lensing",
}


def write_report(folder: str | Path) -> Path:
    """Makes `report.html` anew from the other files of an output folder; nothing is fitted.

    Args:
        folder: that `tflens fit` wrote.

    Returns:
        Its path.

    Raises:
        ParameterError: the folder has not the files of a fit, one of them cannot be read, or the page not be written.
    """
    page = report_page(Results.load(folder))
    path = Path(folder) / REPORT
    try:
        write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{path}: cannot be written ({error.strerror or error}).") from error
    return path


def report_page(results: Results) -> str:
    """The page: HTML with its style and figures inside, without scripts, and without an address to fetch from."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from tflens.inference.check import R_HAT_FAILED, failed, verdict, worst_first
    from tflens.report_figures import image_pictures, posterior_pictures

    # Names of files and lenses come from others: everything is escaped but our own figures.
    environment = Environment(
        loader=PackageLoader("tflens"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    findings = results.findings()
    level = worst_first(findings)[0].level if findings else "note"
    return environment.get_template("report.html.j2").render(
        name=results.name or "a lens",
        verdict=verdict(findings) if findings else "nothing was checked",
        level=level,
        failed=failed(findings),
        findings=worst_first(findings),
        signs=SIGNS,
        key=_key_numbers(results),
        facts=_facts(results),
        components=_components(results.config),
        priors=_priors(results.config),
        settings=results.config.get("settings", {}),
        parameters=_parameters(results),
        r_hat_limit=R_HAT_FAILED,
        derived=_derived(results.summary),
        images=image_pictures(results),
        posterior=posterior_pictures(results),
        commands=commands(results.config),
        made_with=_made_with(results),
        config=json.dumps(_without_maps(results.config), indent=2),
        svg=Markup,
    )


def commands(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to type to repeat a fit, each with what it does; file names are quoted for the shell.

    Example:
        >>> commands({"input": {"file": "my lens.fits"}, "settings": {"seed": 3}})[1][1]
        "tflens fit 'my lens.fits' --out NEW_FOLDER --seed 3"
    """
    repeat = (
        "the same draws, from the config.json beside this page",
        "tflens fit --config config.json --out NEW_FOLDER",
    )
    given = config.get("input", {})
    if config.get("tables") is not None or config.get("shared") is not None or not given.get("file"):
        return [repeat]
    words = ["tflens", "fit", given["file"], "--out", "NEW_FOLDER"]
    usual = {"image": "SCI", "noise": "ERR", "psf": "PSF", "mask": "MASK", "noise_scale": 1.0}
    for name, value in given.items():
        if name in ("file", "sha256") or value == usual.get(name):
            continue
        if name == "mask" and value is None:
            words.append("--no-mask")
        elif isinstance(value, str | int | float):
            words += ["--" + name.replace("_", "-"), str(value)]
        elif value is not None:  # a measured kernel: the files alone do not say
            return [repeat]
    if config.get("source", "neural") != "neural":
        words += ["--source", config["source"]]
    for name, value in _unusual(config.get("settings", {})).items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return [repeat, ("the same from the image, in words", shlex.join(words))]


def prior_in_words(prior: Any) -> str:
    """A prior as `config.json` describes it, as a reader would say it; one of another kind as it stands there.

    Example:
        >>> prior_in_words({"type": "LogNormal", "loc": 0.0, "scale": 0.5})
        'log-normal, median 1, one sigma is a factor of 1.65'
    """
    if not isinstance(prior, Mapping):
        return json.dumps(prior)
    kind = prior.get("type")
    try:
        if kind == "Normal":
            return f"normal, {_number(prior['loc'])} ± {_number(prior['scale'])}"
        if kind == "LogNormal":
            factor = _number(math.exp(prior["scale"]))
            return f"log-normal, median {_number(math.exp(prior['loc']))}, one sigma is a factor of {factor}"
        if kind == "Uniform":
            return f"uniform between {_number(prior['low'])} and {_number(prior['high'])}"
        if kind == "TransformedDistribution":
            return _transformed_in_words(prior["distribution"], prior["bijector"])
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    return json.dumps(prior)


def _transformed_in_words(distribution: Mapping[str, Any], bijector: Mapping[str, Any]) -> str:
    kinds = distribution["type"], bijector["type"]
    if kinds == ("LogitNormal", "Chain"):
        shift, scale = bijector["bijectors"]
        low, width = shift["shift"], scale["scale"]
        median = low + width / (1 + math.exp(-distribution["loc"]))
        return f"bell-shaped between {_number(low)} and {_number(low + width)}, median {_number(median)}"
    if kinds == ("MultivariateNormalDiag", "Disc"):
        widths = distribution["scale_diag"]
        return (
            f"normal in the plane, width {_number(widths[0])}, kept inside a radius of {_number(bijector['maximum'])}"
        )
    raise ValueError("another kind")


def _number(value: float) -> str:
    return f"{value:.3g}"


def _key_numbers(results: Results) -> list[tuple[str, str, str]]:
    """The few that everyone asks for: what, value, unit."""
    derived, summary = results.summary.get("derived", {}), results.summary
    wanted = [
        ("Einstein radius (by area)", derived.get("lens.einstein_radius")),
        ("magnification of the source", derived.get("source.magnification")),
        ("flux of the source", derived.get("source.flux")),
    ]
    found = [(what, _interval(row), row["unit"]) for what, row in wanted if row and "median" in row]
    chi2 = summary.get("diagnostics", {}).get("chi2_arcs")
    if chi2 is not None:
        found.append(("chi² per pixel in the arcs", f"{chi2:.2f}", ""))
    return found


def _facts(results: Results) -> list[tuple[str, str]]:
    given, diagnostics = results.config.get("input", {}), results.summary.get("diagnostics", {})
    ny, nx = results.images["mask"].shape
    scale = (results.extent[1] - results.extent[0]) / nx
    parts = ", ".join(
        f"{part} {given[part + '_file'] if given.get(part + '_file') else given[part]}"
        for part in ("image", "noise", "psf", "mask")
        if given.get(part) is not None or given.get(part + "_file")
    )
    facts = [
        ("file", str(given.get("file", "not told"))),
        ("parts", parts),
        ("frame", f"{nx} x {ny} pixels of {scale:.4g} arcsec; {int(results.images['mask'].sum())} of them were used"),
        ("noise", _noise_in_words(given)),
        ("sampler", _sampler_in_words(results.config.get("settings", {}), diagnostics)),
    ]
    facts += [(f"SHA-256 of the {what.replace('_', ' ')}", digest) for what, digest in given.get("sha256", {}).items()]
    return [(what, value) for what, value in facts if value]


def _noise_in_words(given: Mapping[str, Any]) -> str:
    scale, correlation = given.get("noise_scale", 1.0), given.get("noise_correlation")
    words = "as its map says" if scale == 1.0 else f"its map times {scale:.4g}"
    if isinstance(correlation, list):
        return f"{words}; neighbours are correlated, with a kernel of {len(correlation[0])} x {len(correlation)} pixels"
    return words + ("" if correlation is None else "; white")


def _sampler_in_words(settings: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> str:
    name = {
        "hmc": "Hamiltonian Monte Carlo",
        "nuts": "no-U-turn sampler",
        "smc": "sequential Monte Carlo",
        "vi-gaussian": "variational fit of a Gaussian",
        "vi-iaf": "variational fit of a flow",
    }.get(settings.get("sampler", "hmc"), str(settings.get("sampler")))
    return f"{name}, {diagnostics.get('chains', '?')} chains of {diagnostics.get('draws', '?')} draws"


def _components(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, profile, settings of every component."""
    rows = []
    for label, component in config.get("model", {}).get("components", {}).items():
        rest = {key: value for key, value in component.items() if key != "profile" and value is not None}
        rows.append((label, component.get("profile", "?"), ", ".join(f"{k} {v}" for k, v in rest.items())))
    if config.get("model", {}).get("sky"):
        rows.append(("sky", "constant", "of either sign"))
    return rows


def _priors(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = config.get("model", {})
    rows = [(names.replace(",", ", "), prior_in_words(prior)) for names, prior in model.get("priors", {}).items()]
    rows += [(name, f"fixed at {_number(value)}") for name, value in model.get("fixed", {}).items()]
    rows += [(name, f"the same as {other}") for name, other in model.get("tied", {}).items()]
    return rows


def _parameters(results: Results) -> list[dict[str, Any]]:
    meanings = _meanings(results.config)
    rows = []
    for name, row in results.summary.get("parameters", {}).items():
        rows.append({"name": name, "meaning": meanings.get(name, ""), **_row(row)})
    return rows


def _derived(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, row in summary.get("derived", {}).items():
        if row.get("median") is not None:
            rows.append({"name": name, "meaning": _DERIVED.get(name.rpartition(".")[2], ""), **_row(row)})
    return rows


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    decimals = _decimals(row)
    return {
        "value": _interval(row),
        "unit": row.get("unit") or "",
        "wide": f"{row['low95']:.{decimals}f} to {row['high95']:.{decimals}f}",
        "r_hat": row.get("r_hat"),
        "ess": row.get("ess"),
    }


def _interval(row: Mapping[str, Any]) -> str:
    """Median with the distances to the ends of the central 68 %."""
    decimals = _decimals(row)
    low, high = row["median"] - row["low"], row["high"] - row["median"]
    return f"{row['median']:.{decimals}f} +{high:.{decimals}f} -{low:.{decimals}f}"


def _decimals(row: Mapping[str, Any]) -> int:
    from tflens.plotting import interval_decimals

    return interval_decimals(row["low"], row["median"], row["high"])


def _meanings(config: Mapping[str, Any]) -> dict[str, str]:
    """What the parameters are, by full name, as their profiles declare them."""
    from tflens import galaxies, light, mass

    found = {"sky.amp": "brightness of the sky"}
    for label, component in config.get("model", {}).get("components", {}).items():
        kind = next(
            (
                getattr(m, component.get("profile", ""), None)
                for m in (mass, light, galaxies)
                if hasattr(m, component.get("profile", ""))
            ),
            None,
        )
        declared = getattr(kind, "parameters", ())
        for parameter in declared if isinstance(declared, tuple) else ():
            found |= {f"{label}.{name}": parameter.description for name in parameter.names}
        found[f"{label}.amp"] = "amplitude"
    return found


def _made_with(results: Results) -> list[tuple[str, str]]:
    config, seconds = results.config, results.summary.get("seconds", {})
    machine = config.get("machine", {})
    facts = [
        ("seed", str(config.get("settings", {}).get("seed", "not told"))),
        ("commit", str(config.get("commit") or "not from a checkout")),
        *((name, str(version)) for name, version in config.get("versions", {}).items()),
        (
            "machine",
            ", ".join([str(machine.get("platform", "")), *map(str, machine.get("processors", []))]).strip(", "),
        ),
        ("time", ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items() if value is not None)),
    ]
    galaxies = config.get("model", {}).get("galaxies")
    for each in [galaxies] if isinstance(galaxies, Mapping) else galaxies or []:
        facts.append(("galaxy model", f"version {each.get('version')}"))
    return [(what, value) for what, value in facts if value]


def _unusual(settings: Mapping[str, Any]) -> dict[str, Any]:
    from tflens.inference.settings import FitSettings

    usual = FitSettings()
    return {name: value for name, value in settings.items() if value != getattr(usual, name, None)}


def _without_maps(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what is too long to read."""
    shared = config.get("shared")
    if not shared or not shared.get("refine"):
        return dict(config)
    return {**config, "shared": {**shared, "refine": f"({len(shared['refine'])} rows, see config.json)"}}
