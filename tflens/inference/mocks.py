"""Mock observations of lenses whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from astropy.table import Table
from numpy.typing import NDArray

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated
from tflens.mass import MassProfile
from tflens.model import LensModel
from tflens.observation import Observation

SAMPLES = 8
"""Along each side of a pixel of a mock."""


@dataclass(frozen=True)
class Mock:
    """A lens that was made: what is observed, and the truth behind it.

    Attributes:
        observation: image, noise and PSF.
        parameters: of mass, lens light and source, by the model's names.
        stamp: the pixels of the source, `[n, n]`, None for a source that is a formula, and for several sources.
        source: the profile that places the stamp, or None.
        flux: of the source, counts/s; several sources share it at random.
        arcs: the lensed source without noise, `[ny, nx]`, counts/s per pixel.
        magnification: flux of the arcs over that of the source.
    """

    observation: Observation
    parameters: dict[str, float]
    stamp: NDArray[np.floating] | None
    source: Pixelated | None
    flux: float
    arcs: NDArray[np.floating]
    magnification: float


Shoot = Callable[
    ["Survey", LensModel, dict[str, float], Sequence[NDArray[np.floating]]], Sequence[NDArray[np.floating]]
]
"""What draws a lens: survey, model, parameters by name, and unit-flux pixels of those sources that have any, to the
image `[ny, nx]` of every light profile for unit amplitude, lens light first, convolved with the PSF, without noise."""


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

    def sample(self, model: LensModel, n: int, seed: int = 0) -> list[Mock]:
        """`n` lenses with everything drawn from a model's prior, the galaxies of a neural source too.

        Each depends on `seed` and its own number alone, not on `n`.

        Raises:
            ParameterError: as `draw`.

        Example:
            >>> from tflens.light import Sersic
            >>> survey = Survey(PixelGrid((20, 24), 0.2), np.ones((1, 1)))
            >>> mocks = survey.sample(LensModel(lens_light=[Sersic()], source=Sersic()), n=2, seed=1)
            >>> [mock.observation.name for mock in mocks]
            ['mock-0000', 'mock-0001']
        """
        return [self.draw(model, seed=[seed, i], name=f"mock-{i:04d}") for i in range(n)]

    def draw(
        self,
        model: LensModel,
        stamp: NDArray[np.floating] | None = None,
        seed: int | Sequence[int] = 0,
        name: str = "mock",
        shoot: "Shoot | None" = None,
    ) -> Mock:
        """One lens: parameters drawn from a model's prior, and a given galaxy as the source, or one of the prior's.

        Ray-shot with 8 x 8 samples a pixel in float64, the cusp of the lens's light exact; with a given galaxy nothing
        of a fit's networks takes part.

        Args:
            model: with a source, and lens light of one profile or more.
            stamp: the source before any PSF, `[n, n]`, for a model whose source is `Pixelated` on the stamp's pixel
                scale; its flux does not matter.
            seed: of the parameters and of the noise.
            name: of the observation.
            shoot: another code that draws the images: `tflens.inference.lenstronomy_mocks.shoot`. Parameters, flux
                ratios and noise are the same for the same seed.

        Raises:
            ParameterError: the model has no source or no lens light; a stamp is missing, or given for a source that
                takes none.
        """
        _check(model, stamp)
        rng = np.random.default_rng(seed)
        u = tf.constant(rng.standard_normal(model.dim))
        parameters = {k: float(v) for k, v in model.physical(u).items()}
        images = [stamp] if stamp is not None else [i[0] for i in model.source_images(tf.cast(u, model.dtype)[None])]
        unit = [np.asarray(image, np.float64) / np.sum(image) for image in images]
        seen = list((shoot or ray_shoot)(self, model, parameters, unit))
        exact = {name: tf.constant(value, tf.float64) for name, value in parameters.items()}
        sources = model.layer_inputs(exact, [tf.constant(image) for image in unit])["source"]
        fluxes = [float(source.flux(**each)) for source, each in zip(model.sources, sources, strict=True)]
        shares = rng.dirichlet(np.ones(len(fluxes))) if len(fluxes) > 1 else [1.0]
        light = sum(seen[: -len(fluxes)])
        arcs = sum(s * image / f for s, image, f in zip(shares, seen[-len(fluxes) :], fluxes, strict=True))
        magnification = float(arcs.sum())
        light = light * np.exp(rng.uniform(*np.log(self.lens_flux))) * arcs.sum() / light.sum()
        # Sky and photons. In these units the noise is 1 where the arcs peak, if the lens's light has faded there.
        signal = np.exp(rng.uniform(*np.log(self.peak_snr)))
        flux = signal / arcs.max()
        light, arcs = light * flux, arcs * flux
        noise = np.sqrt(self.sky + (1 - self.sky) * (light + arcs) / signal)
        image = light + arcs + noise * rng.standard_normal(noise.shape)
        observation = Observation(image, noise, self.psf, self.grid.pixel_scale, name=name)
        alone = images and len(model.sources) == 1
        pixels, source = (np.asarray(images[0]), model.sources[0]) if alone else (None, None)
        return Mock(observation, parameters, pixels, source, float(flux), arcs, magnification)


def ray_shoot(
    survey: Survey, model: LensModel, parameters: dict[str, float], images: Sequence[NDArray[np.floating]]
) -> NDArray[np.float64]:
    """Images of every light profile for unit amplitude, `[profiles, ny, nx]`: a `Shoot` with 8 x 8 samples a pixel in
    float64, the cusp of the lens's light exact."""
    fine = LensLayer(
        survey.grid,
        mass=[_exact(profile) for profile in model.lens],
        lens_light=model.lens_light,
        source=model.sources,
        psf=survey.psf,
        supersampling=SAMPLES,
        padding=max(survey.psf.shape) // 2,
        exact_cusps=True,
        dtype="float64",
    )
    exact = {name: tf.constant(value, tf.float64) for name, value in parameters.items()}
    inputs = model.layer_inputs(exact, [tf.constant(image, tf.float64) for image in images])
    return model.observed(tf.stack(fine.images(inputs)), exact).numpy()


def gaussian_psf(fwhm: float, pixel_scale: float) -> NDArray[np.float64]:
    """A round Gaussian kernel of unit sum, `[odd, odd]`, cut at five standard deviations or a little beyond.

    Args:
        fwhm: full width at half maximum, arcsec.
        pixel_scale: arcsec.

    Raises:
        ParameterError: one of them is not positive and finite.

    Example:
        >>> gaussian_psf(0.16, 0.1).shape
        (9, 9)
    """
    if not (0 < fwhm < np.inf and 0 < pixel_scale < np.inf):
        raise ParameterError(f"gaussian_psf: fwhm and pixel_scale must be positive, got {fwhm!r} and {pixel_scale!r}")
    sigma = fwhm / pixel_scale / np.sqrt(8 * np.log(2))
    half = int(np.ceil(5 * sigma))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def write_mocks(survey: Survey, model: LensModel, n: int, seed: int, folder: Path, overwrite: bool = False) -> Path:
    """Lenses of `Survey.sample` as FITS files in a folder, with a table of the truth, which `tflens.catalogue` reads.

    Returns:
        The table, `truth.csv`: a row for each lens, with its file, parameters, flux of the source (counts/s),
        magnification, and S/N of the arcs' brightest pixel.
    """
    rows = []
    for mock in (survey.draw(model, seed=[seed, i], name=f"mock-{i:04d}") for i in range(n)):
        file = f"{mock.observation.name}.fits"
        mock.observation.to_fits(folder / file, overwrite=overwrite)
        peak_snr = float((mock.arcs / mock.observation.noise).max())
        about = {"source.flux": mock.flux, "magnification": mock.magnification, "peak_snr": peak_snr}
        rows.append({"name": mock.observation.name, "file": file, **mock.parameters, **about})
    table = folder / "truth.csv"
    write_atomically(table, lambda temporary: Table(rows).write(temporary, format="ascii.csv", overwrite=True))
    return table


def _exact(profile: MassProfile) -> MassProfile:
    """The profile with its series, if it has one, carried on to the precision of float64."""
    config = profile.get_config()
    return type(profile).from_config(config | {"tolerance": 1e-12}) if "tolerance" in config else profile


def _check(model: LensModel, stamp: NDArray[np.floating] | None) -> None:
    if not model.sources or not model.lens_light:
        raise ParameterError("a mock needs a model with a source and with lens light")
    takes_stamp = any(isinstance(source, Pixelated) for source in model.sources) and not model.latent_dim
    if takes_stamp != (stamp is not None):
        needs = "needs the galaxy's stamp" if takes_stamp else "draws its own galaxy and takes no stamp"
        raise ParameterError(f"the source {model.sources} of a mock {needs}")
