"""Which pixels need finer sampling: those whose rendering error would otherwise reach the noise."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.pixel_integration import refined_pixels
from tflens.psf import PSF


def suggest_refinement(
    layer: LensLayer,
    inputs: dict[str, list[dict[str, Any]]],
    noise: np.ndarray | float,
    tolerance: float = 0.05,
    levels: Sequence[int] = (2, 4, 16, 64),
) -> np.ndarray:
    """A map of finer sampling, on few pixels, that keeps the image's error below `tolerance` times the noise.

    A pixel's error before the PSF is the difference between the layer's own sampling and the second level's, for at a
    cusp the first may be wrong alike. Pixels are refined in the order of their error's weight in the image until what
    is left, after the PSF, is nowhere above half the tolerance; of the refined ones, those that still differ from the
    level after the next go on, within half of what remains. So the ridges of the arcs and the cusp of a galaxy are
    found one after the other, and nothing else is paid for. Where the highest level does not do, as for a Sersic index
    of 8, a warning says what error is left.

    The map holds for models close to `inputs`: give a batch of likely ones, and every one of them is kept to the
    tolerance. Loss of light beyond the frame is not considered (see `LensLayer`'s padding).

    Args:
        layer: with the sampling that is to be refined; a `refine` of its own is ignored.
        inputs: of the layer; the models' light with its amplitudes.
        noise: standard deviation of a pixel, counts/s, a number or `[ny, nx]`.
        tolerance: largest error, in units of the noise.
        levels: parts along each side of a pixel, ascending, that may be used.

    Returns:
        Whole numbers `[ny, nx]`, 1 = leave as it is: `layer.replace(refine=...)`.

    Raises:
        ParameterError: the noise is not positive, or the levels are not ascending whole numbers above 1.

    Warns:
        UserWarning: the tolerance is not met by the highest level, measured against twice as many samples.

    Example:
        >>> from tflens.light import Sersic
        >>> layer = LensLayer(PixelGrid((9, 11), 0.1), lens_light=[Sersic()], supersampling=2)
        >>> galaxy = {"R_sersic": 0.5, "n_sersic": 4.0, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> refine = suggest_refinement(layer, {"lens_light": [galaxy | {"amp": 1.0}]}, noise=0.05)
        >>> refine[3:6, 4:7]
        array([[ 1,  2,  1],
               [ 2, 64,  2],
               [ 1,  2,  1]])
    """
    noise = _positive(noise, layer, "suggest_refinement")
    levels = list(levels)
    if levels != sorted(set(levels)) or not all(isinstance(n, int | np.integer) and n > 1 for n in levels):
        raise ParameterError(f"suggest_refinement: levels must be ascending whole numbers above 1, got {levels}")
    cell = layer.get_config()["psf_supersampling"]
    scene = _Scene(layer, inputs, noise)
    render, largest = scene.render, scene.largest
    weight = _weight(scene.psf, noise, scene.bare.grid.shape)
    refine = np.ones(layer.grid.shape, int)
    candidates, budget = np.ones(layer.grid.shape, bool), tolerance
    for level, reference in zip(levels, [*levels[1:], 2 * levels[-1]], strict=True):
        budget /= 2
        error = render(refine) - render(np.where(candidates, reference, refine))
        candidates = _fewest(
            np.abs(error * weight).max(0),
            cell,
            lambda chosen, error=error, budget=budget: largest(np.where(chosen, 0.0, error)) <= budget,
        )
        refine[candidates] = level
    left = largest(render(refine) - render(np.where(candidates, 2 * levels[-1], refine)))
    if left > budget:
        warnings.warn(
            f"suggest_refinement: with {levels[-1]} parts a side the error is still {left:.3g} of the noise, above "
            f"{budget:g}, what the tolerance {tolerance:g} leaves to the last level; add a higher one to {levels}",
            stacklevel=2,
        )
    return refine


def standard_room(refine: np.ndarray) -> dict[int, int]:
    """Room (see `PixelIntegration`) for a map and for others about as large: the smallest of a few sizes.

    So lenses share what is compiled, though their maps differ. Of levels that are not those of `suggest_refinement`
    there is room for as many pixels as the map has.

    Args:
        refine: whole numbers `[ny, nx]`.

    Example:
        >>> standard_room(np.array([[1, 4, 4], [64, 1, 1]]))
        {2: 1024, 4: 384, 16: 64, 64: 1}
    """
    wanted = refined_pixels(refine)
    levels = next(_rooms())
    others = {parts: n for parts, n in wanted.items() if parts not in levels}
    return next(room | others for room in _rooms() if all(wanted.get(parts, 0) <= n for parts, n in room.items()))


def _rooms() -> Iterator[dict[int, int]]:
    # Few sizes, for each takes a minute to compile and a gigabyte; a pixel of the highest level costs as much as an
    # image.
    yield {2: 160, 4: 24, 16: 0, 64: 0}
    for k in count():
        yield {2: 256 * 4**k, 4: 96 * 4**k, 16: 16 * 4**k, 64: 4**k // 4}


def rendering_error(
    layer: LensLayer, inputs: dict[str, list[dict[str, Any]]], noise: np.ndarray | float, factor: int = 4
) -> float:
    """The largest error of a layer's own sampling, its `refine` included, in units of the noise.

    Measured against `factor` times more parts along each side of every pixel.

    Args:
        layer, inputs, noise: as for `suggest_refinement`.
        factor: a whole number above 1.

    Raises:
        ParameterError: the noise is not positive.

    Example:
        >>> from tflens.light import Sersic
        >>> layer = LensLayer(PixelGrid((9, 11), 0.1), lens_light=[Sersic()], supersampling=2)
        >>> galaxy = {"R_sersic": 0.5, "n_sersic": 4.0, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
        >>> inputs = {"lens_light": [galaxy | {"amp": 1.0}]}
        >>> refine = suggest_refinement(layer, inputs, noise=0.05)
        >>> [rendering_error(each, inputs, 0.05) < 0.05 for each in (layer, layer.replace(refine=refine))]
        [False, True]
    """
    scene = _Scene(layer, inputs, _positive(noise, layer, "rendering_error"))
    refine = np.ones(layer.grid.shape, int) if layer.refine is None else layer.refine
    return scene.largest(scene.render(refine) - scene.render(factor * refine))


class _Scene:
    """Models of a layer, drawn with any refinement before the PSF, and what an error of them does after it."""

    def __init__(self, layer: LensLayer, inputs: dict[str, list[dict[str, Any]]], noise: np.ndarray) -> None:
        self.cell = layer.get_config()["psf_supersampling"]
        kernel = np.ones((1, 1)) if layer.psf is None else layer.psf.kernel
        self.psf = PSF(kernel, layer.grid.shape, supersampling=self.cell, dtype="float64")
        self.bare = _without_psf(layer, self.cell)
        self.inputs, self.noise = inputs, noise

    def render(self, refine: np.ndarray) -> np.ndarray:
        """Images before the PSF, `[models, cells]`, per pixel's area."""
        image = self.bare.replace(refine=_on_cells(refine, self.cell))(self.inputs).numpy()
        return self.cell**2 * image.reshape(-1, *self.bare.grid.shape).astype(np.float64)

    def largest(self, error: np.ndarray) -> float:
        """After the PSF, over models and pixels, in units of the noise."""
        return float(np.max(np.abs(self.psf.convolve(tf.constant(error))) / self.noise))


def _positive(noise: np.ndarray | float, layer: LensLayer, caller: str) -> np.ndarray:
    noise = np.broadcast_to(np.asarray(noise, np.float64), layer.grid.shape)
    if not (noise > 0).all():
        raise ParameterError(f"{caller}: the noise must be positive in every pixel")
    return noise


def _without_psf(layer: LensLayer, cell: int) -> LensLayer:
    """The layer that draws what the PSF is given: the light on its cells."""
    grid = PixelGrid(tuple(n * cell for n in layer.grid.shape), layer.grid.pixel_scale / cell, layer.grid.center)
    samples = layer.get_config()["supersampling"] // cell
    return layer.replace(
        grid=grid, psf=None, psf_supersampling=1, supersampling=samples, padding=0, refine=None, room=None
    )


def _on_cells(pixels: np.ndarray, cell: int) -> np.ndarray:
    return np.repeat(np.repeat(pixels, cell, 0), cell, 1)


def _weight(psf: PSF, noise: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """What an error in each cell brings about in the image, in units of the noise: the PSF's adjoint of 1 / noise."""
    flat = tf.zeros(cells, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        total = tf.reduce_sum(psf.convolve(flat) / noise)
    return tape.gradient(total, flat).numpy()


def _fewest(error: np.ndarray, cell: int, good: Callable[[np.ndarray], bool]) -> np.ndarray:
    """The fewest pixels, worst first, that make `good` when they (their cells) are freed of their error `[cells]`."""
    ny, nx = (n // cell for n in error.shape)
    worst = error.reshape(ny, cell, nx, cell).max((1, 3))
    rank = np.argsort(np.argsort(-worst, axis=None)).reshape(ny, nx)
    low, high = 0, rank.size
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if good(_on_cells(rank < middle, cell)) else (middle + 1, high)
    return rank < high
