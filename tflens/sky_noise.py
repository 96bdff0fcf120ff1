"""The noise of an image as its own blank sky shows it: how it is correlated, and how large it is beside the noise map.

Drizzled and resampled images have correlated noise (Fruchter & Hook 2002, PASP 114, 144; Casertano et al. 2000, AJ 120,
2747), and many of their noise maps are larger than the scatter of the pixels, on purpose: they state the noise of large
areas, for those who take it for white. Who takes the correlation into account must not do so twice.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import SigmaClip, sigma_clipped_stats
from numpy.typing import NDArray
from photutils.background import Background2D
from photutils.segmentation import detect_sources
from photutils.utils import NoDetectionsWarning, circular_footprint
from scipy import ndimage, signal

from tflens.errors import ObservationError
from tflens.observation import Observation, power_spectrum

MAX_LAG = 4
"""Pixels along x and y beyond which noise is taken to be independent."""

# A ring of lags counts if one of them is this many standard errors from 0, and no smaller than what does not matter.
SIGNIFICANT, NEGLIGIBLE = 5.0, 0.02
# Power of the weakest wave, relative to the mean: what an estimate says below this comes from where it was cut.
LEAST_POWER = 0.01
# Blank pixels, without which errors would be larger than what is measured.
FEWEST_PIXELS = 1000

_BOX = 24  # pixels of the mesh that the background is measured on
_FAR = 3  # further lags that are compared, to tell how different independent pixels are
_CLIP = 4.0  # sigma, of the differences between pixels: what no one masked is no noise


@dataclass(frozen=True)
class SkyNoise:
    """What blank sky tells of the noise.

    Attributes:
        correlation: `[k, k]`, for `Observation.with_noise`; a single pixel for white noise.
        correlation_error: 1 sigma of each, `[k, k]`.
        scale: standard deviation of the noise over what the noise map says.
        scale_error: 1 sigma.
        pixels: of blank sky.
    """

    correlation: NDArray[np.float64]
    correlation_error: NDArray[np.float64]
    scale: float
    scale_error: float
    pixels: int

    @property
    def neighbours(self) -> float:
        """Correlation of pixels that share a side, mean of both axes; 0 for white noise."""
        if self.correlation.size == 1:
            return 0.0
        middle = len(self.correlation) // 2
        return float(self.correlation[middle, middle + 1] + self.correlation[middle + 1, middle]) / 2

    @property
    def large_scale(self) -> float:
        """Noise of the mean of many pixels over what the noise map says if taken for white; 1 for a map that was made
        to be right for large areas."""
        return float(self.scale * np.sqrt(self.correlation.sum()))

    @property
    def kernel(self) -> NDArray[np.float64] | None:
        """`correlation` as `Observation` takes it: None for white noise."""
        return None if self.correlation.size == 1 else self.correlation

    def in_words(self, correlated: bool, scale: float | str = "auto") -> str:
        """What was measured, in one line, and what a fit lacks that does not take all of it.

        Args:
            correlated: whether the fit takes any correlation into account.
            scale: that the noise map is multiplied by; "auto" is what was measured.
        """
        size = " x ".join(map(str, self.correlation.shape))
        kernel = f"neighbours correlate by {self.neighbours:.2f} (kernel {size})"
        words = (
            f"noise of {self.pixels} pixels of blank sky: {'white' if self.kernel is None else kernel}, "
            f"{self.scale:.3f} +- {self.scale_error:.3f} of the noise map"
        )
        off = abs(self.scale - 1) > max(3 * self.scale_error, NEGLIGIBLE)
        if scale != "auto" and off:
            words += f"; the map is multiplied by {scale:g}, take --noise-scale auto for what was measured"
        if not correlated and self.kernel is not None:
            words += "; the fit takes it for white, take --noise-correlation auto"
        return words


def measure_sky_noise(observation: Observation) -> SkyNoise:
    """Correlation and size of the noise, from blank sky.

    Half the variance of the difference between pixels one lag apart (the variogram; Cressie 1993, Statistics for
    Spatial Data, section 2.4) grows from the lag 0 to that of independent pixels. Other than by products of pixels,
    smooth light that is left in the sky then hardly counts: it hardly differs between neighbours. Sources are masked,
    differences clipped at 4 sigma.

    The kernel ends where no lag is significant. Where its power spectrum would fall below 0.01, white noise is added.
    Errors are those of Bartlett (1946, J. R. Stat. Soc. Suppl. 8, 27), for Gaussian noise.

    Args:
        observation: with 1000 pixels of blank sky or more. Its own `noise_correlation` does not matter.

    Raises:
        ObservationError: there is less blank sky.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = rng.normal(size=(80, 101))
        >>> image = noise[:, 1:] + 0.5 * noise[:, :-1]  # variance 1.25, neighbours in a row correlate by 0.5 / 1.25
        >>> observation = Observation(image, np.ones((80, 100)), np.ones((1, 1)), pixel_scale=0.05)
        >>> found = measure_sky_noise(observation)
        >>> found.correlation.shape, [round(float(value), 1) for value in found.correlation[1]]
        ((3, 3), [0.4, 1.0, 0.4])
        >>> round(found.scale, 1)
        1.1
    """
    sky, blank = blank_sky(observation)
    pixels = int(blank.sum())
    if pixels < FEWEST_PIXELS:
        raise ObservationError(
            f"{observation.origin['image']}: the noise is measured on {FEWEST_PIXELS} or more pixels of blank sky, "
            f"but there are {pixels}. Give what a larger image of the same kind tells."
        )
    middle = MAX_LAG + _FAR
    variogram = _variogram(sky, blank, middle)
    y, x = np.abs(np.indices(variogram.shape) - middle)
    ring = np.maximum(y, x)
    variance = variogram[ring > MAX_LAG].mean()
    correlation = (1 - variogram / variance)[_FAR:-_FAR, _FAR:-_FAR]
    rings = ring[_FAR:-_FAR, _FAR:-_FAR]
    error = _bartlett(correlation, pixels)
    reach = 0
    while reach < MAX_LAG and _counts(correlation[rings == reach + 1], error[rings == reach + 1]):
        reach += 1
    cut = slice(MAX_LAG - reach, MAX_LAG + reach + 1)
    kernel = _with_power(correlation[cut, cut])
    scale = float(np.sqrt(variance))
    return SkyNoise(kernel, error[cut, cut], scale, scale * float(np.sqrt(np.sum(kernel**2) / (2 * pixels))), pixels)


def blank_sky(observation: Observation) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The image over its noise map without its background, and which of its pixels are free of sources, `[ny, nx]`.

    Sources are five or more connected pixels above 3 sigma of the smoothed image, and 4 pixels around them. Where the
    background itself is more than 3 sigma above its faintest, as in the halo of a large galaxy, no sky is blank.
    """
    image = np.where(observation.mask, observation.image / observation.noise, 0.0)
    masked, sources = ~observation.mask, np.zeros(image.shape, bool)
    box = tuple(min(_BOX, size) for size in image.shape)
    for _ in range(3):
        # Next to the lens most pixels of a box are masked; what is left still tells more than the boxes around it.
        mesh = Background2D(
            image, box, mask=masked | sources, exclude_percentile=80, filter_size=3, sigma_clip=SigmaClip(3.0)
        )
        sky = image - mesh.background
        smooth = ndimage.gaussian_filter(np.where(masked, 0.0, sky), 1.0)
        _, median, sigma = sigma_clipped_stats(smooth, mask=masked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoDetectionsWarning)
            found = detect_sources(smooth, median + 3 * sigma, 5, mask=masked)
        if found is None:
            break
        sources = found.make_source_mask(footprint=circular_footprint(4))
    level = mesh.background
    return sky, observation.mask & ~sources & (level < level[observation.mask].min() + 3)


def _variogram(sky: NDArray[np.float64], blank: NDArray[np.bool_], reach: int) -> NDArray[np.float64]:
    """Half the variance of the differences between pixels (dy, dx) apart, `[2 reach + 1, 2 reach + 1]`."""
    found = np.zeros((2 * reach + 1,) * 2)
    ny, nx = sky.shape
    for dy in range(reach + 1):
        for dx in range(-reach, reach + 1):
            if (dy, dx) <= (0, 0):
                continue
            near = slice(ny - dy), slice(max(0, -dx), nx - max(0, dx))
            far = slice(dy, ny), slice(max(0, dx), nx + min(0, dx))
            pairs = blank[near] & blank[far]
            deviation = sigma_clipped_stats((sky[far] - sky[near])[pairs], sigma=_CLIP)[2]
            found[reach + dy, reach + dx] = found[reach - dy, reach - dx] = deviation**2 / 2
    return found


def _bartlett(correlation: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
    """Standard errors of correlations, `[k, k]`."""
    middle = len(correlation) // 2
    # Sums over j of rho_j rho_(j-k), for all k up to twice the reach.
    products = signal.convolve(correlation, correlation[::-1, ::-1])
    once, twice = products[middle : 3 * middle + 1, middle : 3 * middle + 1], products[::2, ::2]
    total = products[2 * middle, 2 * middle]
    variance = total * (1 + 2 * correlation**2) + twice - 4 * correlation * once
    return np.sqrt(np.maximum(variance, 0.0) / pixels)


def _counts(correlation: NDArray[np.float64], error: NDArray[np.float64]) -> bool:
    return bool(np.any((np.abs(correlation) > SIGNIFICANT * error) & (np.abs(correlation) > NEGLIGIBLE)))


def _with_power(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """A correlation plus as much white noise as it needs for a power spectrum of `LEAST_POWER` and more."""
    least = power_spectrum(correlation).min()
    white = max(0.0, (LEAST_POWER - least) / (1 - LEAST_POWER))
    kernel = correlation / (1 + white)
    kernel[len(kernel) // 2, len(kernel) // 2] = 1.0
    return kernel
