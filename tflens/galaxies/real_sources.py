"""Real galaxies as sources of mock lenses: the stamps that are good enough, without the sky around the galaxy.

A lens magnifies whatever is in a stamp, its noise included, and noise that is lensed is structure of the source which
no fit could know. So only galaxies of high S/N that lie wholly in their stamp are lensed, and what does not belong to
the galaxy is set to zero. What noise there is on the galaxy itself stays, as part of the truth.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tflens.errors import ParameterError
from tflens.galaxies.real_stamps import RealStamps, border_noise

LEAST_SNR = 100.0
"""S/N of the galaxies that are lensed: in their brightest pixel the noise is then a twentieth of the light at most."""

_BLUR = 1.5  # pixels: galaxies are told from the noise in stamps smoothed by so much
_EDGE = 3.0  # sigma of the smoothed noise, where a galaxy ends
_MARGIN = 2  # pixels of it that are kept beyond


def lensable(stamps: RealStamps, least_snr: float = LEAST_SNR) -> NDArray[np.float64]:
    """Galaxies that can be lensed, `[N, n, n]`, of unit sum, without the sky and the neighbours.

    A galaxy is the connected patch of light above 3 sigma of the smoothed stamp that holds most of the light near the
    middle; its edge is softened over a pixel or two.

    Args:
        stamps: of `tflens.galaxies.real_stamps.load_real_stamps`.
        least_snr: of a galaxy's `snr`.

    Raises:
        ParameterError: no galaxy has that S/N and lies wholly in its stamp.
    """
    chosen = [galaxy for image in stamps.images[stamps.snr >= least_snr] if (galaxy := _alone(image)) is not None]
    if not chosen:
        raise ParameterError(
            f"of {len(stamps.images)} stamps none has a galaxy of S/N {least_snr:g} or more (the largest is "
            f"{stamps.snr.max():.0f}) that lies wholly within it, so none can be a source"
        )
    return np.stack(chosen)


def _alone(image: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The galaxy of a stamp `[ny, nx]`, None if it does not end within it."""
    smooth = ndimage.gaussian_filter(image, _BLUR)
    labels, count = ndimage.label(smooth > _EDGE * border_noise(smooth[None])[0])
    if not count:
        return None
    ny, nx = image.shape
    middle = np.zeros(image.shape, bool)
    middle[ny // 4 : -(ny // 4), nx // 4 : -(nx // 4)] = True
    light = ndimage.sum_labels(np.where(middle, smooth, 0.0), labels, np.arange(1, count + 1))
    galaxy = labels == 1 + int(np.argmax(light))
    edge = np.ones(image.shape, bool)
    edge[1:-1, 1:-1] = False
    if (galaxy & edge).any():
        return None
    kept = image * ndimage.gaussian_filter(
        ndimage.binary_dilation(galaxy, iterations=_MARGIN).astype(float), 1.0, truncate=2
    )
    return kept / kept.sum() if kept.sum() > 0 else None
