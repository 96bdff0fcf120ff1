"""How good a galaxy model is: figures on galaxies it has never seen."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.floating]


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


def half_light_radius(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radius of the circle about the centroid that holds half of the light of the image, in pixels.

    Args:
        images: without noise, `[N, ny, nx]`.

    Returns:
        The radius `[N]`, and the distance of every pixel from the centroid `[N, ny, nx]`.

    Example:
        >>> radius, distance = half_light_radius(np.ones((1, 101, 101)))
        >>> round(float(radius[0] / 101), 2)  # half of the square's area in the circle: 1 / sqrt(2 pi)
        0.4
    """
    images = np.asarray(images, np.float64)
    count, ny, nx = images.shape
    flux = images.sum(axis=(-2, -1))
    y, x = np.arange(ny)[:, None], np.arange(nx)[None, :]
    center_y, center_x = ((images * axis).sum(axis=(-2, -1)) / flux for axis in (y, x))
    distance = np.hypot(y - center_y[:, None, None], x - center_x[:, None, None])
    order = np.argsort(distance.reshape(count, -1), axis=1)
    sorted_distance = np.take_along_axis(distance.reshape(count, -1), order, axis=1)
    light = np.cumsum(np.take_along_axis(images.reshape(count, -1), order, axis=1), axis=1) / flux[:, None]
    radius = np.array([np.interp(0.5, grown, at) for grown, at in zip(light, sorted_distance, strict=True)])
    return radius, distance


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
