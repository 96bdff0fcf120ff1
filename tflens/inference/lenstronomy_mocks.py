"""Mocks whose images are drawn by lenstronomy (Birrer & Amara 2018, arXiv:1803.09746) instead of our own ray shooting.

A fit of what its own code has drawn cannot find what is wrong with that code. Here nothing of `LensLayer`, of the mass
and light profiles or of the PSF takes part: only the numbers are carried over, and where a convention differs its
function says so.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.inference.mocks import SAMPLES, Survey
from tflens.light import CenteredPixels, LightProfile, Pixelated, Sersic
from tflens.mass import EPL, SIE, SIS, MassProfile, Shear
from tflens.model import LensModel

Keywords = tuple[str, dict[str, Any]]


def require_lenstronomy() -> None:
    """Raises:
    ParameterError: lenstronomy is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import lenstronomy  # noqa: F401
    except ImportError:
        raise ParameterError(
            "mocks ray-shot by lenstronomy need that package, which is not installed: pip install lenstronomy"
        ) from None


def shoot(
    survey: Survey, model: LensModel, parameters: dict[str, float], images: Sequence[NDArray[np.floating]]
) -> NDArray[np.float64]:
    """Images of every light profile for unit amplitude by lenstronomy: a `tflens.inference.mocks.Shoot`.

    8 x 8 samples a pixel, 384 x 384 in the 5 x 5 around the centre of lens light, and convolution with the PSF on the
    pixels, on a frame that is wider by half the PSF, whose light the PSF brings in.

    Args:
        survey: grid and PSF.
        model: of EPL, SIE, SIS and shear, with Sersic or pixelated light.
        parameters: by the model's names.
        images: unit-flux pixels `[n, n]` of those sources that have any.

    Returns:
        `[profiles, ny, nx]`, lens light first.

    Raises:
        ParameterError: lenstronomy is not installed; the model has a profile that is not carried over, or a PSF error.
    """
    require_lenstronomy()
    if model.psf_error is not None:
        raise ParameterError("mocks ray-shot by lenstronomy take the PSF as it is: give a model without psf_error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its imports
        from lenstronomy.Data.pixel_grid import PixelGrid
        from lenstronomy.Data.psf import PSF
        from lenstronomy.ImSim.image_model import ImageModel
        from lenstronomy.ImSim.Numerics.convolution import PixelKernelConvolution
        from lenstronomy.LensModel.lens_model import LensModel as TheirLens
        from lenstronomy.LightModel.light_model import LightModel

    margin, scale = max(survey.psf.shape) // 2, survey.grid.pixel_scale
    x, y = survey.grid.coordinates(padding=margin)
    side, (ny, nx) = max(x.size, y.size), survey.grid.shape  # supersampled frames are square with them
    pixels = PixelGrid(side, side, scale * np.eye(2), float(x.min()), float(y.min()))
    convolution = PixelKernelConvolution(np.array(survey.psf))
    inputs = model.layer_inputs(parameters, images)
    mass = [_mass(profile, values) for profile, values in zip(model.lens, inputs["mass"], strict=True)]
    lens = TheirLens([name for name, _ in mass]) if mass else None

    def sampled(group: str, light: Keywords, frame: Any, samples: int) -> NDArray[np.float64]:
        # A model for each: INTERPOL keeps the first image that it was given.
        their_model = ImageModel(
            frame,
            PSF("NONE"),
            lens,
            **{f"{group}_model_class": LightModel([light[0]])},
            kwargs_numerics={"supersampling_factor": samples},
        )
        return their_model.image([each for _, each in mass], **{f"kwargs_{group}": [light[1]]})

    def draw(group: str, profile: LightProfile, values: Mapping[str, Any]) -> NDArray[np.float64]:
        light = _light(profile, values)
        drawn = sampled(group, light, pixels, SAMPLES)
        if group == "lens_light":
            row, column = (
                int(np.clip(round((float(values[f"center_{axis}"]) - first.min()) / scale), 2, side - 3)) - 2
                for axis, first in (("y", y), ("x", x))
            )
            cusp = PixelGrid(5, 5, scale * np.eye(2), float(x.min()) + column * scale, float(y.min()) + row * scale)
            drawn[row : row + 5, column : column + 5] = sampled(group, light, cusp, _CUSP_SAMPLES)
        return convolution.convolution2d(drawn)[margin : margin + ny, margin : margin + nx]

    groups = (("lens_light", model.lens_light, inputs["lens_light"]), ("source", model.sources, inputs["source"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # their calls of SciPy and NumPy
        return np.stack(
            [draw(group, *each) for group, profiles, values in groups for each in zip(profiles, values, strict=True)]
        )


def _mass(profile: MassProfile, values: Mapping[str, Any]) -> Keywords:
    """Names, units and signs are the same; their shear has an origin of its own."""
    if type(profile) not in _MASSES:
        raise ParameterError(_not_carried_over(profile, _MASSES))
    origin = {"ra_0": 0.0, "dec_0": 0.0} if isinstance(profile, Shear) else {}
    return _MASSES[type(profile)], {name: float(value) for name, value in values.items()} | origin


def _light(profile: LightProfile, values: Mapping[str, Any]) -> Keywords:
    if type(profile) not in _LIGHTS:
        raise ParameterError(_not_carried_over(profile, _LIGHTS))
    return _LIGHTS[type(profile)](profile, values)


def _sersic(_: Sersic, values: Mapping[str, Any]) -> Keywords:
    """Their b_n is 1.9992 n - 0.3271, not exact: so the same profile has another radius and amplitude with them."""
    shape = {name: float(value) for name, value in values.items()}
    n = shape["n_sersic"]
    exact, theirs = float(special.gammaincinv(2 * n, 0.5)), max(1.9992 * n - 0.3271, 1e-5)
    radius = shape["R_sersic"] * (theirs / exact) ** n
    return "SERSIC_ELLIPSE", shape | {"R_sersic": radius, "amp": float(np.exp(exact - theirs))}


def _pixels(profile: Pixelated, values: Mapping[str, Any]) -> Keywords:
    """Their image is brightness per arcsec^2, ours flux per pixel; the middle is that of the image for both. Theirs is
    interpolated bilinearly: where ours is not, it gets finer pixels."""
    image, side = np.asarray(values["image"], np.float64), profile.pixel_scale * float(values["scale"])
    image, side = profile.as_bilinear(image, side, _PARTS)
    keywords = {"image": image / side**2, "scale": side, "phi_G": 0.0, "amp": 1.0}
    return "INTERPOL", keywords | {f"center_{axis}": float(values[f"center_{axis}"]) for axis in "xy"}


def _centered_pixels(profile: CenteredPixels, values: Mapping[str, Any]) -> Keywords:
    """Their centre is the middle of the image, that of `CenteredPixels` the mean position weighted by brightness^2."""
    name, keywords = _pixels(profile, values)
    side, weight = profile.pixel_scale * float(values["scale"]), np.asarray(values["image"], np.float64) ** 2
    for axis, sums in (("x", weight.sum(0)), ("y", weight.sum(1))):
        middle = np.average(np.arange(len(sums)), weights=sums) - (len(sums) - 1) / 2
        keywords[f"center_{axis}"] -= side * middle
    return name, keywords


_CUSP_SAMPLES = 384
_PARTS = 12  # of a pixel's side

_MASSES: dict[type, str] = {EPL: "EPL", SIE: "SIE", SIS: "SIS", Shear: "SHEAR"}
_LIGHTS: dict[type, Callable[..., Keywords]] = {
    Sersic: _sersic,
    Pixelated: _pixels,
    CenteredPixels: _centered_pixels,
    NeuralSource: _centered_pixels,
}


def _not_carried_over(profile: MassProfile | LightProfile, known: Mapping[type, Any]) -> str:
    names = ", ".join(each.__name__ for each in known)
    return f"mocks ray-shot by lenstronomy know {names}, not {type(profile).__name__}"
