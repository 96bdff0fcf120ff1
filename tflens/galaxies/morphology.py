"""Statistics of a galaxy's shape as an observer would measure them, on noisy images after the PSF.

Nine of the ten are classical; `rho4` and `size` are those of the adaptive moments that weak lensing surveys use. All
radii are in pixels.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import galsim
import joblib
import numpy as np
import statmorph
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, signal

from tflens.errors import ParameterError
from tflens.files import write_atomically

STATISTICS = ("ellipticity", "size", "rho4", "Gini", "M20", "C", "A", "S", "r50", "flux")


def morphology_statistics(
    images: ArrayLike,
    sigma: ArrayLike,
    psf: ArrayLike,
    processes: int = 1,
    cache: str | Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, NDArray[np.float64]]:
    """Ten statistics of each galaxy; NaN where a measurement failed.

    `size` and `rho4` are the sigma and the fourth moment of the adaptive moments of GalSim's `hsm` (Hirata & Seljak
    2003; the size and rho4 of Lanusse et al. 2021, arXiv:2008.03833). The others are statmorph's (Rodriguez-Gomez et
    al. 2019, arXiv:1809.08239): `ellipticity` (1 - b/a of the second moments about the centre of least asymmetry),
    `Gini`, `M20`, `C` (concentration), `A` (asymmetry), `S` (smoothness), `r50` (half-light radius within 1.5 circular
    Petrosian radii) and `flux` (within twice the circular Petrosian radius). What statmorph flags as bad (flag 2 or
    more) counts as failed. The galaxy's segment is what hangs together with the brightest pixel of the image smoothed
    with the PSF, above twice the noise of that image.

    The time of a galaxy is bounded: every search of statmorph that is used here has a largest number of steps.

    Args:
        images: noisy, background subtracted, `[N, ny, nx]`.
        sigma: noise per pixel, `[N]`.
        psf: kernel of the images `[odd, odd]`; it is the filter by which a galaxy is detected.
        processes: worker processes; a galaxy takes about 60 ms of one core.
        cache: folder in which results are kept by the content of what was measured, or None.
        progress: called with the number of galaxies done.

    Returns:
        An array `[N]` for each of `STATISTICS`.

    Raises:
        ParameterError: images and sigma disagree in number, or a sigma is not positive.

    Example:
        >>> y, x = np.mgrid[-24:25, -20:21]
        >>> galaxy = np.exp(-np.hypot(x, y / 0.6) / 3)[None]
        >>> measured = morphology_statistics(galaxy, [0.01], np.ones((1, 1)))
        >>> round(float(measured["ellipticity"][0]), 1)
        0.4
    """
    images, sigma, psf = (np.ascontiguousarray(values, np.float64) for values in (images, sigma, psf))
    if images.ndim != 3 or sigma.shape != images.shape[:1]:
        raise ParameterError(
            f"morphology_statistics: images must be [N, ny, nx] and sigma [N], got {images.shape} and {sigma.shape}"
        )
    if not np.all(sigma > 0):
        raise ParameterError("morphology_statistics: every sigma must be positive")
    if cache is None:
        return _measure_all(images, sigma, psf, processes, progress)
    path = Path(cache) / f"morphology-{_digest(images, sigma, psf)}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            measured = {name: kept[name] for name in STATISTICS}
        progress(len(images))
        return measured
    measured = _measure_all(images, sigma, psf, processes, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: np.savez_compressed(file, **measured))
    return measured


def failed_share(statistics: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """Share of the galaxies for which each measurement failed.

    Example:
        >>> failed_share({"C": np.array([1.0, np.nan])})
        {'C': 0.5}
    """
    return {name: float(np.mean(~np.isfinite(values))) for name, values in statistics.items()}


def _measure_all(
    images: NDArray[np.float64],
    sigma: NDArray[np.float64],
    psf: NDArray[np.float64],
    processes: int,
    progress: Callable[[int], None],
) -> dict[str, NDArray[np.float64]]:
    chunks = np.array_split(np.arange(len(images)), max(1, len(images) // 25))
    rows: list[list[float]] = []
    with joblib.parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
        results = joblib.Parallel(return_as="generator")(
            joblib.delayed(_measure_chunk)(images[chunk], sigma[chunk], psf) for chunk in chunks
        )
        for chunk_rows in results:
            rows += chunk_rows
            progress(len(rows))
    return dict(zip(STATISTICS, np.array(rows, np.float64).reshape(-1, len(STATISTICS)).T, strict=True))


def _measure_chunk(
    images: NDArray[np.float64], sigma: NDArray[np.float64], psf: NDArray[np.float64]
) -> list[list[float]]:
    return [_measure(image, noise, psf) for image, noise in zip(images, sigma, strict=True)]


def _measure(image: NDArray[np.float64], sigma: float, psf: NDArray[np.float64]) -> list[float]:
    classical, segment = _classical(image, sigma, psf)
    size, rho4 = _adaptive(image, segment)
    found = {**classical, "size": size, "rho4": rho4}
    return [found.get(name, np.nan) for name in STATISTICS]


def _classical(
    image: NDArray[np.float64], sigma: float, psf: NDArray[np.float64]
) -> tuple[dict[str, float], NDArray[np.bool_]]:
    segment = _segment(image, sigma, psf)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # what they warn of is in the flag
        try:
            measured = _Shape(image, segment.astype(int), 1, weightmap=np.full(image.shape, sigma))
        # A noisy galaxy can break any step of it: an empty aperture, a root that is not bracketed, a smoothing
        # length below a pixel. None of its errors has a class of its own.
        except Exception:
            return {}, segment
    if measured.flag >= 2:
        return {}, segment
    values = {name: float(getattr(measured, attribute)) for name, attribute in _ATTRIBUTES.items()}
    # -99 is statmorph's sign for a failure.
    return {name: value if value != -99 else np.nan for name, value in values.items()}, segment


def _segment(image: NDArray[np.float64], sigma: float, psf: NDArray[np.float64]) -> NDArray[np.bool_]:
    smooth = signal.fftconvolve(image, psf[::-1, ::-1], mode="same")
    labels, _ = ndimage.label(smooth > 2 * sigma * np.sqrt(np.sum(psf**2)))
    brightest = labels.flat[smooth.argmax()]
    if brightest == 0:  # nothing stands out
        return smooth == smooth.max()
    return labels == brightest


def _adaptive(image: NDArray[np.float64], segment: NDArray[np.bool_]) -> tuple[float, float]:
    y, x = ndimage.center_of_mass(segment)
    guess = np.sqrt(segment.sum() / np.pi) / 2
    found = galsim.hsm.FindAdaptiveMom(
        galsim.Image(image, scale=1.0, xmin=0, ymin=0),
        guess_sig=max(guess, 1.0),
        guess_centroid=galsim.PositionD(x, y),
        strict=False,
    )
    if found.error_message or not found.moments_sigma > 0:
        return np.nan, np.nan
    return float(found.moments_sigma), float(found.moments_rho4)


class _Shape(statmorph.SourceMorphology):
    """statmorph without what is not asked for: its Sersic fit and multimode search take most of its time."""

    def _calculate_morphology(self) -> None:
        for attribute in (*_ATTRIBUTES.values(), "sky_mean", "sky_sigma"):
            getattr(self, attribute)

    def _check_segmaps(self) -> None:
        """Compares with the segmentation of the multimode statistics, which are not asked for."""


_ATTRIBUTES = {
    "ellipticity": "ellipticity_asymmetry",
    "Gini": "gini",
    "M20": "m20",
    "C": "concentration",
    "A": "asymmetry",
    "S": "smoothness",
    "r50": "r50",
    "flux": "flux_circ",
}


def _digest(*arrays: NDArray[np.float64]) -> str:
    """Of what is measured, and of how: this file and statmorph's version."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + statmorph.__version__.encode())
    for array in arrays:
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]
