"""A lens model as a TOML file: a sentence that a person can write, and that a model can be turned back into."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import tomlkit

from tflens import light, mass
from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.light import LightProfile
from tflens.mass import MassProfile
from tflens.model import LensModel
from tflens.parameters import PRIORS, NamedPrior
from tflens.parsing import parse_toml
from tflens.profile import Profile
from tflens.psf_error import PSFError

Tables = dict[str, Any]


_OF_AN_IMAGE = {"Pixelated", "CenteredPixels", "PixelatedConvergence", "PixelatedPotential"}
_BASES = {"CircularMass"}  # classes to be derived from, which give no deflection


def _profiles(package: ModuleType, kind: type[Profile]) -> dict[str, type[Profile]]:
    """By name; but what takes an image, or is a base class, is no part of a model that a file could describe."""
    found = {name: getattr(package, name) for name in package.__all__ if name not in _OF_AN_IMAGE | _BASES}
    return {
        name: each for name, each in found.items() if inspect.isclass(each) and issubclass(each, kind) and each != kind
    }


_MASS, _LIGHT = _profiles(mass, MassProfile), _profiles(light, LightProfile)
_SOURCES = {**_LIGHT, NeuralSource.__name__: NeuralSource}
_KEYS = ("lens", "lens_light", "source", "sky", "psf_error", "dtype", "priors")


def read_model(path: str | Path) -> LensModel:
    """The lens model that a TOML file describes.

    Lists `lens` and `lens_light` and the table `source`, or a list of several, name profiles, each with its settings;
    what is left out is as in `LensModel`. In `priors` a parameter has a prior, by the name of its factory
    (`tflens.parameters.PRIORS`); or a number, which fixes it; or the name of the parameter that it is tied to:

        sky = true
        lens = [{ profile = "EPL" }, { profile = "Shear" }]
        lens_light = [{ profile = "Sersic" }, { profile = "Exponential" }]
        source = { profile = "NeuralSource" }
        psf_error = false

        [priors]
        "lens.theta_E" = { log_normal = { median = 1.2, scale = 0.2 } }
        "lens.gamma" = 2.0
        "light2.center_x" = "light1.center_x"

    Raises:
        ParameterError: the file is missing, is no TOML, or does not describe a model: names the file and the key.
    """
    tables = read_tables(path)
    try:
        return model_of(tables)
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from None


def checked_tables(path: str | Path) -> Tables:
    """The plain values of a file, for a configuration, once it is certain that they describe a model.

    Raises:
        ParameterError: as `read_model`.
    """
    read_model(path)
    return read_tables(path)


def read_tables(path: str | Path) -> Tables:
    """The plain values of a TOML file, of which `model_of` makes a model.

    Raises:
        ParameterError: the file is missing or is no TOML.
    """
    try:
        return parse_toml(Path(path).read_text())
    except FileNotFoundError:
        raise ParameterError(f"{path}: the file of the model does not exist. Check the path.") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: the file of the model must be readable TOML, but {error}") from None


def model_of(tables: Mapping[str, Any]) -> LensModel:
    """The lens model that plain values describe, as `read_model` says.

    Raises:
        ParameterError: a key, profile, setting or prior is unknown or breaks its rule.

    Example:
        >>> model = model_of({"source": {"profile": "Sersic"}, "priors": {"lens.gamma": 2.0}})
        >>> model.fixed
        {'lens.gamma': 2.0}
    """
    unknown = sorted(set(tables) - set(_KEYS))
    if unknown:
        raise ParameterError(f"unknown key {unknown[0]!r}; a model has {', '.join(_KEYS)}")
    settings = {key: tables[key] for key in ("sky", "dtype") if key in tables}
    for key in ("sky", "psf_error"):
        if not isinstance(tables.get(key, True), bool):
            raise ParameterError(f"{key} must be true or false, got {tables[key]!r}")
    settings["psf_error"] = PSFError() if tables.get("psf_error") else None
    if settings.get("dtype", "float32") not in ("float32", "float64"):
        raise ParameterError(f'dtype must be "float32" or "float64", got {settings["dtype"]!r}')
    for key, known in (("lens", _MASS), ("lens_light", _LIGHT)):
        if key in tables:
            if not isinstance(tables[key], Sequence) or isinstance(tables[key], str):
                raise ParameterError(f"{key} must be a list of profiles, got {tables[key]!r}")
            settings[key] = [_profile(each, known, f"{key}[{i}]") for i, each in enumerate(tables[key])]
    if "source" in tables:
        given = tables["source"]
        several = isinstance(given, Sequence) and not isinstance(given, str)
        settings["source"] = (
            [_profile(each, _SOURCES, f"source[{i}]") for i, each in enumerate(given)]
            if several
            else _profile(given, _SOURCES, "source")
        )
    priors = tables.get("priors", {})
    if not isinstance(priors, Mapping):
        raise ParameterError(f"priors must be a table of parameters, got {priors!r}")
    return LensModel(**settings, priors={name: _prior(name, value) for name, value in priors.items()})


def write_model(model: LensModel) -> str:
    """The text of a file from which `read_model` makes the same model.

    Raises:
        ParameterError: a profile is not one of tflens, or a prior is a distribution without a name; give one of
            `tflens.parameters.PRIORS`.

    Example:
        >>> from tflens.parameters import normal
        >>> print(write_model(LensModel(lens_light=[], priors={"lens.gamma": normal(2.0, 0.1)})))
        dtype = "float32"
        sky = true
        lens = [{profile = "EPL"}, {profile = "Shear"}]
        lens_light = []
        <BLANKLINE>
        [priors]
        "lens.gamma" = {normal = {loc = 2.0, scale = 0.1}}
        <BLANKLINE>
    """
    document = tomlkit.document()
    tables = tables_of(model)
    priors = tables.pop("priors")
    for key, value in tables.items():
        document[key] = _inline(value)
    if priors:
        document["priors"] = tomlkit.table()
        for name, value in priors.items():
            document["priors"][name] = _inline(value)
    return tomlkit.dumps(document)


def tables_of(model: LensModel) -> Tables:
    """The plain values that describe a model, of which `model_of` makes it again.

    Raises:
        ParameterError: as `write_model`.
    """
    tables = {
        "dtype": model.dtype,
        "sky": model.sky,
        **({} if model.psf_error is None else {"psf_error": True}),
        "lens": [_described(profile, _MASS) for profile in model.lens],
        "lens_light": [_described(profile, _LIGHT) for profile in model.lens_light],
    }
    sources = [_described(profile, _SOURCES) for profile in model.sources]
    if sources:
        tables["source"] = sources[0] if len(sources) == 1 else sources
    return {**tables, "priors": {name: _plain(name, prior) for name, prior in model.priors.items()}}


def _profile(described: Any, known: Mapping[str, type[Profile]], place: str) -> Profile:
    if not isinstance(described, Mapping) or not isinstance(described.get("profile"), str):
        raise ParameterError(f'{place} must be a table with a profile, such as {{ profile = "Sersic" }}')
    name = described["profile"]
    if name not in known:
        raise ParameterError(f"{place}: there is no profile {name!r}; there are {', '.join(known)}")
    given = {key: value for key, value in described.items() if key != "profile"}
    allowed = _settings(known[name])
    for key in given:
        if key not in allowed:
            raise ParameterError(f"{place}: {name} has no setting {key!r}; it has {', '.join(allowed) or 'none'}")
    missing = [key for key, value in allowed.items() if value.default is inspect.Parameter.empty and key not in given]
    if missing:
        raise ParameterError(f"{place}: {name} needs {', '.join(missing)}")
    try:
        return known[name].from_config(given)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{place}: {name} cannot be made of {given}: {error}") from None


def _described(profile: Profile, known: Mapping[str, type[Profile]]) -> Tables:
    name = type(profile).__name__
    if known.get(name) is not type(profile):
        raise ParameterError(f"a file of a model knows no profile {name}; there are {', '.join(known)}")
    defaults = {key: value.default for key, value in _settings(type(profile)).items()}
    settings = {key: value for key, value in profile.get_config().items() if value != defaults.get(key)}
    return {"profile": name, **settings}


def _settings(profile: type[Profile]) -> dict[str, inspect.Parameter]:
    if profile.__init__ is object.__init__:
        return {}
    return {name: each for name, each in inspect.signature(profile).parameters.items()}


def _prior(name: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return tuple(value) if isinstance(value, list) else value
    if len(value) != 1 or next(iter(value)) not in PRIORS:
        raise ParameterError(f"priors: {name} must be one of {', '.join(PRIORS)}, a number or a name, got {value!r}")
    ((kind, arguments),) = value.items()
    try:
        return PRIORS[kind](**arguments) if isinstance(arguments, Mapping) else PRIORS[kind](*arguments)
    except ParameterError as error:
        raise ParameterError(f"priors: {name}: {error}") from None
    except TypeError:
        wanted = ", ".join(inspect.signature(PRIORS[kind]).parameters)
        raise ParameterError(f"priors: {name}: {kind} takes {wanted}; got {arguments!r}") from None


def _plain(name: str, prior: Any) -> Any:
    if isinstance(prior, NamedPrior):
        return {prior.name: dict(prior.arguments)}
    if isinstance(prior, str | int | float):
        return prior
    if callable(prior) or hasattr(prior, "log_prob"):
        raise ParameterError(
            f"the prior of {name} has no name that a file could hold; make it by one of {', '.join(PRIORS)}"
        )
    return [float(each) for each in prior]


def _inline(value: Any) -> Any:
    """The value with its tables on one line each."""
    if isinstance(value, Mapping):
        table = tomlkit.inline_table()
        table.update({key: _inline(each) for key, each in value.items()})
        return table
    if isinstance(value, list | tuple):
        array = tomlkit.array()
        array.extend(_inline(each) for each in value)
        return array
    return value
