"""COOLEST, the field's exchange standard (Galan et al. 2023, JOSS 8, 5567): templates from a scene and back.

Needs the package `coolest` (`pip install tflens[coolest]`), which knows what a template may hold.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits

from tflens.conventions import axis_ratio_and_angle, position_angle, rounded_sersic, strength_and_angle
from tflens.coolest_reading import from_coolest, observation_from_coolest, template_classes
from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.inference.posterior import Posterior
from tflens.light import DeVaucouleurs, Exponential, Pixelated, Sersic, Shapelets, Uniform
from tflens.mass import DPIE, EPL, NIE, SIE, SIS, ConvergenceSheet, Shear
from tflens.observation import NO_DATA_IMAGE, NO_DATA_NOISE, Observation
from tflens.profile import Profile
from tflens.scene import Component, Scene, placed

__all__ = ["from_coolest", "observation_from_coolest", "to_coolest"]

Numbers = Mapping[str, Any]  # of each parameter: a number, or draws `[n]`
Parts = dict[str, Any]

LENS, FIELD, SOURCE = "lens", "external field", "source"
_FIELDS = (Shear, ConvergenceSheet)
_ANGLES = ("phi", "phi_ext")


def to_coolest(
    scene: Scene,
    path: str | Path,
    observation: Observation,
    posterior: Posterior | None = None,
    *,
    redshifts: tuple[float | None, float | None] = (None, None),
    overwrite: bool = False,
) -> list[Path]:
    """Writes a COOLEST template with the FITS files that belong to it, and the draws.

    Profiles: EPL (PEMD there), SIE, SIS (SIE of q = 1), NIE, DPIE (Chameleon), Shear, ConvergenceSheet; Sersic,
    Exponential and DeVaucouleurs (Sersic of fixed index), Uniform, Shapelets; sources of pixels, neural ones too, as
    PixelatedRegularGrid on their own pixels, in counts/s per pixel *of the data*, as the package `coolest` takes them.
    Radii and amplitudes of Sersic profiles are given for COOLEST's rounded b_n. What COOLEST cannot say stays in
    `meta.tflens`: the sky (its Uniform must not be negative), and which parameters were tied. Priors are not written.

    Values of the scene are the point estimates. With a posterior every parameter has mean, median, 16th and 84th
    percentile, of the values in COOLEST's convention; those of angles are taken around the point estimate and may pass
    +-90 degrees. The draws are written as the chain that `coolest` plots.

    An image whose sides differ by an even number of pixels is made square by masked ones. Others stay as they are, and
    `coolest` 0.1 reads their template with `check_external_files=False` only.

    Args:
        scene: what to write.
        path: `NAME.json`; the files beside it are NAME-image.fits, -noise, -psf, -mask, -source, and NAME-chain.csv.
        observation: the data.
        posterior: of the scene's model.
        redshifts: of lens and source, if known.
        overwrite: whether existing files may be replaced.

    Returns:
        The files, the template last.

    Raises:
        ParameterError: `coolest` is not installed; the path does not end in .json, or a file exists; a profile has no
            counterpart, or a value is outside of COOLEST's range for it.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ParameterError(f"{path}: the name of a COOLEST template must end in .json")
    if scene.model.psf_error is not None:
        raise ParameterError(f"{path}: COOLEST has no place for a PSF error that the model has fitted")
    template = template_classes()
    translated = [_translate(each, observation) for each in (*scene.mass, *scene.lens_light, *scene.sources)]
    images = {
        "image": _square(observation.image, NO_DATA_IMAGE),
        "noise": _square(observation.noise, NO_DATA_NOISE),
        "mask": _square(observation.mask.astype(np.int16), 0),
        "psf": _square(observation.psf, 0.0),
    }
    for number, source in enumerate(each for each in translated if each.pixels is not None):
        images["source" if number == 0 else f"source{number + 1}"] = source.pixels
    files = {name: path.with_name(f"{path.stem}-{name}.fits") for name in images}
    chain = path.with_name(f"{path.stem}-chain.csv") if posterior is not None else None
    written = [*files.values(), *([chain] if chain else []), path]
    for file in () if overwrite else written:
        if file.exists():
            raise ParameterError(f"{file}: the file exists and is not overwritten. Choose another name.")

    side = observation.pixel_scale
    grids = {name: _grid(template, files[name].name, images[name].shape, side) for name in ("image", "noise", "mask")}
    kernel = _grid(template, files["psf"].name, images["psf"].shape, side)
    entities = _entities(template, scene, translated, redshifts)
    with_pixels = [
        (each, name)
        for each, name in zip(
            [each for each in translated if each.pixels is not None],
            [n for n in files if n.startswith("source")],
            strict=True,
        )
    ]
    for each, name in with_pixels:
        fov_x, fov_y = each.field_of_view
        ny, nx = each.pixels.shape
        grid = entities.profile_of(each).parameters["pixels"]
        grid.set_grid(files[name].name, fov_x, fov_y, num_pix_x=nx, num_pix_y=ny, check_fits_file=False)
    _fill(entities, scene, translated, posterior)
    metadata = observation.metadata
    coolest = template.COOLEST(
        "MAP",
        template.CoordinatesOrigin(*_origin(observation)),
        entities.list,
        template.Observation(pixels=grids["image"], noise=template.NoiseMap(noise_map=grids["noise"])),
        template.Instrument(
            pixel_size=side,
            name=str(metadata.get("INSTRUME", metadata.get("TELESCOP", ""))),
            band=str(metadata.get("FILTER", "")),
            psf=template.PixelatedPSF(pixels=kernel),
        ),
        likelihoods=template.DataLikelihoodList(template.ImagingDataLikelihood(mask=grids["mask"])),
        metadata={
            "tflens": {
                "sky": scene.sky if scene.model.sky else None,
                "sky_unit": "counts/s per pixel",
                "tied": scene.model.tied,
                "name": observation.name,
            },
            **({"chain_file_name": chain.name} if chain else {}),
        },
    )
    for name, image in images.items():
        hdu = fits.PrimaryHDU(np.asarray(image))
        write_atomically(files[name], lambda temporary, hdu=hdu: hdu.writeto(temporary, overwrite=True))
    if chain:
        write_atomically(chain, lambda temporary: _write_chain(temporary, entities, scene, translated, posterior))
    text = coolest.to_JSON(indent=2, exclude_keys=coolest.exclude_keys)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n"))
    return written


class _Translated(NamedTuple):
    """A profile in COOLEST's words.

    Attributes:
        label: in the scene.
        type: of the profile.
        convert: COOLEST's values from ours, numbers or draws.
        values: COOLEST's values.
        depends: of each of COOLEST's parameters, those of ours that it follows from; without any it is a constant.
        pixels: of a source of pixels `[ny, nx]`, counts/s per pixel of the data.
        field_of_view: of those pixels, ((left, right), (bottom, top)), arcsec.
    """

    label: str
    type: str
    convert: Callable[[Numbers], Parts]
    values: Parts
    depends: Mapping[str, tuple[str, ...]]
    pixels: np.ndarray | None = None
    field_of_view: tuple[tuple[float, float], tuple[float, float]] | None = None


def _place(v: Numbers) -> Parts:
    q, phi = axis_ratio_and_angle(v["e1"], v["e2"])
    return {"q": q, "phi": position_angle(phi), "center_x": v["center_x"], "center_y": v["center_y"]}


def _shear(v: Numbers) -> Parts:
    gamma, phi = strength_and_angle(v["gamma1"], v["gamma2"])
    return {"gamma_ext": gamma, "phi_ext": position_angle(phi)}


def _sersic(v: Numbers) -> Parts:
    intensity, radius = rounded_sersic(v["amp"], v["R_sersic"], v["n_sersic"])
    return {"I_eff": intensity, "theta_eff": radius, "n": v["n_sersic"], **_place(v)}


_ROUND = {"e1": 0.0, "e2": 0.0}
_Table = dict[type[Profile], tuple[str, Callable[[Numbers], Parts]]]
_TRANSLATIONS: _Table = {
    EPL: ("PEMD", lambda v: {"gamma": v["gamma"], "theta_E": v["theta_E"], **_place(v)}),
    SIE: ("SIE", lambda v: {"theta_E": v["theta_E"], **_place(v)}),
    SIS: ("SIE", lambda v: {"theta_E": v["theta_E"], **_place({**v, **_ROUND})}),
    NIE: ("NIE", lambda v: {"theta_E": v["theta_E"], "r_core": v["s_scale"], **_place(v)}),
    DPIE: ("Chameleon", lambda v: {"b": v["theta_E"], "s_c": v["Ra"], "s_t": v["Rs"], **_place(v)}),
    Shear: ("ExternalShear", _shear),
    ConvergenceSheet: ("ConvergenceSheet", lambda v: {"kappa_s": v["kappa"]}),
    Sersic: ("Sersic", _sersic),
    Exponential: ("Sersic", lambda v: _sersic({**v, "n_sersic": 1.0})),
    DeVaucouleurs: ("Sersic", lambda v: _sersic({**v, "n_sersic": 4.0})),
    Uniform: ("Uniform", lambda v: {"A": v["amp"]}),
}
_DEPENDS = {
    "q": ("e1", "e2"),
    "phi": ("e1", "e2"),
    "gamma_ext": ("gamma1", "gamma2"),
    "phi_ext": ("gamma1", "gamma2"),
    "r_core": ("s_scale",),
    "b": ("theta_E",),
    "s_c": ("Ra",),
    "s_t": ("Rs",),
    "kappa_s": ("kappa",),
    "I_eff": ("amp",),
    "A": ("amp",),
    "theta_eff": ("R_sersic",),
    "n": ("n_sersic",),
}


def _translate(component: Component, observation: Observation) -> _Translated:
    profile, label = component.profile, component.label
    known = {*component.values}
    if type(profile) in _TRANSLATIONS:
        name, convert = _TRANSLATIONS[type(profile)]
        values = convert(component.values)
        depends = {theirs: tuple(o for o in _DEPENDS.get(theirs, (theirs,)) if o in known) for theirs in values}
        return _Translated(label, name, convert, values, depends)
    if isinstance(profile, Shapelets):
        amplitudes = tuple(f"amp_{i}" for i in range(len(profile.orders)))

        def convert(v: Numbers) -> Parts:
            amps = np.stack([np.asarray(v["amp"]) * np.asarray(v[name]) for name in amplitudes], -1)
            shape = {name: v[name] for name in ("beta", "center_x", "center_y")}
            return {"n_max": profile.n_max, **shape, "amps": amps}

        same = {name: (name,) for name in ("beta", "center_x", "center_y")}
        depends = {**same, "n_max": (), "amps": ("amp", *amplitudes)}
        return _Translated(label, "Shapelets", convert, convert(component.values), depends)
    if isinstance(profile, Pixelated):
        flux, side, (x, y) = placed(component)
        ny, nx = flux.shape
        view = ((x - nx * side / 2, x + nx * side / 2), (y - ny * side / 2, y + ny * side / 2))
        brightness = flux / side**2
        return _Translated(
            label, "PixelatedRegularGrid", lambda _: {}, {}, {}, brightness * observation.grid.pixel_area, view
        )
    raise ParameterError(
        f"{label}: COOLEST has no counterpart of {profile!r}; it has those of "
        f"{', '.join(kind.__name__ for kind in _TRANSLATIONS)}, Shapelets and sources of pixels"
    )


class _Entities(NamedTuple):
    """Their list of entities, and where in it each profile of the scene is."""

    list: Any
    places: dict[str, Any]

    def profile_of(self, translated: _Translated) -> Any:
        return self.places[translated.label]


def _entities(
    template: SimpleNamespace,
    scene: Scene,
    translated: Sequence[_Translated],
    redshifts: tuple[float | None, float | None],
) -> _Entities:
    by_label = {each.label: each for each in translated}
    labels = {
        "mass": [c.label for c in scene.mass if not isinstance(c.profile, _FIELDS)],
        "field": [c.label for c in scene.mass if isinstance(c.profile, _FIELDS)],
        "light": [c.label for c in scene.lens_light],
        "source": [c.label for c in scene.sources],
    }
    models = {
        role: (template.LightModel if role in ("light", "source") else template.MassModel)(
            *(by_label[label].type for label in those)
        )
        for role, those in labels.items()
    }
    z_lens, z_source = redshifts
    entities = [template.Galaxy(LENS, z_lens, light_model=models["light"], mass_model=models["mass"])]
    if labels["field"]:
        entities.append(template.MassField(FIELD, z_lens, mass_model=models["field"]))
    if labels["source"]:
        entities.append(template.Galaxy(SOURCE, z_source, light_model=models["source"]))
    places = {
        label: profile for role, those in labels.items() for label, profile in zip(those, models[role], strict=True)
    }
    return _Entities(template.LensingEntityList(*entities), places)


def _fill(entities: _Entities, scene: Scene, translated: Sequence[_Translated], posterior: Posterior | None) -> None:
    from coolest.template.classes.parameter import PosteriorStatistics

    fixed = scene.model.fixed
    for each in translated:
        profile = entities.profile_of(each)
        draws = each.convert(_draws(scene, each.label, posterior)) if posterior is not None else {}
        for name, value in each.values.items():
            parameter = profile.parameters[name]
            try:
                parameter.set_point_estimate(np.asarray(value).tolist())
            except ValueError as error:
                raise ParameterError(
                    f"{each.label}: COOLEST's {profile.type}.{name} cannot be {value}: {error}"
                ) from None
            parameter.fixed = all(f"{each.label}.{own}" in fixed for own in each.depends[name])
            if name in draws and not parameter.fixed:
                parameter.set_posterior(PosteriorStatistics(**_statistics(name, value, draws[name])))


def _draws(scene: Scene, label: str, posterior: Posterior) -> Parts:
    """Draws `[n]` of a profile's parameters, constants for those that are fixed."""
    names = [name for name in scene.values if name.startswith(f"{label}.")]
    drawn = {name: posterior.draws(name) for name in posterior.names}
    count = len(next(iter(drawn.values())))
    known = scene.model.complete(drawn)
    return {name.rpartition(".")[2]: np.broadcast_to(np.asarray(known[name], np.float64), count) for name in names}


def _statistics(name: str, point: Any, draws: np.ndarray) -> Parts:
    if name in _ANGLES:
        # An angle and that plus 180 degrees are one: without a cut between them.
        draws = point + (draws - point + 90) % 180 - 90
    low, median, high = np.quantile(draws, [0.16, 0.5, 0.84], axis=0)
    values = {"mean": draws.mean(0), "median": median, "percentile_16th": low, "percentile_84th": high}
    return {key: value.tolist() for key, value in values.items()}


def _write_chain(
    path: Path, entities: _Entities, scene: Scene, translated: Sequence[_Translated], posterior: Posterior
) -> None:
    columns: dict[str, np.ndarray] = {}
    for each in translated:
        profile = entities.profile_of(each)
        for name, values in each.convert(_draws(scene, each.label, posterior)).items():
            if np.ndim(values) < 2:
                columns[profile.parameters[name].id] = np.asarray(values, np.float64)
    count = max(len(column) for column in columns.values() if column.ndim)
    columns = {name: np.broadcast_to(column, count) for name, column in columns.items()}
    columns["probability_weights"] = np.full(count, 1 / count)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{value:.9g}" for value in row] for row in zip(*columns.values(), strict=True))


def _square(image: np.ndarray, filling: float) -> np.ndarray:
    """With the same margin on opposite sides; as it is where that cannot make it square."""
    side = max(image.shape)
    if any((side - n) % 2 for n in image.shape):
        return image
    return np.pad(image, [((side - n) // 2,) * 2 for n in image.shape], constant_values=filling)


def _grid(template: SimpleNamespace, file: str, shape: tuple[int, int], side: float) -> Any:
    ny, nx = shape
    half_x, half_y = nx * side / 2, ny * side / 2
    return template.PixelatedRegularGrid(
        file,
        field_of_view_x=(-half_x, half_x),
        field_of_view_y=(-half_y, half_y),
        num_pix_x=nx,
        num_pix_y=ny,
        check_fits_file=False,
    )


def _origin(observation: Observation) -> tuple[str, str]:
    """Right ascension and declination of the image's middle; 0, 0 without world coordinates."""
    if observation.wcs is None:
        return "0h0m0s", "0d0m0s"
    ny, nx = observation.image.shape
    sky: SkyCoord = observation.wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
    ra, dec = sky.to_string("hmsdms", precision=4).split()
    return ra, dec
