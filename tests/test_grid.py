"""The pixel grid: sub-pixel samples tile the pixels, padding extends them, nonsense is refused."""

import numpy as np
import pytest

from tflens.errors import ParameterError
from tflens.grid import PixelGrid

GRID = PixelGrid((3, 4), 0.5, center=(1.0, -2.0))


def test_pixel_centres_run_from_bottom_left_around_the_centre():
    x, y = GRID.coordinates()
    np.testing.assert_allclose(x, [[0.25, 0.75, 1.25, 1.75]], rtol=1e-15)
    np.testing.assert_allclose(y, [[-2.5], [-2.0], [-1.5]], rtol=1e-15)


@pytest.mark.parametrize("s", [2, 3, 5])
def test_samples_of_a_pixel_average_to_its_centre_and_are_evenly_spread(s):
    for fine, coarse, n in zip(GRID.coordinates(supersampling=s), GRID.coordinates(), (4, 3), strict=True):
        np.testing.assert_allclose(fine.reshape(n, s).mean(1), coarse.ravel(), rtol=1e-14)
        np.testing.assert_allclose(np.diff(fine.ravel()), 0.5 / s, rtol=1e-12)


def test_padding_adds_whole_pixels_on_every_side():
    for padded, plain in zip(GRID.coordinates(2, padding=3), GRID.coordinates(2), strict=True):
        np.testing.assert_allclose(padded.ravel()[6:-6], plain.ravel(), rtol=1e-14)


def test_extent_is_half_a_pixel_beyond_the_outermost_centres():
    assert GRID.extent == (0.0, 2.0, -2.75, -1.25)
    assert GRID.pixel_area == 0.25


def test_shape_and_numbers_become_plain():
    grid = PixelGrid([np.int64(3), 4], np.float32(0.5), center=np.array([1, -2]))
    assert grid == GRID
    assert hash(grid) == hash(GRID)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (0, 4), (3, -1), (3.5, 4), 7, ("a", 4)])
def test_unusable_shape_is_refused(shape):
    with pytest.raises(ParameterError, match=r"PixelGrid.shape must be two positive integers \(ny, nx\)"):
        PixelGrid(shape, 0.1)


@pytest.mark.parametrize("pixel_scale", [0.0, -0.1, float("nan"), float("inf")])
def test_unusable_pixel_scale_is_refused(pixel_scale):
    with pytest.raises(ParameterError, match=r"PixelGrid\.pixel_scale must be positive and finite"):
        PixelGrid((3, 4), pixel_scale)


@pytest.mark.parametrize("center", [(0.0,), (0.0, float("nan")), 1.0])
def test_unusable_centre_is_refused(center):
    with pytest.raises(ParameterError, match=r"PixelGrid\.center must be two finite numbers"):
        PixelGrid((3, 4), 0.1, center)


@pytest.mark.parametrize(("supersampling", "padding"), [(0, 0), (-1, 0), (1.5, 0), (1, -1), (1, 0.5)])
def test_unusable_sampling_is_refused(supersampling, padding):
    with pytest.raises(ParameterError, match=f"supersampling={supersampling}, padding={padding}"):
        GRID.coordinates(supersampling, padding)
