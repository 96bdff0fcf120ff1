"""The first look: on images where the lens, its arcs and its neighbours are where we put them."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tflens.grid import PixelGrid
from tflens.inference.initial import Glance, arc_profile, find_center, glance, smooth_noise
from tflens.lens_layer import LensLayer
from tflens.light import Exponential, Sersic
from tflens.mass import EPL
from tflens.observation import Observation

SHAPE, SCALE, NOISE, THETA_E = (48, 56), 0.1, 0.03, 0.9
CENTER, NEIGHBOUR = (0.23, -0.17), (-1.37, 1.19)
X, Y = PixelGrid(SHAPE, SCALE).coordinates()
RADIUS = np.hypot(X - CENTER[0], Y - CENTER[1])


def at(x, y, **more):
    return {"e1": 0.0, "e2": 0.0, "center_x": x, "center_y": y, **more}


@functools.cache
def scene(source: float = 40.0, neighbour: float = 15.0, noise: float = NOISE) -> Observation:
    """A lens off the middle, arcs of 0.9 arcsec and a bright neighbour, each with the brightness that is asked for."""
    y, x = np.mgrid[-3:4, -4:5]
    psf = np.exp(-(x**2 + y**2) / 2)
    psf /= psf.sum()
    layer = LensLayer(PixelGrid(SHAPE, SCALE), [EPL()], [Sersic(), Sersic()], [Sersic()], psf=psf, supersampling=3)
    image = layer(
        {
            "mass": [at(*CENTER, theta_E=THETA_E, gamma=2.0) | {"e1": 0.1}],
            "lens_light": [
                at(*CENTER, amp=25.0, R_sersic=0.5, n_sersic=3.0),
                at(*NEIGHBOUR, amp=neighbour, R_sersic=0.15, n_sersic=1.0),
            ],
            "source": [at(CENTER[0] + 0.08, CENTER[1] + 0.05, amp=source, R_sersic=0.15, n_sersic=1.0)],
        }
    )
    image = tf.cast(image, tf.float64).numpy() + np.random.default_rng(1).normal(0, NOISE, SHAPE)
    return Observation(image, np.full(SHAPE, noise), psf, SCALE)


@functools.cache
def look() -> Glance:
    return glance(scene())


class TestCenter:
    @pytest.mark.parametrize("neighbour", [0.0, 15.0])
    def test_within_a_tenth_of_a_pixel_beside_arcs_and_a_neighbour(self, neighbour):
        np.testing.assert_allclose(find_center(scene(neighbour=neighbour)), CENTER, atol=0.1 * SCALE)

    # FAILS BECAUSE OF A BUG: the centroid's window stands on the peak of the *weighted* image, which lies up to a pixel
    # nearer to the middle than the lens, and pulls the centroid by up to 0.4 pixels.
    @pytest.mark.parametrize(("right", "up"), [(2, -3), (-7, 6), (3, 7)])
    def test_far_from_the_middle_within_a_tenth_of_a_pixel(self, right, up):
        plain = scene(source=0.0, neighbour=0.0)
        moved = Observation(np.roll(plain.image, (up, right), (0, 1)), plain.noise, plain.psf, SCALE)
        expected = np.add(CENTER, [right * SCALE, up * SCALE])
        np.testing.assert_allclose(find_center(moved), expected, atol=0.1 * SCALE)

    def test_masked_pixels_do_not_attract(self):
        image, mask = scene().image.copy(), np.ones(SHAPE, bool)
        image[20:23, 10:13], mask[20:23, 10:13] = 1e3, False
        found = find_center(Observation(image, scene().noise, scene().psf, SCALE, mask=mask))
        np.testing.assert_allclose(found, CENTER, atol=0.1 * SCALE)

    def test_lens_at_the_edge_is_found_without_an_error(self):
        image = np.random.default_rng(0).normal(0, 1e-3, (8, 11))
        image[0, 10] = 10.0
        x, y = find_center(Observation(image, np.ones((8, 11)), np.ones((1, 1)), 0.1))
        assert abs(x) <= 0.5
        assert abs(y) <= 0.35


class TestNoise:
    def test_smoothing_keeps_unit_variance(self):
        smooth = smooth_noise(np.random.default_rng(0).normal(size=(300, 410)))
        assert smooth.std() == pytest.approx(1, abs=0.02)


class TestArcProfile:
    def test_ring_is_found_at_its_radius(self):
        excess = np.where(np.abs(RADIUS - 1.25) < 0.15, 10.0, 0.0)
        radii, weights = arc_profile(scene(), CENTER, excess)
        assert weights.sum() == pytest.approx(1, rel=1e-12)
        assert (weights >= 0).all()
        assert radii[np.argmax(weights)] == pytest.approx(1.25, abs=0.1)

    def test_nothing_significant_leaves_every_radius_open(self):
        radii, weights = arc_profile(scene(), CENTER, np.zeros(SHAPE))
        np.testing.assert_allclose(weights, 1 / len(radii))


class TestGlance:
    def test_arc_radius_is_near_the_einstein_radius(self):
        assert look().arc_radius == pytest.approx(THETA_E, rel=0.2)
        assert look().weights.sum() == pytest.approx(1)

    def test_arcs_are_kept_and_the_neighbour_is_not(self):
        without = scene(source=0.0, noise=NOISE).image
        arcs = (scene().image - without > 5 * NOISE) & (RADIUS < 1.5 * THETA_E)
        assert arcs.sum() > 50
        assert look().mask[arcs].all()
        near = np.hypot(X - NEIGHBOUR[0], Y - NEIGHBOUR[1])
        assert not look().mask[near < 0.3].any()
        # But the disc itself would have held it.
        assert (RADIUS[near < 0.3] < 1.7 * look().arc_radius + 0.4).any()

    def test_mask_is_a_disc_around_the_lens_inside_the_frame(self):
        rows, columns = look().frame
        outside = look().mask.copy()
        outside[rows, columns] = False
        assert not outside.any()
        assert look().mask[RADIUS < 2 * SCALE].all()
        x, y = look().center
        assert not look().mask[np.hypot(X - x, Y - y) > 1.7 * look().arc_radius + 0.4].any()

    def test_light_of_the_lens_is_described(self):
        found = {1: Sersic(), 2: Exponential()}
        assert set(look().light) == {f"light{i}.{name}" for i in found for name in found[i].parameter_names}
        # What is left between the core and the arcs is noise.
        between = (RADIUS > 0.3) & (RADIUS < 0.45)
        assert abs(np.median(look().excess[between])) < 1

    def test_galaxy_without_arcs_does_not_crash(self):
        plain = glance(scene(source=0.0, neighbour=0.0))
        assert np.isfinite([plain.arc_radius, *plain.center, *plain.weights, *plain.light.values()]).all()
        assert plain.mask.any()
        np.testing.assert_allclose(plain.center, CENTER, atol=0.1 * SCALE)
