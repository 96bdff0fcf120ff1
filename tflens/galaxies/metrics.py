"""How good a galaxy model is: figures on galaxies it has never seen (G1 to G8 of the tables)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import wasserstein_distance

from tflens.datasets.half_light import half_light_radius

Images = NDArray[np.floating]
Statistics = Mapping[str, NDArray[np.floating]]

POWER_BANDS = 15


def reduced_chi2(image: Images, model: Images, sigma: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean over the pixels of ((image - model) / sigma)^2: images `[N, ny, nx]`, sigma `[N]`, result `[N]`.

    Example:
        >>> reduced_chi2(np.ones((2, 3, 4)), np.zeros((2, 3, 4)), np.array([1.0, 2.0])).tolist()
        [1.0, 0.25]
    """
    return np.mean(((image - model) / sigma[:, None, None]).astype(np.float64) ** 2, axis=(-2, -1))


def noiseless_residual(signal: Images, model: Images, sigma: NDArray[np.floating]) -> NDArray[np.float64]:
    """Root mean square of (model - signal) / sigma within twice the half-light radius of the noiseless signal.

    Args:
        signal: noiseless truth `[N, ny, nx]`.
        model: `[N, ny, nx]`.
        sigma: noise per pixel `[N]`.

    Returns:
        `[N]`; what is left of it is the model's own error, in units of the noise.
    """
    radius, distance = half_light_radius(signal)
    inside = distance <= 2 * radius[:, None, None]
    squares = ((model - signal) / sigma[:, None, None]).astype(np.float64) ** 2
    return np.sqrt(np.sum(squares * inside, axis=(-2, -1)) / np.sum(inside, axis=(-2, -1)))


def peak_error(signal: Images, model: Images) -> NDArray[np.float64]:
    """abs(peak of the model / peak of the noiseless signal - 1): images `[N, ny, nx]`, result `[N]`."""
    return np.abs(model.max(axis=(-2, -1)) / signal.max(axis=(-2, -1)).astype(np.float64) - 1)


def ssim(signal: Images, model: Images, window: int = 8) -> NDArray[np.float64]:
    """Structural similarity of noiseless images (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    The mean over all square windows that lie within the image, every pixel of a window weighted alike, with K1 = 0.01,
    K2 = 0.03 and, as dynamic range, the peak of the truth.

    Args:
        signal: noiseless truth `[N, ny, nx]`.
        model: `[N, ny, nx]`.
        window: side of the windows, pixels.

    Returns:
        `[N]`, 1 for equal images.

    Example:
        >>> image = np.random.default_rng(1).random((2, 20, 24))
        >>> ssim(image, image).tolist()
        [1.0, 1.0]
    """
    return np.mean(ssim_map(signal, model, window), axis=(-2, -1))


def ssim_map(signal: Images, model: Images, window: int = 8) -> NDArray[np.float64]:
    """What `ssim` is the mean of: one value for each window that lies within the image, `[N, ny', nx']`."""
    x, y = np.asarray(signal, np.float64), np.asarray(model, np.float64)
    mean_x, mean_y = window_means(x, window), window_means(y, window)
    variance_x = window_means(x * x, window) - mean_x**2
    variance_y = window_means(y * y, window) - mean_y**2
    covariance = window_means(x * y, window) - mean_x * mean_y
    peak = x.max(axis=(-2, -1))[:, None, None]
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance * structure


def distribution_distances(reference: Statistics, sample: Statistics) -> dict[str, float]:
    """1-D Wasserstein distance of each statistic, in standard deviations of the reference (G5, G7).

    Values that are not finite (failed measurements) are left out on either side.

    Args:
        reference: the held-out sample: names to `[N]`.
        sample: the same names to `[M]`.

    Returns:
        The distance of each statistic; NaN if either side has no values, or the reference only one.

    Example:
        >>> x = np.random.default_rng(1).normal(5.0, 2.0, size=1000)
        >>> bool(np.isclose(distribution_distances({"x": x}, {"x": x + 1.0})["x"], 1 / x.std()))
        True
    """
    return {name: _standardised_distance(values, sample[name]) for name, values in reference.items()}


def log_power(images: Images, bands: int = POWER_BANDS) -> dict[str, NDArray[np.float64]]:
    """Log of the mean power in rings of wave number, for each image `[N, n, n]`.

    The rings have equal widths and reach from the lowest wave number of the stamp to its Nyquist frequency; modes
    beyond that, in the corners of Fourier space, are not used.

    Returns:
        `[N]` for each of the bands, named by its number.

    Example:
        >>> power = log_power(np.random.default_rng(1).normal(size=(3, 32, 32)))
        >>> len(power), power["band 1"].shape
        (15, (3,))
    """
    side = images.shape[-1]
    edges = np.linspace(0.5, side // 2 + 0.5, bands + 1)
    means = _ring_means(_power(images), _wave_numbers(side), edges)
    return {f"band {i + 1}": np.log(values) for i, values in enumerate(means.T)}


def transfer(truth: Images, model: Images) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Power of the model over that of the truth at every wave number up to half of Nyquist (G8).

    Power spectra are means over the modes of a ring of unit width and over the images, which need not be the same
    galaxies; a copy that was blurred with a kernel has the square of the kernel's transfer function. In the mean,
    compact galaxies weigh most: the second curve, the ratio of geometric means over the images, weighs all alike.

    Args:
        truth: `[N, n, n]`, before PSF and noise.
        model: `[M, n, n]`, the same.

    Returns:
        Wave numbers 1 to n/4, in cycles a stamp, and the two ratios at each.

    Example:
        >>> image = np.random.default_rng(1).random((2, 32, 32))
        >>> k, ratio, geometric = transfer(image, 0.5 * image)
        >>> int(k[-1]), bool(np.allclose(ratio, 0.25)), bool(np.allclose(geometric, 0.25))
        (8, True, True)
    """
    side = truth.shape[-1]
    k = np.arange(1, side // 4 + 1)
    edges = np.arange(side // 4 + 1) + 0.5
    expected, found = (_ring_means(_power(images), _wave_numbers(side), edges) for images in (truth, model))
    geometric = np.exp(np.log(found).mean(axis=0) - np.log(expected).mean(axis=0))
    return k, found.mean(axis=0) / expected.mean(axis=0), geometric


def active_units(means: NDArray[np.floating], threshold: float = 0.01) -> int:
    """Number of latent dimensions whose posterior mean varies over the data (Burda et al. 2016, arXiv:1509.00519).

    Args:
        means: posterior means `[N, D]`.
        threshold: on their variance.

    Example:
        >>> active_units(np.array([[0.0, 1.0], [0.0, -1.0]]))
        1
    """
    return int(np.sum(np.var(means, axis=0) > threshold))


def window_means(images: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Means over the windows that lie within the image: `[N, ny - window + 1, nx - window + 1]`."""
    smooth = ndimage.uniform_filter(images, size=(1, window, window))
    low, high = window // 2, (window - 1) // 2
    return smooth[:, low : images.shape[1] - high, low : images.shape[2] - high]


def _standardised_distance(reference: NDArray[np.floating], sample: NDArray[np.floating]) -> float:
    a, b = (np.asarray(values, np.float64) for values in (reference, sample))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not len(a) or not len(b) or a.min() == a.max():
        return float("nan")
    return float(wasserstein_distance(a, b) / a.std())


def _power(images: Images) -> NDArray[np.float64]:
    return np.abs(np.fft.fft2(np.asarray(images, np.float64))) ** 2


def _wave_numbers(side: int) -> NDArray[np.float64]:
    """Distance of each mode from zero, in cycles a stamp, `[side, side]`."""
    k = np.fft.fftfreq(side, 1 / side)
    return np.hypot(k[:, None], k[None, :])


def _ring_means(
    power: NDArray[np.float64], wave_numbers: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean power `[N, len(edges) - 1]` of the modes between the edges."""
    ring = np.digitize(wave_numbers.ravel(), edges)
    inside = (ring > 0) & (ring < len(edges))
    membership = ring[inside][:, None] == np.arange(1, len(edges))
    return power.reshape(len(power), -1)[:, inside] @ (membership / membership.sum(axis=0))
