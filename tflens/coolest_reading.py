"""COOLEST templates, read: a scene, and the observation it is a model of."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from astropy.io import fits

from tflens.conventions import angle_from_x, ellipticity, exact_sersic, shear_components
from tflens.errors import ParameterError
from tflens.light import Pixelated, Sersic, Shapelets, Uniform
from tflens.mass import DPIE, EPL, NIE, SIE, ConvergenceSheet, Shear
from tflens.observation import Observation
from tflens.profile import Profile
from tflens.scene import Given, Scene, assemble_scene

Numbers = Mapping[str, Any]
Parts = dict[str, Any]


def from_coolest(path: str | Path) -> Scene:
    """The scene of a COOLEST template: its point estimates, with fixed parameters fixed and default priors elsewhere.

    The source is what has the largest redshift, or, where redshifts are missing, what has light and no mass. A
    PixelatedRegularGrid becomes a `Pixelated` source of unit flux, its flux an amplitude.

    Raises:
        ParameterError: `coolest` is not installed, the file is no valid template, a parameter has no value, or there
            are profiles, several lens planes or the like that are not converted.
    """
    path = Path(path)
    content = _read(path)
    lenses, sources = _planes(content["lensing_entities"], path)
    side = float(content["instrument"]["pixel_size"])
    mass = [_mass(profile, path) for entity in lenses for profile in entity["mass_model"]]
    lens_light = [_light(each, path, side, False) for entity in lenses for each in entity.get("light_model", [])]
    behind = [_light(each, path, side, True) for entity in sources for each in entity["light_model"]]
    own = content.get("meta", {}).get("tflens", {})
    return assemble_scene(mass, lens_light, behind, own.get("sky"))


def observation_from_coolest(path: str | Path) -> Observation:
    """The data of a COOLEST template: image, noise map, PSF and mask.

    Raises:
        ParameterError: as `from_coolest`; or noise or PSF are of a kind that is not read, or the field of view is not
            centred on the origin.
        ObservationError: what the files hold cannot be an observation.
    """
    path = Path(path)
    content = _read(path)
    data, instrument = content["observation"], content["instrument"]
    if data["noise"].get("type") != "NoiseMap" or instrument["psf"].get("type") != "PixelatedPSF":
        raise ParameterError(
            f"{path}: only a NoiseMap and a PixelatedPSF are read, got {data['noise'].get('type')} and "
            f"{instrument['psf'].get('type')}"
        )
    side = float(instrument["pixel_size"])
    for axis in "xy":
        low, high = data["pixels"][f"field_of_view_{axis}"]
        if abs(low + high) > 1e-6 * side:
            raise ParameterError(
                f"{path}: the field of view must be centred on the origin, got {low} to {high} in {axis}"
            )
    masks = [each["mask"] for each in content.get("likelihoods") or [] if each.get("mask")]
    mask = _pixels(masks[0], path) != 0 if masks and masks[0]["fits_file"]["path"] else None
    return Observation(
        _pixels(data["pixels"], path),
        _pixels(data["noise"]["noise_map"], path),
        _pixels(instrument["psf"]["pixels"], path),
        side,
        mask=mask,
        name=content.get("meta", {}).get("tflens", {}).get("name", path.stem),
        metadata={"FILTER": instrument["band"]} if instrument.get("band") else {},
    )


def template_classes() -> SimpleNamespace:
    """The classes of the package `coolest`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from coolest.template import lazy
            from coolest.template.standard import COOLEST
    except ImportError:
        raise ParameterError(
            "COOLEST templates need the package coolest, which is not installed: pip install tflens[coolest]"
        ) from None
    return SimpleNamespace(**vars(lazy), COOLEST=COOLEST)


def _read(path: Path) -> Parts:
    """The plain content of a template, once the package has found it valid."""
    template_classes()
    from coolest.template.json import JSONSerializer

    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ParameterError(f"{path}: the COOLEST template does not exist. Check the path.") from None
    except (OSError, ValueError) as error:
        raise ParameterError(f"{path}: a COOLEST template must be readable JSON, but {error}") from None
    try:
        absolute = path.resolve()
        JSONSerializer(str(absolute.with_suffix("")), check_external_files=False).load_simple(str(absolute))
    except (AssertionError, AttributeError, KeyError, NameError, TypeError, ValueError) as error:
        raise ParameterError(f"{path}: not a valid COOLEST template ({type(error).__name__}: {error})") from None
    return content


def _planes(entities: Sequence[Parts], path: Path) -> tuple[list[Parts], list[Parts]]:
    """Entities of the lens, and of the source."""
    known = [entity["redshift"] for entity in entities if entity["redshift"] is not None]
    if len(known) == len(entities) and len(set(known)) > 1:
        if len(set(known)) > 2:
            raise ParameterError(f"{path}: redshifts {sorted(set(known))}: several lens planes are not converted")
        sources = [entity for entity in entities if entity["redshift"] == max(known)]
    else:
        sources = [entity for entity in entities if entity.get("light_model") and not entity["mass_model"]]
    lenses = [entity for entity in entities if entity not in sources]
    if any(entity["mass_model"] for entity in sources):
        raise ParameterError(f"{path}: mass behind the lens is not converted (entity {sources[0]['name']!r})")
    return lenses, sources


def _pixels(grid: Parts, path: Path) -> np.ndarray:
    file = path.parent / str(grid["fits_file"]["path"])
    try:
        return np.asarray(fits.getdata(file), np.float64)
    except (OSError, TypeError, ValueError) as error:
        raise ParameterError(f"{path}: its file {file.name} must be a readable FITS image, but {error}") from None


def _point(profile: Parts, path: Path) -> tuple[Parts, frozenset[str]]:
    """Point estimates of a profile by name, and which of them are fixed."""
    values, fixed = {}, set()
    for name, parameter in profile["parameters"].items():
        value = parameter["point_estimate"]["value"]
        if value is None or value == []:
            raise ParameterError(f"{path}: {parameter.get('id') or name} has no point estimate")
        values[name] = value
        if parameter.get("fixed"):
            fixed.add(name)
    return values, frozenset(fixed)


def _e(v: Numbers) -> Parts:
    e1, e2 = ellipticity(v["q"], angle_from_x(v["phi"]))
    return {"e1": float(e1), "e2": float(e2), "center_x": v["center_x"], "center_y": v["center_y"]}


def _components_of_shear(v: Numbers) -> Parts:
    gamma1, gamma2 = shear_components(v["gamma_ext"], angle_from_x(v["phi_ext"]))
    return {"gamma1": float(gamma1), "gamma2": float(gamma2)}


_MASSES: dict[str, tuple[type[Profile], Callable[[Numbers], Parts]]] = {
    "PEMD": (EPL, lambda v: {"theta_E": v["theta_E"], "gamma": v["gamma"], **_e(v)}),
    "SIE": (SIE, lambda v: {"theta_E": v["theta_E"], **_e(v)}),
    "NIE": (NIE, lambda v: {"theta_E": v["theta_E"], "s_scale": v["r_core"], **_e(v)}),
    "Chameleon": (DPIE, lambda v: {"theta_E": v["b"], "Ra": v["s_c"], "Rs": v["s_t"], **_e(v)}),
    "ExternalShear": (Shear, _components_of_shear),
    "ConvergenceSheet": (ConvergenceSheet, lambda v: {"kappa": v["kappa_s"]}),
}
_LIGHTS = ("Sersic", "Uniform", "Shapelets", "PixelatedRegularGrid (as a source)")


# What each of our parameters follows from, of theirs: any of these sets. What is not here has one name.
_FOLLOWS: dict[str, tuple[frozenset[str], ...]] = {
    "e1": (frozenset({"q", "phi"}),),
    "e2": (frozenset({"q", "phi"}),),
    "gamma1": (frozenset({"gamma_ext", "phi_ext"}),),
    "gamma2": (frozenset({"gamma_ext", "phi_ext"}),),
    "theta_E": (frozenset({"theta_E"}), frozenset({"b"})),
    "s_scale": (frozenset({"r_core"}),),
    "Ra": (frozenset({"s_c"}),),
    "Rs": (frozenset({"s_t"}),),
    "kappa": (frozenset({"kappa_s"}),),
    "R_sersic": (frozenset({"theta_eff"}),),
    "n_sersic": (frozenset({"n"}),),
}


def _ours_fixed(values: Parts, fixed: frozenset[str]) -> frozenset[str]:
    """Our parameters that follow from what is fixed of theirs."""
    return frozenset(own for own in values if any(those <= fixed for those in _FOLLOWS.get(own, ({own},))))


def _mass(profile: Parts, path: Path) -> Given:
    if profile["type"] not in _MASSES:
        raise ParameterError(f"{path}: the mass profile {profile['type']} is not converted; {', '.join(_MASSES)} are")
    kind, convert = _MASSES[profile["type"]]
    theirs, fixed = _point(profile, path)
    values = convert(theirs)
    return Given(kind(), values, fixed=_ours_fixed(values, fixed))


def _light(profile: Parts, path: Path, side: float, behind: bool) -> Given:
    if profile["type"] == "PixelatedRegularGrid" and behind:
        return _grid_source(profile["parameters"]["pixels"], path, side)
    if profile["type"] not in ("Sersic", "Uniform", "Shapelets"):
        raise ParameterError(f"{path}: the light profile {profile['type']} is not converted; {', '.join(_LIGHTS)} are")
    theirs, fixed = _point(profile, path)
    if profile["type"] == "Uniform":
        return Given(Uniform(), {"amp": theirs["A"]})
    if profile["type"] == "Shapelets":
        amplitudes = {f"amp_{i}": value for i, value in enumerate(theirs["amps"])}
        shape = {name: theirs[name] for name in ("beta", "center_x", "center_y")}
        return Given(Shapelets(int(theirs["n_max"])), {**shape, **amplitudes, "amp": 1.0}, fixed=fixed & {*shape})
    amp, radius = exact_sersic(theirs["I_eff"], theirs["theta_eff"], theirs["n"])
    values = {"amp": float(amp), "R_sersic": float(radius), "n_sersic": theirs["n"], **_e(theirs)}
    return Given(Sersic(), values, fixed=_ours_fixed(values, fixed))


def _grid_source(grid: Parts, path: Path, data_side: float) -> Given:
    pixels = _pixels(grid, path)
    (left, right), (bottom, top) = grid["field_of_view_x"], grid["field_of_view_y"]
    ny, nx = pixels.shape
    side = (right - left) / nx
    if not (side > 0 and np.isclose(side, (top - bottom) / ny, rtol=1e-6)):
        raise ParameterError(
            f"{path}: the pixels of the source must be square, got {side} by {(top - bottom) / ny} arcsec"
        )
    flux = pixels * side**2 / data_side**2
    total = float(flux.sum())
    if not total > 0:
        raise ParameterError(f"{path}: the flux of the source's pixels must be positive, got {total}")
    values = {"center_x": (left + right) / 2, "center_y": (bottom + top) / 2, "scale": 1.0, "amp": total}
    return Given(Pixelated(side), values, image=flux / total)
