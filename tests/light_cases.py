"""Every light profile with what its tests need, and its distance from lenstronomy."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tflens.light import (
    CenteredPixels,
    CoreSersic,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    LightProfile,
    MultiGaussian,
    Pixelated,
    RegularizedPixels,
    Sersic,
    Shapelets,
    Uniform,
)
from tflens.parameters import from_base
from tflens.sersic import b_n

SOFTENING = 1e-4  # arcsec, of the centre of the Sersic family
IMAGE = np.random.default_rng(3).normal(size=(5, 8))
POSITIVE = np.exp(IMAGE)


@dataclass(frozen=True)
class Case:
    """A profile and how to check it.

    Attributes:
        profile: the profile.
        reference: the same by lenstronomy, a function of x, y `[points]` and of the parameters as numbers.
        flux: its total flux, if it has one.
        signed: whether its brightness changes sign, so that errors are relative to the peak.
        image: pixels of a profile of pixels.
    """

    profile: LightProfile
    reference: Callable[..., np.ndarray] | None = None
    flux: Callable[..., tf.Tensor] | None = None
    signed: bool = False
    image: np.ndarray | None = None

    def brightness(self, x: tf.Tensor, y: tf.Tensor, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return self.profile.brightness(x, y, **inputs)

    def inputs(self, u: np.ndarray, dtype: str = "float64") -> dict[str, tf.Tensor]:
        """Parameters at base-space values `[...batch, dim]` by the default priors, and the image."""
        values, start = {}, 0
        for parameter in self.profile.parameters:
            prior = parameter.prior(tf.as_dtype(dtype))
            part = tf.constant(u[..., start : start + len(parameter.names)], dtype)
            if len(parameter.names) > 1:
                values |= dict(zip(parameter.names, tf.unstack(from_base(prior, part), axis=-1), strict=True))
            else:
                values[parameter.names[0]] = from_base(prior, part[..., 0])
            start += len(parameter.names)
        return values if self.image is None else values | {"image": tf.constant(self.image, dtype)}

    @property
    def dim(self) -> int:
        return len(self.profile.parameter_names)


def parity(case: Case, draws: int, seed: int) -> float:
    """Largest error against lenstronomy over draws of every parameter's whole range, out to 6 sigma of its prior.

    Relative to the brightness at each point, or to the peak where brightness changes sign; points lie 1e-3 to 100
    arcsec from the centre.
    """
    rng = np.random.default_rng(seed)
    radius, angle = 10 ** rng.uniform(-3, 2, 200), rng.uniform(0, 2 * np.pi, 200)
    inputs = case.inputs(rng.uniform(-6, 6, [draws, case.dim]))
    center_x, center_y = (np.broadcast_to(inputs.get(f"center_{axis}", 0.0), [draws])[:, None] for axis in "xy")
    x, y = center_x + radius * np.cos(angle), center_y + radius * np.sin(angle)
    ours = case.brightness(tf.constant(x[:, None]), tf.constant(y[:, None]), inputs).numpy()[:, 0]
    worst = 0.0
    for i in range(draws):
        one = {k: v.numpy() if k == "image" else float(v[i]) for k, v in inputs.items()}
        theirs = case.reference(x[i], y[i], **one)
        # Below the normal numbers digits are lost.
        scale = np.abs(theirs).max() if case.signed else np.maximum(np.abs(theirs), 1e-290)
        worst = max(worst, float(np.max(np.abs(ours[i] - theirs) / scale)))
    return worst


def lenstronomy(module: str, name: str) -> Any:
    """A class of lenstronomy's light profiles, whose imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(__import__(f"lenstronomy.LightModel.Profiles.{module}", fromlist=[name]), name)


def their_sersic(name: str) -> Any:
    """Their profile in our two conventions: b_n exact instead of 1.9992 n - 0.3271, and R^2 softened at the centre."""

    class Converted(lenstronomy("sersic", name)):
        @staticmethod
        def b_n(n: float) -> float:
            return float(b_n(tf.constant(n, tf.float64)))

        def get_distance_from_center(self, *args: float, **kwargs: float) -> np.ndarray:
            return np.hypot(super().get_distance_from_center(*args, **kwargs), SOFTENING)

    return Converted()


def sersic(x, y, **shape) -> np.ndarray:
    # Theirs stops at 1,000 effective radii.
    return their_sersic("SersicElliptic").function(x, y, amp=1.0, max_R_frac=np.inf, **shape)


def core_sersic(alpha: float) -> Callable[..., np.ndarray]:
    return lambda x, y, **shape: their_sersic("CoreSersic").function(x, y, amp=1.0, alpha=alpha, **shape)


def gaussian(x, y, **shape) -> np.ndarray:
    return lenstronomy("gaussian", "GaussianEllipse")().function(x, y, amp=1.0, **shape)


def multi_gaussian(sigmas: list[float]) -> Callable[..., np.ndarray]:
    def reference(x, y, **parameters):
        amplitudes = [parameters.pop(f"amp_{i}") for i in range(len(sigmas))]
        profile = lenstronomy("gaussian", "MultiGaussianEllipse")()
        return profile.function(x, y, amp=amplitudes, sigma=sigmas, **parameters)

    return reference


def shapelets(n_max: int) -> Callable[..., np.ndarray]:
    def reference(x, y, **parameters):
        amplitudes = [parameters.pop(f"amp_{i}") for i in range((n_max + 1) * (n_max + 2) // 2)]
        return lenstronomy("shapelets", "ShapeletSet")().function(x, y, amp=amplitudes, n_max=n_max, **parameters)

    return reference


def uniform(x, y) -> np.ndarray:
    return lenstronomy("uniform", "Uniform")().function(x, y, amp=1.0)


def interpolated(pixel_scale: float) -> Callable[..., np.ndarray]:
    def reference(x, y, *, image, center_x, center_y, scale):
        side = pixel_scale * scale
        profile = lenstronomy("interpolation", "Interpol")()
        # Their image is in brightness, ours in flux.
        return profile.function(x, y, image=image / side**2, center_x=center_x, center_y=center_y, scale=side)

    return reference


def _case(profile: LightProfile, **checks: Any) -> Case:
    return Case(profile, **({"flux": profile.flux} | checks))


CASES = {
    "Sersic": _case(Sersic(), reference=sersic),
    "CoreSersic": _case(CoreSersic(), reference=core_sersic(3.0), flux=None),
    "CoreSersic, sharp": _case(CoreSersic(alpha=10.0), reference=core_sersic(10.0), flux=None),
    "Exponential": _case(Exponential(), reference=lambda x, y, **shape: sersic(x, y, n_sersic=1.0, **shape)),
    "DeVaucouleurs": _case(DeVaucouleurs(), reference=lambda x, y, **shape: sersic(x, y, n_sersic=4.0, **shape)),
    "Gaussian": _case(Gaussian(), reference=gaussian),
    "MultiGaussian": _case(MultiGaussian([0.1, 0.3, 0.9]), reference=multi_gaussian([0.1, 0.3, 0.9])),
    "Shapelets": _case(Shapelets(3), reference=shapelets(3), signed=True),
    "Uniform": _case(Uniform(), reference=uniform, flux=None),
    "Pixelated": _case(Pixelated(0.2), reference=interpolated(0.2), signed=True, image=IMAGE),
    "Pixelated, quadratic": _case(Pixelated(0.2, interpolation="quadratic"), signed=True, image=IMAGE),
    "Pixelated, bicubic": _case(Pixelated(0.2, interpolation="bicubic"), signed=True, image=IMAGE),
    "CenteredPixels": _case(CenteredPixels(0.2), image=POSITIVE),
    "RegularizedPixels": _case(RegularizedPixels(pixels=5, pixel_scale=0.2), image=POSITIVE),
}
