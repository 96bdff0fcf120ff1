"""lenstronomy's keyword dictionaries, from a scene and back; lenstronomy itself is not needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflens.conventions import (
    amplitude_and_angle,
    exact_sersic,
    multipole_components,
    rounded_sersic,
    shear_components,
)
from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.light import (
    CoreSersic,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    LightProfile,
    MultiGaussian,
    Pixelated,
    Sersic,
    Shapelets,
    Uniform,
)
from tflens.mass import (
    DPIE,
    EPL,
    NFW,
    NIE,
    SIE,
    SIS,
    TNFW,
    ConvergenceSheet,
    EllipticalMass,
    EllipticalPotential,
    GaussianMass,
    Hernquist,
    MassProfile,
    MultiGaussianMass,
    Multipole,
    PointMass,
    SersicMass,
    Shear,
)
from tflens.observation import NO_DATA_IMAGE, NO_DATA_NOISE, Observation
from tflens.profile import Profile
from tflens.scene import Component, Given, Scene, assemble_scene, placed

Keywords = dict[str, Any]
Named = tuple[str, Keywords]
_CENTER = ("center_x", "center_y")


def to_lenstronomy(
    scene: Scene, observation: Observation | None = None, pixel_scale: float | None = None
) -> dict[str, Any]:
    """A scene as the dictionaries that lenstronomy's classes take.

    - `kwargs_model`: `lens_model_list`, `lens_light_model_list`, `source_light_model_list`;
    - `kwargs_result`: `kwargs_lens`, `kwargs_lens_light`, `kwargs_source`, a dictionary for each profile;
    - with an observation also `multi_band_list` (`kwargs_data`, `kwargs_psf`, `kwargs_numerics`) and
      `image_likelihood_mask_list` (1 = used), as `lenstronomy.ImSim.ImageModel` and `FittingSequence` take them.

    Differences in convention are those of docs/physics.md: Sersic radii and amplitudes are given for lenstronomy's
    rounded b_n, a `DPIE` becomes two NIE, a multipole amplitude and angle. The sky becomes a UNIFORM light of the lens,
    the last; ours is no light that the PSF could move, theirs is convolved, which only the pixels at the edge show.
    lenstronomy (1.14) draws square images only: others, and kernels, get a margin, masked in the image.
    Pixels that are not interpolated bilinearly, as those of a galaxy model, become four times as fine: theirs are.
    Flat sets of light (MULTI_GAUSSIAN_ELLIPSE, SHAPELETS) carry their common amplitude in each of theirs.

    Args:
        scene: what to write.
        observation: the data that it is a model of.
        pixel_scale: arcsec, of the pixels that the sky is counted in, without an observation.

    Raises:
        ParameterError: a profile or a setting has no counterpart; or there is a sky, and no pixel scale.

    Example:
        >>> from tflens.model import LensModel
        >>> model = LensModel([SIE(), Shear()], [], [], sky=False)
        >>> place = {"e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> scene = Scene(model, {"lens.theta_E": 1.2, **{f"lens.{k}": v for k, v in place.items()},
        ...                       "shear.gamma1": 0.02, "shear.gamma2": 0.0})
        >>> to_lenstronomy(scene)["kwargs_model"]["lens_model_list"]
        ['SIE', 'SHEAR']
    """
    if scene.model.psf_error is not None:
        raise ParameterError(
            "lenstronomy's dictionaries have no place for the error of the PSF that the model has fitted; fit without "
            "psf_error"
        )
    mass = [named for each in scene.mass for named in _mass(each)]
    lens_light = [_light(each) for each in scene.lens_light]
    sources = [_light(each) for each in scene.sources]
    if scene.model.sky:
        side = observation.pixel_scale if observation is not None else pixel_scale
        if side is None:
            raise ParameterError("to_lenstronomy: the sky is in counts/s per pixel: give an observation or pixel_scale")
        lens_light.append(("UNIFORM", {"amp": scene.sky / side**2}))
    groups = {"lens": mass, "lens_light": lens_light, "source": sources}
    lists = {"lens": "lens_model_list", "lens_light": "lens_light_model_list", "source": "source_light_model_list"}
    result: dict[str, Any] = {
        "kwargs_model": {lists[key]: [name for name, _ in group] for key, group in groups.items()},
        "kwargs_result": {f"kwargs_{key}": [keywords for _, keywords in group] for key, group in groups.items()},
    }
    if observation is not None:
        result["multi_band_list"] = [_band(observation)]
        result["image_likelihood_mask_list"] = [_square(observation.mask.astype(np.int8), 0)]
    return result


def from_lenstronomy(dictionaries: Mapping[str, Any]) -> Scene:
    """The scene that lenstronomy's dictionaries, arranged as `to_lenstronomy` does, describe.

    Priors of its model are our defaults. A UNIFORM that ends the lens light is the sky if `multi_band_list` says how
    large a pixel is, and a light without structure otherwise. Two NIE that differ in core and sign alone are a `DPIE`.
    An INTERPOL source becomes a `Pixelated` one.

    Raises:
        ParameterError: a profile or an option is not known here, or a keyword is missing or unknown; the message names
            it.

    Example:
        >>> scene = from_lenstronomy({
        ...     "kwargs_model": {"lens_model_list": ["SIS"]},
        ...     "kwargs_result": {"kwargs_lens": [{"theta_E": 1.5, "center_x": 0.0, "center_y": 0.1}]}})
        >>> scene.values["lens.theta_E"]
        1.5
    """
    kwargs_model, result = dictionaries["kwargs_model"], dictionaries["kwargs_result"]
    if kwargs_model.get("multi_plane") or kwargs_model.get("point_source_model_list"):
        raise ParameterError("from_lenstronomy: several lens planes and point sources are not converted")
    mass = _masses(kwargs_model.get("lens_model_list", []), result.get("kwargs_lens", []))
    lens_names = list(kwargs_model.get("lens_light_model_list", []))
    lens_keywords = list(result.get("kwargs_lens_light", []))
    area = _pixel_area(dictionaries)
    sky = None
    if area is not None and lens_names[-1:] == ["UNIFORM"]:
        sky = lens_keywords[-1]["amp"] * area
        lens_names, lens_keywords = lens_names[:-1], lens_keywords[:-1]
    lens_light = _lights(lens_names, lens_keywords, "lens_light")
    sources = _lights(kwargs_model.get("source_light_model_list", []), result.get("kwargs_source", []), "source_light")
    return assemble_scene(mass, lens_light, sources, sky)


def write_lenstronomy(dictionaries: Mapping[str, Any], path: str | Path) -> None:
    """Writes the dictionaries as JSON, arrays as lists of rows; `read_lenstronomy` makes arrays of them again."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} has no place in JSON")

    text = json.dumps(dictionaries, default=plain, allow_nan=False, indent=1)
    write_atomically(Path(path), lambda temporary: temporary.write_text(text + "\n"))


def read_lenstronomy(path: str | Path) -> dict[str, Any]:
    """The dictionaries of a file that `write_lenstronomy` made, with arrays where lenstronomy wants them.

    Raises:
        ParameterError: the file is missing, or not such JSON.
    """
    try:
        found = json.loads(Path(path).read_text())
        for key in ("kwargs_model", "kwargs_result"):
            if not isinstance(found[key], dict):
                raise TypeError(f"{key} must be a dictionary")
    except FileNotFoundError:
        raise ParameterError(f"{path}: the file of dictionaries does not exist. Check the path.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ParameterError(f"{path}: must be JSON with kwargs_model and kwargs_result, but {error!r}") from None
    for keywords in found["kwargs_result"].get("kwargs_source", []):
        if "image" in keywords:
            keywords["image"] = np.array(keywords["image"], np.float64)
    for data, psf, _ in found.get("multi_band_list", []):
        for keywords, names in ((data, ("image_data", "noise_map", "transform_pix2angle")), (psf, _KERNEL)):
            keywords |= {name: np.array(keywords[name], np.float64) for name in names if name in keywords}
    if "image_likelihood_mask_list" in found:
        found["image_likelihood_mask_list"] = [np.array(mask) for mask in found["image_likelihood_mask_list"]]
    return found


_KERNEL = ("kernel_point_source",)


def _band(observation: Observation) -> list[Keywords]:
    grid = observation.grid
    x, y = grid.coordinates()
    data = {
        "image_data": _square(observation.image, NO_DATA_IMAGE),
        "noise_map": _square(observation.noise, NO_DATA_NOISE),
        "ra_at_xy_0": float(x[0, 0]),
        "dec_at_xy_0": float(y[0, 0]),
        "transform_pix2angle": grid.pixel_scale * np.eye(2),
    }
    psf = {"psf_type": "PIXEL", "kernel_point_source": _square_kernel(observation.psf)}
    return [data, psf, {"supersampling_factor": 1, "supersampling_convolution": False}]


def _square(image: np.ndarray, filling: float) -> np.ndarray:
    """With pixels without data above or on the right, where coordinates stay what they are."""
    side = max(image.shape)
    return np.pad(image, [(0, side - n) for n in image.shape], constant_values=filling)


def _square_kernel(kernel: np.ndarray) -> np.ndarray:
    """With zeros on all sides, so that its middle stays its middle."""
    margins = [(max(kernel.shape) - n) // 2 for n in kernel.shape]
    return np.pad(kernel, [(margin, margin) for margin in margins])


def _pixel_area(dictionaries: Mapping[str, Any]) -> float | None:
    bands = dictionaries.get("multi_band_list")
    return None if not bands else abs(float(np.linalg.det(np.asarray(bands[0][0]["transform_pix2angle"]))))


# Ours to theirs.


def _mass(component: Component) -> list[Named]:
    profile, values = component.profile, component.values
    kind = type(profile)
    if kind in _SAME_MASS:
        return [(_SAME_MASS[kind], dict(values))]
    if kind is ConvergenceSheet:
        return [("CONVERGENCE", {**values, "ra_0": 0.0, "dec_0": 0.0})]
    if kind is Shear:
        return [("SHEAR", {**values, "ra_0": 0.0, "dec_0": 0.0})]
    if kind is DPIE:
        shared = {name: values[name] for name in ("e1", "e2", *_CENTER)}
        return [
            ("NIE", {"theta_E": values["theta_E"], "s_scale": values["Ra"], **shared}),
            ("NIE", {"theta_E": -values["theta_E"], "s_scale": values["Rs"], **shared}),
        ]
    if kind is Multipole:
        a_m, phi_m = amplitude_and_angle(values["a_cos"], values["a_sin"], profile.m)
        center = {name: values[name] for name in _CENTER}
        keywords = {"m": profile.m, "a_m": float(a_m), "phi_m": float(phi_m), "r_E": profile.r_E, **center}
        return [("MULTIPOLE", keywords)]
    if kind is SersicMass:
        return [("SERSIC", _their_sersic(values, "k_eff"))]
    if kind is MultiGaussianMass:
        return [("MULTI_GAUSSIAN", {**_set(values, profile.sigmas), "sigma": list(profile.sigmas)})]
    circular = type(getattr(profile, "circular", None))
    if kind is EllipticalPotential and circular in _ELLIPTICAL_POTENTIALS:
        own = _their_sersic(values, "k_eff") if circular is SersicMass else dict(values)
        return [(_ELLIPTICAL_POTENTIALS[circular], own)]
    if kind is EllipticalMass and circular is GaussianMass:
        return [("GAUSSIAN_ELLIPSE_KAPPA", dict(values))]
    raise ParameterError(f"{component.label}: lenstronomy has no counterpart of {profile!r}")


def _light(component: Component) -> Named:
    profile, values = component.profile, component.values
    kind = type(profile)
    if kind in (Sersic, Exponential, DeVaucouleurs):
        index = {} if kind is Sersic else {"n_sersic": profile.n_sersic}
        return "SERSIC_ELLIPSE", _their_sersic({**values, **index}, "amp")
    if kind is CoreSersic:
        return "CORE_SERSIC", {**_their_sersic(values, "amp"), "alpha": profile.alpha}
    if kind is Gaussian:
        return "GAUSSIAN_ELLIPSE", dict(values)
    if kind is Uniform:
        return "UNIFORM", dict(values)
    if kind is MultiGaussian:
        return "MULTI_GAUSSIAN_ELLIPSE", {**_set(values, profile.sigmas), "sigma": list(profile.sigmas)}
    if kind is Shapelets:
        return "SHAPELETS", {**_set(values, profile.orders), "n_max": profile.n_max}
    if isinstance(profile, Pixelated):
        flux, side, (x, y) = placed(component)
        flux, side = profile.as_bilinear(np.asarray(flux), side, _PARTS)
        return "INTERPOL", {
            "image": flux / side**2,
            "amp": 1.0,
            "center_x": x,
            "center_y": y,
            "phi_G": 0.0,
            "scale": side,
        }
    raise ParameterError(f"{component.label}: lenstronomy has no counterpart of {profile!r}")


_PARTS = 4  # of a pixel's side, where their bilinear interpolation stands for ours

_SAME_MASS: dict[type[Profile], str] = {
    EPL: "EPL",
    SIE: "SIE",
    SIS: "SIS",
    NIE: "NIE",
    PointMass: "POINT_MASS",
    NFW: "NFW",
    TNFW: "TNFW",
    Hernquist: "HERNQUIST",
    GaussianMass: "GAUSSIAN",
}
_ELLIPTICAL_POTENTIALS: dict[type[Profile], str] = {
    NFW: "NFW_ELLIPSE_POTENTIAL",
    TNFW: "TNFW_ELLIPSE_POTENTIAL",
    Hernquist: "HERNQUIST_ELLIPSE_POTENTIAL",
    SersicMass: "SERSIC_ELLIPSE_POTENTIAL",
}


def _their_sersic(values: Mapping[str, float], amplitude: str) -> Keywords:
    value, radius = rounded_sersic(values[amplitude], values["R_sersic"], values["n_sersic"])
    return {**values, amplitude: float(value), "R_sersic": float(radius)}


def _our_sersic(keywords: Keywords, amplitude: str) -> Keywords:
    value, radius = exact_sersic(keywords[amplitude], keywords["R_sersic"], keywords["n_sersic"])
    return {**keywords, amplitude: float(value), "R_sersic": float(radius)}


def _set(values: Mapping[str, float], components: Sequence[Any]) -> Keywords:
    """One amplitude for each component of a set, that of the whole in each of them."""
    relative = [values[f"amp_{i}"] for i in range(len(components))]
    shape = {k: v for k, v in values.items() if k != "amp" and not k.startswith("amp_")}
    return {**shape, "amp": [values.get("amp", 1.0) * each for each in relative]}


# Theirs to ours.


def _masses(names: Sequence[str], keywords: Sequence[Keywords]) -> list[Given]:
    if len(names) != len(keywords):
        raise ParameterError(f"lens_model_list has {len(names)} profiles and kwargs_lens {len(keywords)} dictionaries")
    found: list[Given] = []
    number = 0
    while number < len(names):
        following = keywords[number + 1] if names[number : number + 2] == ["NIE", "NIE"] else None
        if following is not None and (dpie := _truncated(keywords[number], following)):
            found.append(Given(DPIE(), dpie))
            number += 2
            continue
        found.append(_our_mass(names[number], dict(keywords[number])))
        number += 1
    return found


def _truncated(core: Keywords, cut: Keywords) -> Keywords | None:
    """Values of a DPIE if two NIE are one."""
    shared = ("e1", "e2", *_CENTER)
    if core["theta_E"] != -cut["theta_E"] or any(core[name] != cut[name] for name in shared):
        return None
    radii = {"theta_E": core["theta_E"], "Ra": core["s_scale"], "Rs": cut["s_scale"]}
    return {**radii, **{name: core[name] for name in shared}}


def _our_mass(name: str, given: Keywords) -> Given:
    profile: MassProfile
    if name == "EPL_NUMBA":
        name = "EPL"
    if name in _MASSES:
        profile = _MASSES[name]()
    elif name in ("SHEAR", "CONVERGENCE", "SHEAR_GAMMA_PSI"):
        if given.pop("ra_0", 0.0) or given.pop("dec_0", 0.0):
            raise ParameterError(f"{name}: a centre (ra_0, dec_0) other than the origin is not converted")
        if name == "SHEAR_GAMMA_PSI":
            gamma1, gamma2 = shear_components(given.pop("gamma_ext"), given.pop("psi_ext"))
            given |= {"gamma1": float(gamma1), "gamma2": float(gamma2)}
        profile = ConvergenceSheet() if name == "CONVERGENCE" else Shear()
    elif name == "MULTIPOLE":
        m = int(given.pop("m"))
        profile = Multipole(m, r_E=given.pop("r_E", 1.0))
        a_cos, a_sin = multipole_components(given.pop("a_m"), given.pop("phi_m"), m)
        given |= {"a_cos": float(a_cos), "a_sin": float(a_sin)}
    elif name in ("SERSIC", "SERSIC_ELLIPSE_POTENTIAL"):
        profile = SersicMass() if name == "SERSIC" else EllipticalPotential(SersicMass())
        given = _our_sersic(given, "k_eff")
    elif name in _CIRCULAR:
        profile = EllipticalPotential(_CIRCULAR[name]())
    elif name == "GAUSSIAN_ELLIPSE_KAPPA":
        profile = EllipticalMass(GaussianMass())
    elif name == "MULTI_GAUSSIAN":
        profile = MultiGaussianMass(given.pop("sigma"))
        given |= {f"amp_{i}": value for i, value in enumerate(given.pop("amp"))}
    else:
        raise ParameterError(f"lens_model_list: {name!r} is not converted; {', '.join(_KNOWN_MASSES)} are")
    return Given(profile, _complete(name, profile, given, ()))


def _lights(names: Sequence[str], keywords: Sequence[Keywords], what: str) -> list[Given]:
    if len(names) != len(keywords):
        raise ParameterError(f"{what}_model_list has {len(names)} profiles, but there are {len(keywords)} dictionaries")
    return [_our_light(name, dict(given), what) for name, given in zip(names, keywords, strict=True)]


def _our_light(name: str, given: Keywords, what: str) -> Given:
    profile: LightProfile
    image = None
    if name in ("SERSIC", "SERSIC_ELLIPSE", "CORE_SERSIC"):
        profile = CoreSersic(given.pop("alpha", 3.0)) if name == "CORE_SERSIC" else Sersic()
        given = {**({"e1": 0.0, "e2": 0.0} if name == "SERSIC" else {}), **_our_sersic(given, "amp")}
    elif name in ("GAUSSIAN", "GAUSSIAN_ELLIPSE"):
        profile = Gaussian()
        given = {**({"e1": 0.0, "e2": 0.0} if name == "GAUSSIAN" else {}), **given}
    elif name == "UNIFORM":
        profile = Uniform()
    elif name == "MULTI_GAUSSIAN_ELLIPSE":
        profile = MultiGaussian(given.pop("sigma"))
        given = {**{f"amp_{i}": value for i, value in enumerate(given["amp"])}, **given, "amp": 1.0}
    elif name == "SHAPELETS":
        profile = Shapelets(int(given.pop("n_max")))
        given = {**{f"amp_{i}": value for i, value in enumerate(given["amp"])}, **given, "amp": 1.0}
    elif name == "INTERPOL" and what == "source_light":
        if given.pop("phi_G", 0.0):
            raise ParameterError("INTERPOL: an image that is turned (phi_G) is not converted")
        side = float(given["scale"])
        profile = Pixelated(side)
        brightness = np.asarray(given.pop("image"), np.float64)
        # In one number what they keep in two, so that the image has unit flux as ours have.
        flux = float(brightness.sum()) * side**2
        image = brightness * side**2 / flux
        given |= {"amp": given["amp"] * flux, "scale": 1.0}
    else:
        raise ParameterError(f"{what}_model_list: {name!r} is not converted; {', '.join(_KNOWN_LIGHTS)} are")
    return Given(profile, _complete(name, profile, given, ("amp",)), image)


_MASSES: dict[str, Callable[[], MassProfile]] = {name: kind for kind, name in _SAME_MASS.items()}
_CIRCULAR = {name: kind for kind, name in _ELLIPTICAL_POTENTIALS.items()}
_KNOWN_MASSES = (
    *_MASSES,
    "SHEAR",
    "SHEAR_GAMMA_PSI",
    "CONVERGENCE",
    "MULTIPOLE",
    "SERSIC",
    *_CIRCULAR,
    "GAUSSIAN_ELLIPSE_KAPPA",
    "MULTI_GAUSSIAN",
)
_KNOWN_LIGHTS = (
    "SERSIC",
    "SERSIC_ELLIPSE",
    "CORE_SERSIC",
    "GAUSSIAN",
    "GAUSSIAN_ELLIPSE",
    "UNIFORM",
    "MULTI_GAUSSIAN_ELLIPSE",
    "SHAPELETS",
    "INTERPOL (as a source)",
)


def _complete(name: str, profile: Profile, given: Keywords, more: Sequence[str]) -> dict[str, float]:
    """The values of a profile, its centre at the origin where it is left out, as there."""
    wanted = [*profile.parameter_names, *more]
    values = {axis: 0.0 for axis in _CENTER if axis in wanted} | given
    if set(values) != set(wanted):
        raise ParameterError(
            f"{name}: missing keywords: {sorted(set(wanted) - set(values))}, "
            f"unknown: {sorted(set(values) - set(wanted))}"
        )
    return {key: float(values[key]) for key in wanted}
