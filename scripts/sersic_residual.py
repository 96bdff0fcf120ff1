"""How much of a galaxy a single Sersic profile leaves over: a least-squares fit and the chi^2 of what remains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.signal import fftconvolve
from scipy.stats import chi2

from tflens.datasets.galaxy_drawing import RESOLUTION

OVERSAMPLING = 3
LOWEST = (-0.5, -0.5, np.log(0.02), np.log(0.3), -0.85, -0.85)  # x, y, log radius, log index, e1, e2
HIGHEST = (0.5, 0.5, np.log(3.0), np.log(8.0), 0.85, 0.85)


@dataclass(frozen=True)
class SersicResidual:
    """Of the best fit: chi^2 within the aperture, the number of its pixels less that of the fit's parameters, and the
    chance to exceed it by noise alone."""

    chi2: float
    degrees: int
    chance: float


class SersicFit:
    """Fits of one elliptical Sersic profile, at the resolution of simulated galaxies and with a PSF.

    Free are amplitude (solved for linearly), centre, radius, index and the two ellipticities; two starts, with the
    index of a disk and of a bulge, of which the better counts.

    Args:
        psf: `[odd, odd]`, pixel included.
        pixels: on a side of a stamp.
        pixel_scale: arcsec.
    """

    def __init__(self, psf: NDArray[np.floating], pixels: int, pixel_scale: float) -> None:
        self.psf = np.asarray(psf, np.float64)
        self.pixels = pixels
        fine = pixels * OVERSAMPLING
        self.step = pixel_scale / OVERSAMPLING
        self.axis = (np.arange(fine) - (fine - 1) / 2) * self.step
        k = 2 * np.pi * np.fft.fftfreq(fine, self.step)
        sigma = RESOLUTION / np.sqrt(8 * np.log(2))
        self.blur = np.exp(-0.5 * sigma**2 * (k[:, None] ** 2 + k[None, : fine // 2 + 1] ** 2))

    def __call__(self, image: NDArray[np.floating], sigma: float, aperture: NDArray[np.bool_]) -> SersicResidual:
        """Fits all pixels of an image `[n, n]`, and measures what is left over within the aperture."""
        image = np.asarray(image, np.float64) / sigma

        def residual(values: NDArray[np.float64]) -> NDArray[np.float64]:
            model = self.draw(values)
            return (image - model * (np.sum(image * model) / np.sum(model**2))).ravel()

        starts = [(0.0, 0.0, np.log(0.3), np.log(n), e1, e2) for n, e1, e2 in ((1, 0.01, 0.01), (3, 0.01, 0.01))]
        fits = [least_squares(residual, start, bounds=(LOWEST, HIGHEST), x_scale=0.1, ftol=1e-6) for start in starts]
        best = min(fits, key=lambda fit: fit.cost)
        left = float(np.sum(best.fun.reshape(image.shape)[aperture] ** 2))
        degrees = int(aperture.sum()) - 7
        return SersicResidual(left, degrees, float(chi2.sf(left, degrees)))

    def draw(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[n, n]`, after resolution, pixel and PSF, of arbitrary amplitude."""
        x0, y0, log_radius, log_n, e1, e2 = values
        n = np.exp(log_n)
        x, y = self.axis[None, :] - x0, self.axis[:, None] - y0
        # |v| / sqrt(1 - |e|^2) with v = w - e conj(w): the intermediate-axis radius.
        squared = ((1 - e1) * x - e2 * y) ** 2 + ((1 + e1) * y - e2 * x) ** 2
        squared = squared / max(1 - e1**2 - e2**2, 0.02) + (0.3 * self.step) ** 2
        light = np.exp(-(1.9992 * n - 0.3271) * (np.sqrt(squared) / np.exp(log_radius)) ** (1 / n))
        light = np.fft.irfft2(np.fft.rfft2(light) * self.blur, light.shape)
        light = light.reshape(self.pixels, OVERSAMPLING, self.pixels, OVERSAMPLING).sum(axis=(1, 3))
        return fftconvolve(light, self.psf, mode="same")
