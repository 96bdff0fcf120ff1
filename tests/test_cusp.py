"""The cusp of a galaxy: pixels around its centre against truths of another kind, and gradients wherever it lies."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tflens.cusp import REACH, integrate_around_center
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import DeVaucouleurs, Exponential, Gaussian, Sersic
from tflens.sersic import b_n

GRID = PixelGrid((11, 13), 0.1, (0.03, -0.02))
VALUES = {"R_sersic": 0.4, "n_sersic": 4.0, "e1": 0.2, "e2": -0.3, "center_x": 0.02, "center_y": -0.013}
EXTREMES = [
    {"n_sersic": 0.5, "R_sersic": 0.15},
    {"n_sersic": 1.0},
    {"n_sersic": 4.0, "e1": 0.55, "e2": 0.2},
    {"n_sersic": 8.0, "center_x": 0.0799, "center_y": 0.0299},  # nearly a corner of four pixels
    {"n_sersic": 8.0, "e1": 0.0, "e2": 0.0, "center_x": 0.03, "center_y": -0.02},  # the middle of one
]


def values(dtype: str = "float64", **changes: float) -> dict[str, tf.Tensor]:
    return {name: tf.constant(value, dtype) for name, value in (VALUES | changes).items()}


def around_center(dtype: str = "float64", **changes: float) -> np.ndarray:
    image = tf.fill(GRID.shape, tf.constant(-1.0, dtype))
    return integrate_around_center(image, Sersic(), values(dtype, **changes), GRID).numpy()


@pytest.mark.parametrize("n", [0.5, 1.0, 2.5, 4.0, 8.0])
def test_the_mean_within_an_ellipse_is_the_incomplete_gamma_function(n):
    radius = np.array([[0.03, 0.1, 0.3, 1.0, 3.0, 10.0]])
    b = float(b_n(tf.constant(n, tf.float64)))
    c = b * radius ** (1 / n)
    exact = 2 * n * np.exp(b) * c ** (-2 * n) * special.gamma(2 * n) * special.gammainc(2 * n, c)
    at_center = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}
    found = Sersic().mean_within(
        tf.constant(radius), tf.zeros_like(radius), **values(n_sersic=n, R_sersic=1.0, **at_center)
    )
    np.testing.assert_allclose(found[:, :-1], exact[:, :-1], rtol=1e-5)
    np.testing.assert_allclose(found, exact, rtol=3e-5)


@pytest.mark.parametrize("changes", EXTREMES)
def test_pixels_near_the_center_are_those_of_very_fine_sampling(changes):
    fine = LensLayer(GRID, lens_light=[Sersic()], quadrature="gauss-legendre", supersampling=400, dtype="float64")
    truth = fine({"lens_light": [VALUES | changes | {"amp": 1.0}]}).numpy() / GRID.pixel_area
    found = around_center(**changes)
    inside = found != -1
    assert inside.sum() == (2 * REACH + 1) ** 2
    # Samples cannot do better where n = 8: their cusp is softened within 1e-4 arcsec, and a pixel has but 160,000.
    tolerance = 2e-3 if changes["n_sersic"] == 8.0 else 2e-4
    np.testing.assert_allclose(found[inside], truth[inside], atol=tolerance * truth.max())
    row, column = np.unravel_index(np.argmax(truth), truth.shape)
    assert inside[row - 1 : row + 2, column - 1 : column + 2].all()


def test_all_of_the_light_of_a_small_galaxy_is_there():
    small = values(R_sersic=0.02, n_sersic=1.0, e1=0.1, e2=0.1)
    found = integrate_around_center(tf.zeros(GRID.shape, tf.float64), Sersic(), small, GRID)
    flux = Sersic().flux(**small)
    np.testing.assert_allclose(np.sum(found) * GRID.pixel_area, flux, rtol=1e-4)


@pytest.mark.parametrize("changes", EXTREMES)
def test_gradients_are_those_of_finite_differences_backwards_and_forwards(changes):
    given = VALUES | changes | {"center_x": 0.041, "center_y": 0.017}
    weight = np.random.default_rng(3).normal(size=GRID.shape)

    def total(given: dict[str, tf.Tensor]) -> tf.Tensor:
        image = integrate_around_center(tf.zeros(GRID.shape, tf.float64), Sersic(), given, GRID)
        return tf.reduce_sum(weight * image)

    point = {name: tf.constant(value, tf.float64) for name, value in given.items()}
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = total(point)
    gradient, step = tape.gradient(value, point), 1e-5
    for name in given:
        up, down = (float(total(point | {name: point[name] + s})) for s in (step, -step))
        np.testing.assert_allclose(gradient[name], (up - down) / (2 * step), rtol=1e-5, err_msg=name)
        with tf.autodiff.ForwardAccumulator(point[name], tf.ones([], tf.float64)) as accumulator:
            value = total(point)
        np.testing.assert_allclose(accumulator.jvp(value), gradient[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("n", [0.5, 4.0, 8.0])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.03, -0.02), (0.08, 0.03), (5.0, 5.0), (0.03, 0.53)])
def test_gradients_are_finite_wherever_the_center_lies(n, place):
    given = values("float32", n_sersic=n, center_x=place[0], center_y=place[1])
    with tf.GradientTape() as tape:
        tape.watch(given)
        image = integrate_around_center(tf.zeros(GRID.shape), Sersic(), given, GRID)
    assert np.isfinite(image).all()
    assert all(np.isfinite(each).all() for each in tape.gradient(image, given, unconnected_gradients="zero").values())


def test_a_center_beyond_the_image_changes_nothing_in_it():
    assert (around_center(center_x=1.5) == -1).all()
    # Of one at the edge, what is inside of the image.
    assert np.argwhere(around_center(center_x=0.03 + 0.62, center_y=-0.02) != -1).min(0).tolist() == [3, 10]


def test_lanes_have_centers_of_their_own():
    places = [0.02, 0.33, -0.3]
    lanes = {name: tf.constant([each] * 3, tf.float64) for name, each in VALUES.items()}
    lanes["center_x"] = tf.constant(places, tf.float64)
    together = integrate_around_center(-tf.ones([3, *GRID.shape], tf.float64), Sersic(), lanes, GRID)
    np.testing.assert_allclose(together, [around_center(center_x=x) for x in places], rtol=1e-12)


@pytest.mark.parametrize("changes", EXTREMES)
def test_float32_is_as_good_as_it_can_be(changes):
    exact = around_center(**changes)
    np.testing.assert_allclose(around_center("float32", **changes), exact, atol=2e-5 * exact.max())


class TestLayer:
    PSF = np.outer([0.2, 0.6, 0.2], [0.2, 0.6, 0.2])

    def layer(self, profile=None, **settings) -> LensLayer:
        settings = {"exact_cusps": True, "supersampling": 2, "dtype": "float64", **settings}
        return LensLayer(GRID, lens_light=[profile or Sersic()], **settings)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"psf": PSF, "padding": "psf"}, {"psf": np.ones((1, 1)), "psf_supersampling": 2}],
        ids=["bare", "padded", "cells of a PSF"],
    )
    def test_an_image_is_that_of_very_fine_sampling(self, settings):
        inputs = {"lens_light": [VALUES | {"amp": 2.0}]}
        samples = {"supersampling": 200, "quadrature": "gauss-legendre"}
        truth = self.layer(**settings, **samples, exact_cusps=False)(inputs).numpy()
        error = np.abs(self.layer(**settings, quadrature="gauss-legendre")(inputs) - truth).max()
        assert error < 3e-3 * truth.max()
        assert np.abs(self.layer(**settings, exact_cusps=False)(inputs) - truth).max() > 0.02 * truth.max()

    @pytest.mark.parametrize("profile", [DeVaucouleurs(), Exponential()])
    def test_profiles_of_a_fixed_index_have_their_cusps_too(self, profile):
        fixed = {name: value for name, value in VALUES.items() if name != "n_sersic"} | {"amp": 1.0}
        index = profile.n_sersic
        free = self.layer()({"lens_light": [VALUES | {"n_sersic": index, "amp": 1.0}]})
        np.testing.assert_allclose(self.layer(profile)({"lens_light": [fixed]}), free, rtol=1e-10)

    def test_a_profile_without_a_cusp_is_sampled(self):
        given = {"lens_light": [{"amp": 1.0, "sigma": 0.2, "e1": 0.1, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}]}
        found, sampled = (self.layer(Gaussian(), exact_cusps=exact)(given) for exact in (True, False))
        np.testing.assert_array_equal(found, sampled)

    def test_a_saved_layer_keeps_the_setting(self):
        layer = self.layer(psf=self.PSF)
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
        inputs = {"lens_light": [VALUES | {"amp": 1.0}]}
        np.testing.assert_array_equal(again(inputs), layer(inputs))
        assert again.replace(supersampling=3).get_config()["exact_cusps"]
