"""The size of a galaxy as it is drawn: the circle that holds half of its light."""

import numpy as np
from numpy.typing import NDArray


def half_light_radius(images: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radius of the circle about the centre of light that holds half of the light of the image, in pixels.

    Args:
        images: without noise, `[N, ny, nx]`.

    Returns:
        The radius `[N]`, and the distance of every pixel from the centre of light `[N, ny, nx]`.

    Example:
        >>> radius, distance = half_light_radius(np.ones((1, 101, 101)))
        >>> round(float(radius[0] / 101), 2)  # half of the square's area in the circle: 1 / sqrt(2 pi)
        0.4
    """
    images = np.asarray(images, np.float64)
    count, ny, nx = images.shape
    light = images.reshape(count, -1)
    light = light / light.sum(axis=1, keepdims=True)
    y, x = (index.ravel() for index in np.indices((ny, nx)))
    center_y, center_x = ((light * index).sum(axis=1, keepdims=True) for index in (y, x))
    distance = np.hypot(y - center_y, x - center_x)
    order = np.argsort(distance, axis=1)
    sorted_distance = np.take_along_axis(distance, order, axis=1)
    grown = np.cumsum(np.take_along_axis(light, order, axis=1), axis=1)
    radius = np.array([np.interp(0.5, *curve) for curve in zip(grown, sorted_distance, strict=True)])
    return radius, distance.reshape(images.shape)
