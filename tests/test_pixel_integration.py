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
