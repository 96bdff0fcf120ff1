"""Light profiles: Sersic against its definition, pixelated light against an independent interpolator."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import map_coordinates
from scipy.special import gammaincinv

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.light import Pixelated, Sersic, interpolate_bilinear
from tflens.light.sersic import b_n

ROUND = {"e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0}


def sersic(x, y, dtype: str = "float64", **parameters) -> np.ndarray:
    parameters = {k: tf.constant(v, dtype) for k, v in (ROUND | parameters).items()}
    return Sersic().brightness(tf.constant(x, dtype), tf.constant(y, dtype), **parameters).numpy()


class TestSersic:
    @pytest.mark.parametrize("n", [0.5, 1.0, 2.7, 4.0, 8.0])
    def test_half_of_the_light_lies_inside_the_effective_ellipse(self, n):
        e1, e2, effective = -0.2, 0.35, 1e4  # so large that the softened centre holds no light
        e, phi = np.hypot(e1, e2), np.arctan2(e2, e1) / 2
        q = (1 - e) / (1 + e)
        # Rings R = effective s^n around the ellipse, where the profile is a plain exponential of s: dA = R dR dt.
        nodes, weights = np.polynomial.legendre.leggauss(200)
        t = np.linspace(0, 2 * np.pi, 8, endpoint=False)[:, None]

        def flux(low: float, high: float) -> float:
            s = low + (high - low) * (nodes + 1) / 2
            radius = effective * s**n
            at = radius * (np.cos(t) / np.sqrt(q) + 1j * np.sin(t) * np.sqrt(q)) * np.exp(1j * phi)
            light = sersic(at.real, at.imag, R_sersic=effective, n_sersic=n, e1=e1, e2=e2).mean(0)
            return np.sum(weights * light * radius**2 * n / s) * (high - low) / 2

        inside, outside = flux(0, 1), flux(1, 1 + 60 / gammaincinv(2 * n, 0.5))
        np.testing.assert_allclose(inside / (inside + outside), 0.5, rtol=1e-6)

    def test_b_n_has_the_stated_error(self):
        n = np.geomspace(0.36, 12, 500)
        error = np.abs(b_n(tf.constant(n)).numpy() / gammaincinv(2 * n, 0.5) - 1)
        assert error.max() < 2e-8
        single = b_n(tf.constant(n, tf.float32)).numpy()
        np.testing.assert_allclose(single, gammaincinv(2 * n, 0.5), rtol=5e-7)

    @pytest.mark.parametrize("n", [0.5, 1.0, 4.0, 8.0])
    @pytest.mark.parametrize("effective", [0.05, 0.3, 5.0])
    def test_softening_has_the_stated_error(self, n, effective):
        radius = np.geomspace(0.01, 5 * effective, 50)[None]
        expected = np.exp(-gammaincinv(2 * n, 0.5) * ((radius / effective) ** (1 / n) - 1))
        found = sersic(radius, np.zeros([1, 1]), R_sersic=effective, n_sersic=n)
        visible = expected > 1e-8 * expected.max()
        error = np.abs(found / expected - 1)[visible].max()
        assert error < 1e-4

    def test_equals_lenstronomy_up_to_its_constant_b_n(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lenstronomy.LightModel.Profiles.sersic import SersicElliptic

        profile = SersicElliptic()
        shape = {"R_sersic": 0.8, "n_sersic": 2.5, "e1": 0.3, "e2": -0.2, "center_x": 0.1, "center_y": -0.05}
        x, y = np.meshgrid(np.linspace(-2, 2.3, 9), np.linspace(-1, 1.3, 6))
        reference = profile.function(x, y, 1.0, **shape)
        theirs, _ = profile.k_bn(shape["n_sersic"], shape["R_sersic"])[::-1]
        ours = float(b_n(tf.constant(shape["n_sersic"], tf.float64)))
        # Both are exp(-b_n (s - 1)) with s of the intermediate-axis radius; theirs rounds b_n at the fourth digit.
        np.testing.assert_allclose(np.log(sersic(x, y, **shape)) / ours, np.log(reference) / theirs, rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
    def test_values_and_gradients_are_finite_at_nasty_points(self, dtype, xla):
        cases = [
            {},
            {"e1": 0.7 * (1 - 1e-6)},
            {"n_sersic": 0.5},
            {"n_sersic": 8.0},
            {"R_sersic": 1e-3, "n_sersic": 0.5},
            {"R_sersic": 1e-3, "n_sersic": 8.0},
            {"R_sersic": 50.0, "n_sersic": 8.0, "e2": -0.7},
        ]
        median = ROUND | {"R_sersic": 0.7, "n_sersic": 3.0}
        parameters = {k: tf.constant([(median | case)[k] for case in cases], dtype) for k in median}
        x = tf.constant([[0.0, 1e-9, 1e-5, 1.0, -2.0, 1e4]], dtype)
        y = tf.constant([[0.0, 0.0, -1e-5, 0.0, 3.0, 1e4]], dtype)

        def value_and_gradients(x, y, parameters):
            with tf.GradientTape() as tape:
                tape.watch([x, y, parameters])
                value = Sersic().brightness(x, y, **parameters)
            return value, tape.gradient(value, [x, y, *parameters.values()])

        run = tf.function(value_and_gradients, jit_compile=True, autograph=False) if xla else value_and_gradients
        for result in tf.nest.flatten(run(x, y, parameters)):
            assert np.isfinite(result).all()
            assert result.dtype == dtype

    def test_batch_equals_loop_and_float32_equals_float64(self):
        x, y = PixelGrid((4, 7), 0.2, center=(0.05, 0.03)).coordinates()
        values = {"R_sersic": [[0.3, 1.0, 2.0]], "n_sersic": [[1.0], [4.0]], "e1": 0.1, "e2": [[0.0, -0.3, 0.4]]}
        batch = sersic(x, y, **values)
        assert batch.shape == (2, 3, 4, 7)
        np.testing.assert_allclose(sersic(x, y, "float32", **values), batch, rtol=2e-5)
        for i, j in np.ndindex(2, 3):
            one = {"R_sersic": values["R_sersic"][0][j], "n_sersic": values["n_sersic"][i][0], "e2": values["e2"][0][j]}
            np.testing.assert_allclose(batch[i, j], sersic(x, y, e1=0.1, **one), rtol=1e-13)

    def test_config_rebuilds_the_profile(self):
        assert repr(Sersic.from_config(Sersic().get_config())) == "Sersic()"


RNG = np.random.default_rng(3)
IMAGE = RNG.normal(size=(5, 8))
PLACED = {"center_x": 0.0, "center_y": 0.0, "scale": 1.0}


def interpolated(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return interpolate_bilinear(*(tf.constant(v[None]) for v in (image, x, y))).numpy()[0]


class TestBilinearInterpolation:
    def test_equals_scipy_inside_at_the_edge_and_outside(self):
        x, y = RNG.uniform(-3, 10, size=(2, 40, 30)) * np.array([1, 0.7])[:, None, None]
        # "grid-constant" is linear to zero within one pixel of the outermost centres, as ours.
        expected = map_coordinates(IMAGE, [y, x], order=1, mode="grid-constant", cval=0.0)
        inside = (x > 0) & (x < 7) & (y > 0) & (y < 4)
        assert inside.any()
        assert not inside.all()
        np.testing.assert_allclose(interpolated(IMAGE, x, y), expected, rtol=0, atol=1e-13)

    def test_is_the_pixel_itself_at_a_pixel_centre(self):
        y, x = np.mgrid[:5, :8].astype(float)
        np.testing.assert_array_equal(interpolated(IMAGE, x, y), IMAGE)

    def test_is_zero_from_one_pixel_beyond_the_outermost_centres(self):
        x = np.array([[-1.0, 8.0, 3.0, 3.0, 1e9, -1e9, 3.0, np.inf]])
        y = np.array([[2.0, 2.0, -1.0, 5.0, 2.0, 2.0, 1e30, 2.0]])
        np.testing.assert_array_equal(interpolated(IMAGE, x, y), np.zeros_like(x))

    def test_is_continuous_across_every_edge(self):
        edges = np.array([-2.0, -1.0, 0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
        x, y = (v.astype(float) for v in np.meshgrid(edges, edges))
        here = interpolated(IMAGE, x, y)
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            np.testing.assert_allclose(interpolated(IMAGE, x + 1e-9 * dx, y + 1e-9 * dy), here, rtol=0, atol=1e-8)

    def test_gradient_in_position_is_that_of_finite_differences(self):
        # Off the pixel lines, where it has a kink.
        x, y = RNG.integers(-1, 7, size=(2, 4, 6)) + RNG.uniform(0.1, 0.9, size=(2, 4, 6))
        at = [tf.constant(x[None]), tf.constant(y[None])]
        with tf.GradientTape() as tape:
            tape.watch(at)
            value = interpolate_bilinear(tf.constant(IMAGE[None]), *at)
        gradient = tape.gradient(value, at)
        for k, (dx, dy) in enumerate(((1e-5, 0), (0, 1e-5))):
            expected = (interpolated(IMAGE, x + dx, y + dy) - interpolated(IMAGE, x - dx, y - dy)) / 2e-5
            np.testing.assert_allclose(gradient[k][0], expected, rtol=0, atol=1e-9)

    def test_gradient_in_the_image_is_the_transpose(self):
        x, y = RNG.uniform(-2, 9, size=(2, 6, 5))
        units = np.eye(IMAGE.size).reshape(-1, *IMAGE.shape)
        matrix = np.stack([interpolated(unit, x, y).ravel() for unit in units], axis=-1)
        weight = RNG.normal(size=x.shape)
        image = tf.constant(IMAGE[None])
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = tf.reduce_sum(weight * interpolate_bilinear(image, tf.constant(x[None]), tf.constant(y[None])))
        transposed = (matrix.T @ weight.ravel()).reshape(IMAGE.shape)
        np.testing.assert_allclose(tape.gradient(value, image)[0], transposed, rtol=0, atol=1e-13)

    def test_xla_equals_eager(self):
        image = tf.constant(RNG.normal(size=(3, 5, 8)), tf.float32)
        x, y = (tf.constant(RNG.uniform(-3, 10, size=(3, 6, 5)), tf.float32) for _ in range(2))
        compiled = tf.function(interpolate_bilinear, jit_compile=True)(image, x, y)
        np.testing.assert_allclose(compiled, interpolate_bilinear(image, x, y), rtol=0, atol=2e-6)

    @pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
    def test_a_position_that_is_not_a_number_spoils_its_own_lane_alone(self, xla):
        run = tf.function(interpolate_bilinear, jit_compile=True) if xla else interpolate_bilinear
        x = tf.constant([[[2.5, 3.0]], [[np.nan, 3.0]]])
        values = run(tf.ones([2, 5, 8]), x, tf.ones_like(x)).numpy()
        np.testing.assert_array_equal(values, [[[1, 1]], [[np.nan, 1]]])


class TestPixelated:
    def test_flux_is_conserved_on_a_fine_grid(self):
        light = Pixelated(pixel_scale=0.2)
        fine = PixelGrid((9 * 4, 12 * 4), 0.05)
        x, y = (tf.constant(v) for v in fine.coordinates())
        value = light.brightness(x, y, image=tf.constant(IMAGE), **PLACED)
        np.testing.assert_allclose(np.sum(value) * fine.pixel_area, IMAGE.sum(), rtol=1e-12)

    @pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 2.5])
    def test_scale_changes_the_size_and_keeps_the_flux(self, scale):
        light = Pixelated(pixel_scale=0.2)
        image = np.zeros((5, 8))
        image[2, 1], image[2, 6] = 1.0, 3.0
        fine = PixelGrid((140, 200), 0.025)
        x, y = (tf.constant(v) for v in fine.coordinates())
        value = light.brightness(x, y, image=tf.constant(image), **(PLACED | {"scale": scale})).numpy()
        np.testing.assert_allclose(value.sum() * fine.pixel_area, 4.0, rtol=1e-12)
        centroid = (value * x.numpy()).sum() / value.sum()
        np.testing.assert_allclose(centroid, 1.25 * 0.2 * scale, rtol=1e-12)

    def test_pixel_centres_lie_where_the_grid_says(self):
        grid = PixelGrid(IMAGE.shape, 0.3, center=(0.7, -0.4))
        x, y = (tf.constant(v) for v in grid.coordinates())
        value = Pixelated(0.3).brightness(x, y, image=IMAGE, center_x=0.7, center_y=-0.4, scale=1.0)
        np.testing.assert_allclose(value * grid.pixel_area, IMAGE, rtol=0, atol=1e-12)

    def test_batch_equals_loop(self):
        x, y = (tf.constant(v) for v in PixelGrid((6, 9), 0.15, center=(0.02, 0.01)).coordinates())
        light = Pixelated(0.2)
        images = RNG.normal(size=(3, 5, 8))
        scale, center = np.array([[0.8], [1.3]]), np.array([0.0, 0.1, -0.2])
        batch = light.brightness(
            x, y, image=tf.constant(images), center_x=tf.constant(center), center_y=0.05, scale=tf.constant(scale)
        )
        assert batch.shape == (2, 3, 6, 9)
        for i, j in np.ndindex(2, 3):
            one = light.brightness(
                x, y, image=tf.constant(images[j]), center_x=center[j], center_y=0.05, scale=scale[i, 0]
            )
            np.testing.assert_allclose(batch[i, j], one, rtol=1e-13, atol=1e-14)

    def test_one_image_for_many_positions_and_many_images_at_one(self):
        x, y = (tf.constant(v) for v in PixelGrid((6, 9), 0.15).coordinates())
        light = Pixelated(0.2)
        moved = light.brightness(x, y, image=IMAGE, **(PLACED | {"center_x": tf.constant([0.0, 0.1], tf.float64)}))
        many = light.brightness(x, y, image=tf.constant(np.stack([IMAGE, 2 * IMAGE])), **PLACED)
        assert moved.shape == many.shape == (2, 6, 9)
        np.testing.assert_allclose(many[1], 2 * moved[0], rtol=1e-13)

    def test_config_rebuilds_the_profile(self):
        assert Pixelated.from_config(Pixelated(0.17).get_config()).pixel_scale == 0.17

    @pytest.mark.parametrize("value", [0.0, -0.1, float("nan"), float("inf")])
    def test_unusable_pixel_scale_is_refused(self, value):
        with pytest.raises(ParameterError, match=r"Pixelated\.pixel_scale must be positive and finite"):
            Pixelated(value)
