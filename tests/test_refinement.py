"""Suggested refinement: keeps to its tolerance against a truth of its own, on few pixels, and says where it cannot."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Sersic
from tflens.mass import SIE
from tflens.refinement import standard_room, suggest_refinement

Y, X = np.mgrid[-4:5, -5:6]
KERNEL = np.exp(-(X**2 + Y**2) / (2 * 1.2**2))
LAYER = LensLayer(PixelGrid((25, 32), 0.1), [SIE()], [Sersic()], [Sersic()], psf=KERNEL, supersampling=2)
ROUND = {"e1": 0.0, "e2": 0.0, "center_x": 0.013, "center_y": -0.021}


def inputs(center_x=0.013) -> dict:
    return {
        "mass": [{"theta_E": 0.8, **ROUND}],
        "lens_light": [{"R_sersic": 0.6, "n_sersic": 3.0, "amp": 1.0, **ROUND, "center_x": center_x}],
        "source": [{"R_sersic": 0.25, "n_sersic": 1.0, "amp": 0.5, **ROUND, "center_x": 0.1}],
    }


def error(layer: LensLayer, refine: np.ndarray | None, values: dict, noise: float) -> float:
    """Against midpoints far finer than any that the suggestion looks at: 2 x 24, and 2 x 96 around the cusp."""
    finest = np.full((25, 32), 24)
    finest[9:16, 13:20] = 96
    truth = layer.replace(refine=finest)(values)
    return float(np.max(np.abs(layer.replace(refine=refine)(values) - truth)) / noise)


@pytest.mark.parametrize("changes", [{}, {"psf": None}, {"quadrature": "gauss-legendre"}], ids=str)
def test_meets_the_tolerance_where_even_sampling_fails(changes):
    layer = LAYER.replace(**changes)
    noise = float(np.max(LAYER(inputs()))) / 50
    refine = suggest_refinement(layer, inputs(), noise)
    assert error(layer, None, inputs(), noise) > 0.2
    assert error(layer, refine, inputs(), noise) < 0.05
    assert np.mean(refine > 1) < 0.15


def test_a_supersampled_psf_is_taken_into_account():
    y, x = np.mgrid[-8:9, -8:9]
    fine = np.exp(-(x**2 + y**2) / (2 * 2.4**2))
    layer = LAYER.replace(psf=fine, psf_supersampling=2)
    noise = float(np.max(LAYER(inputs()))) / 50
    refine = suggest_refinement(layer, inputs(), noise)
    assert error(layer, None, inputs(), noise) > 0.2
    assert error(layer, refine, inputs(), noise) < 0.05


def test_the_brightest_pixels_come_first_and_a_lower_tolerance_takes_more():
    noise = float(np.max(LAYER(inputs()))) / 50
    counts = [np.sum(suggest_refinement(LAYER, inputs(), noise, t) > 1) for t in (0.4, 0.1, 0.05)]
    assert 0 < counts[0] < counts[1] < counts[2]
    # Pixel [12, 16] holds the cusp.
    refine = suggest_refinement(LAYER, inputs(), noise)
    assert refine[12, 16] == refine.max() > 4


def test_nothing_is_refined_where_nothing_needs_to_be():
    assert (suggest_refinement(LAYER, inputs(), noise=1e3) == 1).all()


def test_every_model_of_a_batch_is_kept_to_the_tolerance():
    values = inputs(center_x=tf.constant([-0.2, 0.013]))
    noise = float(np.max(LAYER(inputs()))) / 50
    refine = suggest_refinement(LAYER, values, noise)
    for center_x in (-0.2, 0.013):
        assert error(LAYER, refine, inputs(center_x=center_x), noise) < 0.05
    # For one of them alone it would not have been enough.
    assert error(LAYER, suggest_refinement(LAYER, inputs(), noise), inputs(center_x=-0.2), noise) > 0.05


def test_noise_of_a_map_counts_pixel_by_pixel():
    noise = np.full((25, 32), float(np.max(LAYER(inputs()))) / 50)
    noise[:, :20] = 1e6
    refine = suggest_refinement(LAYER, inputs(), noise, tolerance=0.02)
    assert (refine[:, :14] == 1).all()


def test_a_tolerance_out_of_reach_warns_and_the_map_is_still_the_better_one():
    with pytest.warns(UserWarning, match=r"with 2 parts a side the error is still .* add a higher one to \[2\]"):
        refine = suggest_refinement(LAYER, inputs(), 1e-4, levels=[2])
    assert 0 < error(LAYER, refine, inputs(), 1e-4) < 0.8 * error(LAYER, None, inputs(), 1e-4)


@pytest.mark.parametrize("levels", [[1, 4], [4, 2], [4, 4], [2.0]])
def test_unusable_levels_are_refused(levels):
    with pytest.raises(ParameterError, match="levels must be ascending whole numbers above 1"):
        suggest_refinement(LAYER, inputs(), 0.1, levels=levels)


@pytest.mark.parametrize("noise", [0.0, -1.0, np.nan])
def test_noise_that_is_not_positive_is_refused(noise):
    with pytest.raises(ParameterError, match="noise must be positive in every pixel"):
        suggest_refinement(LAYER, inputs(), noise)


class TestStandardRoom:
    @pytest.mark.parametrize(
        ("pixels", "room"),
        [
            ({}, {2: 160, 4: 24, 16: 0, 64: 0}),
            ({2: 160, 4: 24}, {2: 160, 4: 24, 16: 0, 64: 0}),
            ({4: 25}, {2: 256, 4: 96, 16: 16, 64: 0}),
            ({64: 1}, {2: 1024, 4: 384, 16: 64, 64: 1}),
            ({16: 65, 64: 1}, {2: 4096, 4: 1536, 16: 256, 64: 4}),
            ({3: 5, 64: 1}, {2: 1024, 4: 384, 16: 64, 64: 1, 3: 5}),
        ],
    )
    def test_is_the_smallest_that_holds_the_map(self, pixels, room):
        refine = np.ones((20, 30), int)
        refine.flat[: sum(pixels.values())] = [parts for parts, n in pixels.items() for _ in range(n)]
        assert standard_room(refine) == room

    def test_suits_the_layer(self):
        refine = np.ones((25, 32), int)
        refine[3, 4:9] = 5, 4, 16, 4, 64
        assert LAYER.replace(refine=refine, room=standard_room(refine)).samples > LAYER.replace(refine=refine).samples
