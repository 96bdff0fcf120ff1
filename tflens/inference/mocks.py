"""Mock observations of lenses whose truth is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.mass import EPL
from tflens.model import LensModel
from tflens.observation import Observation


@dataclass(frozen=True)
class Mock:
    """A lens that was made: what is observed, and the truth behind it.

    Attributes:
        observation: image, noise and PSF.
        parameters: of mass, lens light and source, by the model's names.
        stamp: the source, `[n, n]`.
        stamp_scale: side of the stamp's pixels at `scale` = 1, arcsec.
        flux: of the source, counts/s.
        arcs: the lensed source without noise, `[ny, nx]`, counts/s per pixel.
        magnification: flux of the arcs over that of the source.
    """

    observation: Observation
    parameters: dict[str, float]
    stamp: NDArray[np.floating]
    stamp_scale: float
    flux: float
    arcs: NDArray[np.floating]
    magnification: float


@dataclass(frozen=True)
class Survey:
    """How lenses are observed.

    Args:
        grid: the image's pixels.
        psf: kernel on the grid's pixel scale.
        peak_snr: lowest and highest S/N of the brightest pixel of the arcs; drawn log-uniformly.
        lens_flux: lowest and highest flux of the lens's light relative to that of the arcs, log-uniform.
        sky: share of the noise's variance in the arcs' brightest pixel that is there without them.

    Raises:
        ParameterError: a range is not two ascending positive numbers, or `sky` does not lie in (0, 1].
    """

    grid: PixelGrid
    psf: NDArray[np.floating]
    peak_snr: tuple[float, float] = (10.0, 50.0)
    lens_flux: tuple[float, float] = (2.0, 6.0)
    sky: float = 0.7

    def __post_init__(self) -> None:
        for name in ("peak_snr", "lens_flux"):
            low, high = getattr(self, name)
            if not 0 < low <= high < np.inf:
                raise ParameterError(f"Survey.{name} must be two ascending positive numbers, got {(low, high)}")
        if not 0 < self.sky <= 1:
            raise ParameterError(f"Survey.sky must lie in (0, 1], got {self.sky!r}")

    def draw(
        self,
        model: LensModel,
        stamp: NDArray[np.floating],
        seed: int | Sequence[int],
        name: str = "mock",
    ) -> Mock:
        """One lens: parameters drawn from a model's prior, and a given galaxy as the source.

        Ray-shot with 8 x 8 samples a pixel in float64; nothing of a fit's networks takes part.

        Args:
            model: with lens light of one profile or more; the source is `Pixelated`, on the stamp's pixel scale.
            stamp: the source before any PSF, `[n, n]`; its flux does not matter.
            seed: of the parameters and of the noise.
            name: of the observation.
        """
        rng = np.random.default_rng(seed)
        parameters = {k: float(v) for k, v in model.physical(tf.constant(rng.standard_normal(model.dim))).items()}
        fine = LensLayer(
            self.grid,
            mass=[EPL(tolerance=1e-12) if isinstance(profile, EPL) else profile for profile in model.lens],
            lens_light=model.lens_light,
            source=[model.source],
            psf=self.psf,
            supersampling=8,
            padding=max(self.psf.shape) // 2,
            dtype="float64",
        )
        unit = tf.constant(np.asarray(stamp, np.float64) / np.sum(stamp))
        *lights, arcs = (image.numpy() for image in fine.images(model.layer_inputs(parameters, unit)))
        light, magnification = sum(lights), float(arcs.sum())
        light = light * np.exp(rng.uniform(*np.log(self.lens_flux))) * arcs.sum() / light.sum()
        # Sky and photons. In these units the noise is 1 where the arcs peak, if the lens's light has faded there.
        signal = np.exp(rng.uniform(*np.log(self.peak_snr)))
        flux = signal / arcs.max()
        light, arcs = light * flux, arcs * flux
        noise = np.sqrt(self.sky + (1 - self.sky) * (light + arcs) / signal)
        image = light + arcs + noise * rng.standard_normal(noise.shape)
        observation = Observation(image, noise, self.psf, self.grid.pixel_scale, name=name)
        return Mock(observation, parameters, stamp, model.source.pixel_scale, float(flux), arcs, magnification)
