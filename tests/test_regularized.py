import numpy as np
import pytest
import tensorflow as tf
from tiny_lens import TRUTH, model, observation

from tflens.errors import ParameterError
from tflens.inference.optimize import gauss_newton
from tflens.light import CenteredPixels, RegularizedPixels
from tflens.model import LensModel, LensTarget
from tflens.model_file import read_model, write_model


def source(**settings) -> RegularizedPixels:
    return RegularizedPixels(**{"pixels": 9, "pixel_scale": 0.1, "correlation_length": 0.2} | settings)


def draws(light: RegularizedPixels, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, light.latent_dim))


class TestField:
    def test_has_unit_variance_everywhere_whatever_its_length(self) -> None:
        light = source()
        # Exact: the field is linear in the white pixels, and the sum of squares of its rows is its variance.
        for log_length in (-1.0, 0.0, 1.5):
            white = np.eye(light.pixels**2)
            u = np.concatenate([np.full((len(white), 1), log_length), np.zeros((len(white), 1)), white], 1)
            variance = (light.field(tf.constant(u)).numpy() ** 2).sum(0)
            np.testing.assert_allclose(variance, 1, rtol=1e-12)

    @pytest.mark.parametrize("log_length", [-0.8, 0.0])
    def test_correlation_is_matern_far_from_the_border(self, log_length: float) -> None:
        light = RegularizedPixels(pixels=41, pixel_scale=0.02, correlation_length=0.08, spread=0.5)
        length = 0.08 / 0.02 * np.exp(0.5 * log_length)
        white = np.eye(41**2)[20 * 41 : 21 * 41]  # the middle row is what the middle column's weights along x are
        u = np.concatenate([np.full((41, 1), log_length), np.zeros((41, 1)), white], 1)
        weights = light.field(tf.constant(u)).numpy()[:, 20]
        covariance = weights.T @ weights
        correlation = covariance[20] / covariance[20, 20]
        distance = np.abs(np.arange(41) - 20)
        near = distance <= 8
        # Summed over pixels in place of an integral: an error of order (1 / length)^2 / 12.
        expected = (1 + distance / length) * np.exp(-distance / length)
        np.testing.assert_allclose(correlation[near], expected[near], atol=1 / (6 * length**2))


class TestImage:
    def test_is_positive_and_of_unit_flux(self) -> None:
        light = source()
        image = light.image(tf.constant(draws(light, 20))).numpy()
        assert image.shape == (20, 9, 9)
        assert (image > 0).all()
        np.testing.assert_allclose(image.sum((1, 2)), 1, rtol=1e-12)

    def test_the_median_is_the_disc(self) -> None:
        light = RegularizedPixels(pixels=81, pixel_scale=0.05, half_light_radius=0.4)
        image = light.image(tf.zeros([1, light.latent_dim], tf.float64))[0].numpy()
        place = (np.arange(81) - 40) * 0.05
        inside = np.hypot(place, place[:, None]) < 0.4
        assert image[inside].sum() == pytest.approx(0.5, abs=0.02)

    def test_contrast_and_length_are_what_their_latents_say(self) -> None:
        light = source(contrast=0.5, spread=0.4)
        u = draws(light, 400)
        u[:, 0], u[:, 1] = 0.0, 1.0
        disc = light.image(tf.zeros([1, light.latent_dim], tf.float64)).numpy()
        logs = np.log(light.image(tf.constant(u)).numpy() / disc)
        field = light.field(tf.constant(u)).numpy()
        ratio = (logs - logs.mean((1, 2), keepdims=True)) / (field - field.mean((1, 2), keepdims=True))
        np.testing.assert_allclose(ratio, 0.5 * np.exp(0.4), rtol=1e-6)

    def test_same_in_float32_and_by_xla(self) -> None:
        light = source()
        u = draws(light, 3)
        exact = light.image(tf.constant(u)).numpy()
        compiled = tf.function(light.image, jit_compile=True)(tf.constant(u, tf.float32)).numpy()
        np.testing.assert_allclose(compiled, exact, rtol=2e-4, atol=1e-7)


class TestInALens:
    def test_gradient_is_that_of_differences(self) -> None:
        lens = model(source())
        target = LensTarget(lens, observation())
        rng = np.random.default_rng(5)
        u = tf.constant(0.3 * rng.normal(size=lens.dim))
        direction = rng.normal(size=lens.dim) / np.sqrt(lens.dim)
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = target.log_prob(u[None])[0]
        step = 1e-5
        high, low = (float(target.log_prob((u + sign * step * direction)[None])[0]) for sign in (1, -1))
        slope = float(tf.tensordot(tape.gradient(value, u), direction, 1))
        assert slope == pytest.approx((high - low) / (2 * step), rel=1e-5)

    def test_curvature_knows_pixels_that_the_data_do_not_see(self) -> None:
        lens = model(source(pixels=7))
        curvature = gauss_newton(LensTarget(lens, observation()), tf.constant(lens.base(TRUTH))).curvature.numpy()
        stiffness = np.linalg.eigvalsh(curvature)
        # The prior alone gives 1 to every direction, and holds those that the data leave free.
        assert stiffness[0] > 1 - 1e-8
        assert stiffness[0] < 1.1
        assert stiffness[-1] > 100

    def test_model_file_round_trip(self, tmp_path) -> None:
        lens = model(source(contrast=0.4), dtype="float32")
        (tmp_path / "model.toml").write_text(write_model(lens))
        found = read_model(tmp_path / "model.toml")
        assert isinstance(found.sources[0], RegularizedPixels)
        assert found.sources[0].get_config() == lens.sources[0].get_config()

    def test_is_no_light_of_the_lens(self) -> None:
        with pytest.raises(
            ParameterError, match=r"lens_light: RegularizedPixels takes an image.* can only be a source"
        ):
            LensModel(lens_light=[source()], source=source())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixels": 1}, "pixels must be an integer >= 2, got 1"),
        ({"pixels": 8.0}, "pixels must be an integer"),
        ({"contrast": 0.0}, "contrast must be positive and finite, got 0.0"),
        ({"spread": float("inf")}, "spread must be positive"),
        ({"correlation_length": -1.0}, "correlation_length must be positive"),
    ],
)
def test_refuses(settings: dict, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        source(**settings)


def test_centered_pixels_do_not_see_a_shift_of_their_light() -> None:
    rng = np.random.default_rng(1)
    blob = np.zeros((2, 9, 11))
    blob[0, 2:5, 1:4] = rng.uniform(1, 2, (3, 3))
    blob[1, 4:7, 6:9] = blob[0, 2:5, 1:4]
    x, y = (tf.constant(axis) for axis in rng.uniform(-0.4, 0.4, (2, 6, 5)))
    place = {"center_x": 0.1, "center_y": -0.05, "scale": 1.1}
    place = {name: tf.fill([2], tf.constant(value, tf.float64)) for name, value in place.items()}
    first, second = CenteredPixels(0.1).brightness(x, y, image=tf.constant(blob), **place).numpy()
    assert first.max() > 10
    np.testing.assert_allclose(first, second, rtol=1e-10, atol=1e-10)
