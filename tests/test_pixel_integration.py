"""Pixel integration: rules are exact where they must be, refined pixels take the place of plain ones and no other."""

import numpy as np
import pytest
import tensorflow as tf

from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.pixel_integration import PixelIntegration

GRID = PixelGrid((3, 4), 0.5, center=(0.3, -0.2))
RULES = ["midpoint", "gauss-legendre"]
REFINE = np.array([[1, 1, 3, 1], [2, 1, 1, 1], [1, 1, 3, 2]])


def integrate(f, **settings) -> np.ndarray:
    pixels = PixelIntegration(GRID, **(settings | {"dtype": "float64"}))
    return pixels.mean([tf.convert_to_tensor(f(x, y)) for x, y in pixels.positions]).numpy()


def exact_mean(power_x: int, power_y: int, padding: int = 0) -> np.ndarray:
    """Of x^a y^b over every pixel."""
    x, y = (v.ravel() for v in GRID.coordinates(padding=padding))

    def mean(centre, power):
        return ((centre + 0.25) ** (power + 1) - (centre - 0.25) ** (power + 1)) / (0.5 * (power + 1))

    return np.outer(mean(y, power_y), mean(x, power_x))


@pytest.mark.parametrize("refine", [None, REFINE], ids=["even", "refined"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_gauss_legendre_is_exact_up_to_its_degree_and_no_further(samples, refine):
    degree = 2 * samples - 1
    settings = {"samples": samples, "quadrature": "gauss-legendre", "refine": refine}
    for powers in ((degree, degree), (degree, 0), (0, degree)):
        found = integrate(lambda x, y, a=powers[0], b=powers[1]: x**a * y**b, **settings)
        np.testing.assert_allclose(found, exact_mean(*powers), rtol=0, atol=1e-13)
    beyond = np.abs(integrate(lambda x, y: x ** (degree + 1) + 0 * y, **settings) - exact_mean(degree + 1, 0))
    assert (beyond[REFINE == 1] > 1e-8).all()


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_midpoints_miss_a_parabola_by_their_spacing_squared(samples):
    # The mean of x^2 over a cell of side h is h^2 / 12 above its value in the middle.
    found = integrate(lambda x, y: x**2 + 0 * y, samples=samples)
    np.testing.assert_allclose(exact_mean(2, 0) - found, (0.5 / samples) ** 2 / 12, rtol=1e-10)


@pytest.mark.parametrize("quadrature", RULES)
def test_refined_pixels_are_those_of_a_finer_grid_and_all_others_stay(quadrature):
    def cusp(x, y):
        return np.exp(-3 * np.hypot(x - 0.31, y + 0.18))

    found = integrate(cusp, samples=2, quadrature=quadrature, refine=REFINE)
    for parts in (1, 2, 3):
        everywhere = integrate(cusp, samples=2, quadrature=quadrature, refine=np.full((3, 4), parts))
        chosen = parts == REFINE
        np.testing.assert_allclose(found[chosen], everywhere[chosen], rtol=1e-14)


def test_parts_of_midpoints_are_more_midpoints():
    fine = integrate(lambda x, y: np.exp(x * y), samples=6)
    parts = integrate(lambda x, y: np.exp(x * y), samples=2, refine=np.full((3, 4), 3))
    np.testing.assert_allclose(parts, fine, rtol=1e-14)


@pytest.mark.parametrize("quadrature", RULES)
def test_padding_surrounds_the_frame_and_is_not_refined(quadrature):
    settings = {"samples": 2, "quadrature": quadrature, "padding": 2}
    found = integrate(lambda x, y: np.exp(x + 2 * y), refine=REFINE, **settings)
    plain = integrate(lambda x, y: np.exp(x + 2 * y), **settings)
    frame = (slice(2, -2), slice(2, -2))
    inside = np.pad(REFINE > 1, 2)
    np.testing.assert_array_equal(found[~inside], plain[~inside])
    np.testing.assert_allclose(
        found[frame], integrate(lambda x, y: np.exp(x + 2 * y), **(settings | {"refine": REFINE, "padding": 0}))
    )
    assert (found[inside] != plain[inside]).all()


def test_even_grid_keeps_x_and_y_apart_and_a_map_of_ones_adds_nothing():
    pixels = PixelIntegration(GRID, samples=2, refine=np.ones((3, 4), int))
    ((x, y),) = pixels.positions
    assert (x.shape, y.shape, x.dtype) == ((1, 8), (6, 1), np.float32)
    _, (x, y) = PixelIntegration(GRID, samples=2, refine=REFINE).positions
    assert x.shape == y.shape == (1, 2 * 4**2 + 2 * 6**2)


@pytest.mark.parametrize("quadrature", RULES)
def test_derivatives_reach_every_sample_with_its_weight(quadrature):
    pixels = PixelIntegration(GRID, samples=3, quadrature=quadrature, refine=REFINE, dtype="float64")
    rng = np.random.default_rng(0)
    shapes = [np.broadcast_shapes(x.shape, y.shape) for x, y in pixels.positions]
    values, tangents = ([tf.constant(rng.normal(size=(2, *shape))) for shape in shapes] for _ in range(2))
    weight = rng.normal(size=(2, 3, 4))

    def derivatives(*values):
        with tf.GradientTape() as tape, tf.autodiff.ForwardAccumulator(values, tuple(tangents)) as accumulator:
            tape.watch(values)
            mean = pixels.mean(values)
            scalar = tf.reduce_sum(weight * mean)
        return tape.gradient(scalar, values), accumulator.jvp(mean)

    gradient, tangent = derivatives(*values)
    # The mean is linear: its derivative is the mean itself, its gradient the adjoint.
    np.testing.assert_allclose(tangent, pixels.mean(tangents), rtol=0, atol=1e-14)
    product = sum(np.sum(g * t) for g, t in zip(gradient, tangents, strict=True))
    np.testing.assert_allclose(product, np.sum(weight * pixels.mean(tangents)), rtol=1e-12)


ROOM = {2: 3, 3: 4}


class TestRoom:
    OTHER = np.array([[2, 1, 1, 1], [1, 3, 3, 1], [3, 1, 1, 1]])

    def pixels(self, **settings) -> PixelIntegration:
        return PixelIntegration(GRID, samples=2, refine=REFINE, room=ROOM, dtype="float64", **settings)

    @pytest.mark.parametrize("padding", [0, 2])
    def test_maps_are_exchanged_in_a_program(self, padding):
        pixels = self.pixels(padding=padding)
        traced = []

        @tf.function(jit_compile=True)
        def mean_and_gradient(shift):
            traced.append(1)
            with tf.GradientTape() as tape:
                tape.watch(shift)
                mean = pixels.mean([tf.exp(shift * x + 2 * y) for x, y in pixels.positions])
                total = tf.reduce_sum(mean**2)
            return mean, tape.gradient(total, shift)

        for refine in (REFINE, self.OTHER, np.ones_like(REFINE), REFINE):
            pixels.refine_by(refine)
            shift = tf.constant(0.7, tf.float64)
            still = PixelIntegration(GRID, 2, padding=padding, refine=refine, dtype="float64")
            with tf.GradientTape() as tape:
                tape.watch(shift)
                expected = still.mean([tf.exp(shift * x + 2 * y) for x, y in still.positions])
                total = tf.reduce_sum(expected**2)
            mean, gradient = mean_and_gradient(shift)
            np.testing.assert_allclose(mean, expected, rtol=1e-13)
            np.testing.assert_allclose(gradient, tape.gradient(total, shift), rtol=1e-12)
        assert len(traced) == 1

    def test_nothing_reaches_what_is_left_over(self):
        pixels = self.pixels()
        pixels.refine_by(self.OTHER)
        fine = tf.constant(np.random.default_rng(0).normal(size=(1, 3 * 4**2 + 4 * 6**2)))
        even = tf.zeros([6, 8], tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(fine)
            total = tf.reduce_sum(pixels.mean([even, fine]))
        gradient = tape.gradient(total, fine).numpy()[0]
        # One pixel of 2 x 2 parts is in use, and three of 3 x 3; the weights of each have the sum 1.
        assert gradient.sum() == pytest.approx(4)
        assert (gradient != 0).sum() == 1 * 4**2 + 3 * 6**2

    def test_size_is_that_of_the_room(self):
        assert PixelIntegration(GRID, 2, refine=REFINE).size == 6 * 8 + 2 * 4**2 + 2 * 6**2
        assert PixelIntegration(GRID, 2, padding=1).size == 10 * 12
        assert self.pixels().size == 6 * 8 + 3 * 4**2 + 4 * 6**2

    @pytest.mark.parametrize(
        ("refine", "count"),
        [(np.full((3, 4), 2), "12 pixels of 2 x 2"), (4 * np.eye(3, 4, dtype=int) + 1, "3 pixels of 5 x 5")],
    )
    def test_where_there_is_none_a_map_is_refused_and_the_last_one_stays(self, refine, count):
        pixels = self.pixels()
        before = [tf.identity(x).numpy() for x, _ in pixels.positions]
        with pytest.raises(ParameterError, match=f"refine has {count} parts, but there is room for"):
            pixels.refine_by(refine)
        for x, (now, _) in zip(before, pixels.positions, strict=True):
            np.testing.assert_array_equal(x, tf.identity(now))

    def test_a_map_without_room_stays_what_it_is(self):
        with pytest.raises(ParameterError, match="given without `room`, so it cannot be exchanged; give `room`"):
            PixelIntegration(GRID, refine=REFINE).refine_by(self.OTHER)

    def test_none_at_all_is_room_for_no_map(self):
        with pytest.raises(ParameterError, match="2 pixels of 2 x 2 parts, but there is room for 0"):
            PixelIntegration(GRID, refine=REFINE, room={})

    @pytest.mark.parametrize("room", [{1: 3}, {4: -1}, {4: 1.5}, {"4": 1}])
    def test_unusable_room_is_refused(self, room):
        with pytest.raises(ParameterError, match="room must tell for whole numbers of parts from 2"):
            PixelIntegration(GRID, room=room)


@pytest.mark.parametrize("samples", [0, 1.5])
def test_unusable_number_of_samples_is_refused(samples):
    with pytest.raises(ParameterError, match="supersampling must be an integer >= 1"):
        PixelIntegration(GRID, samples)


def test_unknown_quadrature_is_refused():
    with pytest.raises(ParameterError, match=r"quadrature must be one of .*'midpoint'\], got 'simpson'"):
        PixelIntegration(GRID, quadrature="simpson")


@pytest.mark.parametrize(
    "refine", [REFINE[:2], REFINE.astype(float), REFINE > 1, REFINE - 1], ids=["shape", "float", "boolean", "zero"]
)
def test_unusable_map_is_refused(refine):
    with pytest.raises(ParameterError, match=r"refine must hold whole numbers >= 1 in the shape of the grid, \(3, 4\)"):
        PixelIntegration(GRID, refine=refine)
