"""Images of a posterior on any grid: the source before lensing, and its arcs as another instrument would see them."""

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.inference.posterior import Posterior
from tflens.lens_layer import LensLayer
from tflens.model import LensModel

_AT_ONCE = 16  # draws in one batch, so that memory does not grow with their number


def source_on(model: LensModel, posterior: Posterior, grid: PixelGrid, draws: int = 64) -> np.ndarray:
    """Draws of the sources before lensing on any grid: profiles are evaluated there, nothing is interpolated that they
    do not interpolate themselves. Mean and spread are those over the first axis.

    Args:
        model: of the fit.
        posterior: of the fit.
        grid: pixels in the source plane.
        draws: how many, spread evenly over the chains; all there are if fewer.

    Returns:
        Surface brightness at the pixels' centres, counts/s/arcsec^2, `[draws, ny, nx]`.

    Raises:
        ParameterError: `draws` is not a whole number from 1, or the posterior is that of another model.
    """
    return sum(sources_on(model, posterior, grid, draws).values())


def sources_on(model: LensModel, posterior: Posterior, grid: PixelGrid, draws: int = 64) -> dict[str, np.ndarray]:
    """As `source_on`, each source by itself, by its label."""
    u, amplitudes = thinned(model, posterior, draws)
    x, y = (tf.constant(axis.astype(model.dtype)) for axis in grid.coordinates())
    parts: dict[str, list[np.ndarray]] = {label: [] for label, _ in model.labelled_sources()}
    for first in range(0, len(u), _AT_ONCE):
        points, amp = tf.constant(u[first : first + _AT_ONCE]), amplitudes[first : first + _AT_ONCE]
        inputs = model.layer_inputs(model.physical(points), model.source_images(points))["source"]
        for (label, source), values, place in zip(
            model.labelled_sources(), inputs, model.source_amplitudes, strict=True
        ):
            parts[label].append(source.brightness(x, y, **values).numpy() * amp[:, place, None, None])
    return {label: np.concatenate(images) for label, images in parts.items()}


def arcs_on(
    model: LensModel,
    posterior: Posterior,
    grid: PixelGrid,
    draws: int = 64,
    psf: np.ndarray | None = None,
    supersampling: int = 2,
) -> np.ndarray:
    """Draws of the lensed sources on any grid in the image plane, without the light of the lens.

    Args:
        model, posterior, draws: as for `source_on`.
        grid: pixels in the image plane.
        psf: kernel on that grid's pixels; None for none at all, the sky before the telescope.
        supersampling: samples along each side of a pixel.

    Returns:
        Counts/s per pixel, `[draws, ny, nx]`.

    Raises:
        ParameterError: as `source_on`, or a setting that `LensLayer` refuses.
    """
    u, amplitudes = thinned(model, posterior, draws)
    layer = LensLayer(
        grid, model.lens, (), model.sources, psf=psf, supersampling=supersampling, dtype=model.dtype, padding=0
    )
    images = []
    for first in range(0, len(u), _AT_ONCE):
        points, amp = tf.constant(u[first : first + _AT_ONCE]), amplitudes[first : first + _AT_ONCE]
        inputs = model.layer_inputs(model.physical(points), model.source_images(points))
        for values, place in zip(inputs["source"], model.source_amplitudes, strict=True):
            values["amp"] = tf.constant(amp[:, place])
        images.append(layer({"mass": inputs["mass"], "source": inputs["source"]}).numpy())
    return np.concatenate(images)


def half_light_radius(images: np.ndarray, grid: PixelGrid) -> np.ndarray:
    """Radius of the circle that holds half of the light of a grid, around the light's centre.

    Args:
        images: surface brightness `[...batch, ny, nx]`; what is negative is taken for 0.
        grid: their pixels, of which several ought to lie within that circle.

    Returns:
        `[...batch]`, arcsec; NaN where there is no light.

    Example:
        >>> grid = PixelGrid((101, 121), 0.05)
        >>> x, y = grid.coordinates()
        >>> gaussian = np.exp(-(x**2 + y**2) / (2 * 0.5**2))
        >>> round(float(half_light_radius(gaussian, grid)), 2)  # sigma sqrt(2 ln 2)
        0.59
    """
    light = np.maximum(images, 0).astype(np.float64)
    total = light.sum((-2, -1))
    x, y = grid.coordinates()
    found = np.full(total.shape, np.nan)
    for index in zip(*np.nonzero(total > 0), strict=True) if total.ndim else ([()] if total > 0 else []):
        image = light[index] / total[index]
        radius = np.hypot(x - np.sum(image * x), y - np.sum(image * y)).ravel()
        order = np.argsort(radius)
        # Each pixel's light counts from its middle.
        flux = image.ravel()[order]
        found[index] = np.interp(0.5, np.cumsum(flux) - flux / 2, radius[order])
    return found


def thinned(model: LensModel, posterior: Posterior, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Base-space values `[draws, dim]` and amplitudes `[draws, components]` of evenly spread draws of a posterior.

    Raises:
        ParameterError: `draws` is not a whole number from 1, or the posterior is that of another model.
    """
    if not isinstance(draws, int) or draws < 1:
        raise ParameterError(f"draws must be a whole number from 1, got {draws!r}")
    u = posterior.data.posterior["u"].to_numpy()
    u = u.reshape(-1, u.shape[-1])
    missing = [name for name in model.amplitude_names if name not in posterior.names]
    if u.shape[-1] != model.dim or missing:
        raise ParameterError(
            f"the posterior must be that of the model, but it has {u.shape[-1]} dimensions of {model.dim}"
            + (f" and no {', '.join(missing)}" if missing else "")
        )
    picked = np.unique(np.linspace(0, len(u) - 1, min(draws, len(u))).round().astype(int))
    amplitudes = np.stack([posterior.draws(name)[picked] for name in model.amplitude_names], -1)
    return u[picked].astype(model.dtype), amplitudes.astype(model.dtype)
