"""One run, from files to an output folder: what the command line and the scripts call."""

import json
import platform
import subprocess
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflens import __version__
from tflens.config import RunConfig
from tflens.errors import ParameterError
from tflens.output import EVENTS, prepare_folder, write_results

if TYPE_CHECKING:
    from tflens.inference.pipeline import Fit, Fitter
    from tflens.inference.progress import Monitor, Status
    from tflens.model import LensModel
    from tflens.monitoring import TensorBoardMonitor
    from tflens.observation import Observation

Note = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A run that nothing refuses any more: the input is read and the folder is there."""

    config: RunConfig
    observation: "Observation"
    folder: Path


def prepare(config: RunConfig, folder: str | Path, *, overwrite: bool = False, note: Note = warnings.warn) -> Job:
    """Reads the observation and makes the output folder, without loading TensorFlow.

    Args:
        config: what to fit, with what, how.
        folder: for the results; see `tflens.output.RESULTS`.
        overwrite: whether the results of an earlier fit in `folder` may be replaced.
        note: told of what is odd but no error.

    Raises:
        ObservationError: the files do not hold an observation that can be fitted.
        ParameterError: the folder has content or cannot be written to.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        given, measured = config.input.measured()
        observation = given.read()
    for message in [*(str(warning.message) for warning in heard), *([measured] if measured else [])]:
        note(message)
    return Job(replace(config, input=given.with_digests()), observation, prepare_folder(folder, overwrite))


def execute(
    job: Job,
    *,
    tensorboard: bool = True,
    monitor: "Monitor | None" = None,
    note: Note = warnings.warn,
    fitter: "Fitter | None" = None,
) -> "Fit":
    """Fits, and writes the results.

    Args:
        job: from `prepare`.
        tensorboard: whether to write events for TensorBoard to `folder/tensorboard` on the way.
        monitor: told of the progress.
        note: told of what is odd but no error.
        fitter: from `make_fitter` for a job with the same model and settings, one that shares; None makes one.

    Raises:
        ParameterError: a setting breaks its rule; a configuration that was read from a file can no longer be repeated,
            since the model or its galaxies have changed; or a file cannot be written.
        SavedModelError: the galaxy model cannot be loaded.
    """
    from tflens.inference.progress import unwatched

    fitter = fitter or make_fitter(job.observation, job.config)
    here = {"model": describe_model(fitter.model) | describe_start(fitter.settings.start), **provenance()}
    _check_repeats(job.config.recorded, here, note)
    config = replace(job.config, settings=asdict(fitter.settings), recorded=here)
    with _events(job.folder / EVENTS if tensorboard else None) as events:
        told = [each for each in (monitor, events) if each is not None]

        def tell(status: "Status") -> None:
            for each in told:
                each(status)

        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            result = fitter.fit(job.observation, tell if told else unwatched)
        for warning in heard:
            if warning.category is UserWarning:
                note(str(warning.message))
            else:  # not ours to put into words, nor to keep back
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if config.shared is not None:
            config = replace(config, shared={**config.shared, "refine": _in_rows(result.refine)})
        write_results(result, config.as_dict(), job.folder)
        if events is not None:
            events.add_results(result)
    return result


def make_fitter(observation: "Observation", config: RunConfig) -> "Fitter":
    """What fits the observation of a run, and, if its configuration says `shared`, others like it.

    Raises:
        ParameterError: a setting, the file's model or the recorded sampling breaks a rule.
    """
    from tflens.inference.pipeline import Fitter
    from tflens.inference.settings import FitSettings

    known = [setting.name for setting in fields(FitSettings)]
    unknown = sorted(set(config.settings) - set(known))
    if unknown:
        raise ParameterError(f"settings: there is no setting {unknown[0]!r}; it has {', '.join(known)}")
    settings = FitSettings(**config.settings)
    model = build_model(observation, config)
    if config.shared is None:
        return Fitter(model, settings)
    return Fitter(model, settings, crop=False, refine=_of_rows(config.shared.get("refine"), observation))


def build_model(observation: "Observation", config: RunConfig) -> "LensModel":
    """The lens model of a run: that of a file, or the default one, with its source, around the lens in the image or
    around the centre that the configuration names.

    Raises:
        ParameterError: the file's model breaks a rule.
    """
    from tflens.inference.initial import find_center
    from tflens.inference.pipeline import default_model
    from tflens.light import Sersic

    if config.tables is not None:
        from tflens.model_file import model_of

        return model_of(config.tables)
    center = (config.shared or {}).get("center") or find_center(observation)
    return default_model(tuple(center), Sersic() if config.source == "sersic" else None)


def describe_model(model: "LensModel") -> dict[str, Any]:
    """Components, priors and weights of a model in plain values: equal descriptions, equal models."""
    from tflens.galaxies import NeuralSource

    description = {
        "components": {
            label: {"profile": type(profile).__name__, **profile.get_config()} for label, profile in model.labelled()
        },
        "priors": {",".join(entry.names): _describe(entry.prior) for entry in model.entries},
        "fixed": model.fixed,
        "tied": model.tied,
        "sky": model.sky,
        "dtype": model.dtype,
    }
    galaxies = [describe_galaxies(each.name, each.version) for each in model.sources if isinstance(each, NeuralSource)]
    if galaxies:
        description["galaxies"] = galaxies[0] if len(galaxies) == 1 else galaxies
    return description


def describe_galaxies(name: str | Path = "galaxies", version: int | str | None = None) -> dict[str, Any]:
    """Version and SHA-256 of the weights of a galaxy model."""
    from tflens.galaxies.source import find_galaxy_model

    directory = find_galaxy_model(name, version)
    return {"version": directory.name, "sha256": json.loads((directory / "config.json").read_text())["sha256"]}


def describe_start(start: str) -> dict[str, Any]:
    """Version and SHA-256 of the network that a search starts from, if it does."""
    return {"starter": describe_galaxies("starter")} if start == "network" else {}


def provenance() -> dict[str, Any]:
    """Versions, machine, and the commit if the package runs from a checkout."""
    import tensorflow as tf

    return {
        "versions": versions(),
        "machine": {
            "platform": platform.platform(),
            "processors": [device.name for device in tf.config.list_logical_devices()],
            "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        },
        "commit": commit(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of what its results depend on."""
    found = {"python": platform.python_version(), "tflens": __version__}
    for package in ("tensorflow", "keras", "tensorflow-probability", "numpy", "scipy", "astropy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # e.g. a TensorFlow that is installed under another name
            found[package] = "unknown"
    return found


def commit() -> str | None:
    """The git commit of the checkout that the package runs from, with "+changes" if files differ; else None."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _events(folder: Path | None) -> "AbstractContextManager[TensorBoardMonitor | None]":
    if folder is None:
        return nullcontext()
    from tflens.monitoring import TensorBoardMonitor

    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()  # TensorBoard would draw both runs as one
    return TensorBoardMonitor(folder)


def _in_rows(refine: "np.ndarray | None") -> list[str] | None:
    """A map of whole numbers `[ny, nx]`, a line for each row, for the eye."""
    return None if refine is None else [" ".join(str(n) for n in row) for row in refine]


def _of_rows(rows: list[str] | None, observation: "Observation") -> "np.ndarray | None":
    if rows is None:
        return None
    try:
        refine = np.array([row.split() for row in rows], int)
    except (AttributeError, ValueError):
        refine = np.zeros(0, int)
    if refine.shape != observation.image.shape or (refine < 1).any():
        raise ParameterError(
            f"shared.refine must have a row of whole numbers from 1 for each row of the image, "
            f"{observation.image.shape[0]} rows of {observation.image.shape[1]}; take it as it was written"
        )
    return refine


def _check_repeats(recorded: dict[str, Any], here: dict[str, Any], note: Note) -> None:
    if not recorded:
        return
    if recorded.get("model") != here["model"]:
        before = recorded.get("model") or {}
        differing = [key for key in here["model"] if before.get(key) != here["model"][key]] or ["model"]
        raise ParameterError(
            f"the run cannot be repeated: its configuration was written for another model (different: "
            f"{', '.join(differing)}). Use the version of tflens it was made with "
            f"({recorded.get('versions', {}).get('tflens')}, commit {recorded.get('commit')}), or fit without --config."
        )
    changed = [
        f"{name} {old} -> {here['versions'].get(name)}"
        for name, old in recorded.get("versions", {}).items()
        if here["versions"].get(name) != old
    ]
    if changed:
        note(f"versions differ from those of the recorded run ({', '.join(changed)}): the draws may differ")


def _describe(value: Any) -> Any:
    """A distribution, a bijector, or one of their arguments as plain values."""
    arguments = getattr(value, "parameters", None)
    if isinstance(arguments, dict):
        plumbing = {"validate_args", "allow_nan_stats", "name", "kwargs_split_fn"}
        kept = {k: _describe(v) for k, v in arguments.items() if k not in plumbing and v is not None}
        return {"type": type(value).__name__.lstrip("_"), **kept}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if hasattr(value, "numpy"):
        return value.numpy().tolist()
    return value if isinstance(value, str | bool | int | float) else type(value).__name__
