"""Convolution with the PSF is linear, exact to its stated bound, and neither wraps around nor shifts."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import convolve2d, fftconvolve

from tflens.errors import ParameterError
from tflens.psf import PSF, convolve_by_fft

SHAPE = (13, 22)
# Odd, narrow, larger than half the image, larger than the image on one side and on both.
KERNELS = [(3, 7), (1, 1), (1, 5), (9, 15), (21, 5), (5, 45), (31, 51)]
OPERATORS = ["direct", "fft", "low-rank"]
# (kernel's side over pixel's, padding in pixels): less and more than half a kernel.
FRAMES = [(1, 0), (1, 2), (3, 0), (2, 1), (2, 6)]
RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(2, 3, *SHAPE))

every_operator = pytest.mark.parametrize("method", OPERATORS)
every_frame = pytest.mark.parametrize(("supersampling", "padding"), FRAMES)


def kernel(shape: tuple[int, int]) -> np.ndarray:
    """Without any symmetry, so that a flip or a shift shows, and of full rank."""
    return np.random.default_rng(2).uniform(0.1, 1, size=shape)


def gaussian(sigma_x: float, sigma_y: float, half: int = 8) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return np.exp(-(x**2) / (2 * sigma_x**2) - y**2 / (2 * sigma_y**2))


def moffat(beta: float = 2.5, half: int = 10) -> np.ndarray:
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    return (1 + (x**2 + y**2) / 4) ** -beta


def cells(supersampling: int, padding: int) -> np.ndarray:
    ny, nx = ((n + 2 * padding) * supersampling for n in SHAPE)
    return np.random.default_rng(5).normal(size=(2, ny, nx))


def summed(image: np.ndarray, unit: np.ndarray, supersampling: int = 1, padding: int = 0) -> np.ndarray:
    """The definition: SciPy's sum over the kernel, the frame cut by hand, then the mean over each pixel's cells."""
    ky, kx = unit.shape
    full = convolve2d(image, unit, mode="full", boundary="fill")
    same = full[ky // 2 : ky // 2 + image.shape[0], kx // 2 : kx // 2 + image.shape[1]]
    margin, (ny, nx) = padding * supersampling, SHAPE
    inner = same[margin : margin + ny * supersampling, margin : margin + nx * supersampling]
    return inner.reshape(ny, supersampling, nx, supersampling).mean((1, 3))


class TestOperators:
    @pytest.mark.parametrize(
        ("method", "shape"),
        # A direct kernel is one operation for each of its pixels: not for large ones.
        [(method, shape) for method in OPERATORS for shape in KERNELS if method != "direct" or np.prod(shape) < 300],
    )
    def test_equals_the_sum_over_the_kernel(self, method, shape):
        unit = kernel(shape) / kernel(shape).sum()
        expected = [[summed(IMAGES[i, j], unit) for j in range(3)] for i in range(2)]
        for dtype, tolerance in (("float32", 2e-6), ("float64", 1e-14)):
            found = PSF(kernel(shape), SHAPE, method=method, tolerance=0, dtype=dtype).convolve(IMAGES)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)

    @every_frame
    @every_operator
    def test_pools_the_cells_and_crops_the_padding(self, supersampling, padding, method):
        psf = PSF(
            kernel((5, 7)),
            SHAPE,
            method=method,
            tolerance=0,
            supersampling=supersampling,
            padding=padding,
            dtype="float64",
        )
        images = cells(supersampling, padding)
        expected = [summed(image, psf.kernel, supersampling, padding) for image in images]
        np.testing.assert_allclose(psf.convolve(images), expected, rtol=0, atol=1e-14)

    @every_frame
    @every_operator
    def test_gradient_is_the_adjoint_and_its_gradient_the_map_again(self, supersampling, padding, method):
        psf = PSF(kernel((3, 5)), SHAPE, method=method, supersampling=supersampling, padding=padding, dtype="float64")
        image, other = (tf.constant(v) for v in cells(supersampling, padding))
        weight = tf.constant(RNG.normal(size=SHAPE))
        with tf.GradientTape() as second:
            second.watch(weight)
            with tf.GradientTape() as tape:
                tape.watch(image)
                value = tf.reduce_sum(weight * psf.convolve(image))
            adjoint = tape.gradient(value, image)
            product = tf.reduce_sum(adjoint * other)
        # <K^T w, v> = <w, K v> for a v that the first derivative has not seen.
        np.testing.assert_allclose(product, np.sum(weight * psf.convolve(other)), rtol=1e-12)
        np.testing.assert_allclose(second.gradient(product, weight), psf.convolve(other), rtol=0, atol=1e-14)

    @every_operator
    def test_forward_mode_derivative_is_the_convolution_of_the_tangent(self, method):
        psf = PSF(kernel((3, 7)), SHAPE, method=method, padding=1, supersampling=2, dtype="float64")
        image, tangent = (tf.constant(v) for v in cells(2, 1))
        with tf.autodiff.ForwardAccumulator(image, tangent) as accumulator:
            value = psf.convolve(image)
        np.testing.assert_allclose(accumulator.jvp(value), psf.convolve(tangent), rtol=0, atol=1e-14)

    @every_operator
    def test_xla_equals_eager_in_value_gradient_and_forward_mode(self, method):
        psf = PSF(kernel((3, 5)), SHAPE, method=method, padding=1, supersampling=2)
        image, tangent = (tf.constant(v, tf.float32) for v in cells(2, 1))

        def all_three(image):
            with tf.GradientTape() as tape, tf.autodiff.ForwardAccumulator(image, tangent) as accumulator:
                tape.watch(image)
                value = psf.convolve(image)
                scalar = tf.reduce_sum(value**2)
            return value, tape.gradient(scalar, image), accumulator.jvp(value)

        compiled = tf.function(all_three, jit_compile=True, autograph=False)
        for found, expected in zip(compiled(image), all_three(image), strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)

    @every_operator
    def test_light_at_one_edge_does_not_come_back_at_the_other(self, method):
        image = np.zeros(SHAPE)
        image[0, 0] = image[-1, 0] = 1.0
        found = PSF(np.ones((5, 9)), SHAPE, method=method, dtype="float64").convolve(image).numpy()
        np.testing.assert_allclose(found[:, 5:], 0, atol=1e-16)
        np.testing.assert_allclose(found[3:-3], 0, atol=1e-16)
        np.testing.assert_allclose(found.sum(), 2 * 3 * 5 / 45, rtol=1e-13)

    @every_operator
    def test_point_source_draws_the_kernel_upright_and_normalised(self, method):
        psf = PSF(7 * kernel((5, 7)), SHAPE, method=method, tolerance=0, dtype="float64")
        image = np.zeros(SHAPE)
        image[6, 10] = 1.0
        unit = kernel((5, 7)) / kernel((5, 7)).sum()
        np.testing.assert_allclose(psf.convolve(image).numpy()[4:9, 7:14], unit, atol=1e-15)
        np.testing.assert_allclose(psf.kernel.sum(), 1, rtol=1e-14)

    @every_operator
    def test_a_constant_stays_itself_where_the_padding_covers_the_kernel(self, method):
        psf = PSF(kernel((5, 7)), SHAPE, method=method, supersampling=2, padding=2, dtype="float64")
        found = psf.convolve(np.full((2 * (SHAPE[0] + 4), 2 * (SHAPE[1] + 4)), 3.0))
        np.testing.assert_allclose(found, np.full(SHAPE, 3.0), rtol=1e-13)

    def test_equals_scipys_fft_convolution_on_a_large_frame(self):
        image, psf = RNG.normal(size=(90, 61)), kernel((25, 19))
        found = PSF(psf, image.shape, dtype="float64").convolve(image)
        np.testing.assert_allclose(found, fftconvolve(image, psf / psf.sum(), mode="same"), rtol=0, atol=1e-14)


class TestRank:
    def test_a_gaussian_has_rank_one_and_two_crossed_ones_have_two(self):
        assert PSF(gaussian(1.2, 0.8), SHAPE, method="low-rank").rank == 1
        crossed = gaussian(1.0, 2.0) + gaussian(2.0, 1.0)
        psf = PSF(crossed, (60, 50), dtype="float64")
        assert (psf.method, psf.rank) == ("low-rank", 2)
        assert psf.error_bound < 1e-14

    @pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4, 1e-5])
    def test_error_keeps_to_the_bound_and_the_bound_to_the_tolerance(self, tolerance):
        psf = PSF(moffat(), SHAPE, method="low-rank", tolerance=tolerance, dtype="float64")
        assert 0 < psf.error_bound <= tolerance
        exact = PSF(moffat(), SHAPE, method="fft", dtype="float64")
        assert exact.error_bound == 0
        # The image that the bound is made for: the sign of what was left out, turned about the middle.
        left_out = (exact.kernel - _kernel_of(psf))[::-1, ::-1]
        worst = np.zeros(SHAPE)
        worst[6 - 6 : 6 + 7, 11 - 10 : 11 + 11] = np.sign(left_out)[4:-4]
        for image in (worst, IMAGES[0, 0]):
            error = np.abs(psf.convolve(image) - exact.convolve(image)).max()
            assert error <= psf.error_bound * np.abs(image).max() + 1e-15
        reached = np.abs(psf.convolve(worst) - exact.convolve(worst)).max()
        assert reached > 0.5 * np.abs(left_out[4:-4]).sum()

    def test_one_rank_less_would_break_the_tolerance(self):
        psf = PSF(moffat(), SHAPE, method="low-rank", tolerance=1e-4)
        left, values, right = np.linalg.svd(psf.kernel)
        lower = (left[:, : psf.rank - 1] * values[: psf.rank - 1]) @ right[: psf.rank - 1]
        assert np.abs(psf.kernel - lower).sum() > 1e-4

    def test_zero_tolerance_keeps_every_rank(self):
        assert PSF(kernel((5, 7)), SHAPE, tolerance=0).rank == 5


def _kernel_of(psf: PSF) -> np.ndarray:
    """What a PSF of 21 x 21 pixels draws of a point, over two frames as it does not fit one of `SHAPE`."""
    wide = PSF(psf.kernel, (21, 21), method=psf.method, tolerance=psf.tolerance, dtype="float64")
    point = np.zeros((21, 21))
    point[10, 10] = 1.0
    return wide.convolve(point).numpy()


class TestChoice:
    @pytest.mark.parametrize(
        ("psf", "method"),
        [
            (kernel((3, 3)), "direct"),
            (np.ones((1, 1)), "direct"),
            (gaussian(1.2, 1.2), "low-rank"),
            (moffat(), "fft"),
            (kernel((21, 21)), "fft"),
        ],
        ids=["three by three", "no PSF", "Gaussian", "Moffat", "noise"],
    )
    def test_follows_the_kernel(self, psf, method):
        assert PSF(psf, (100, 100)).method == method

    def test_supersampling_favours_the_matrices_which_pool_on_the_way(self):
        four = gaussian(1.0, 2.0) + gaussian(2.0, 1.0) + gaussian(1.5, 4.0) + gaussian(4.0, 1.5)
        assert PSF(four, (100, 100)).rank == 4
        assert PSF(four, (100, 100)).method == "fft"
        assert PSF(four, (100, 100), supersampling=2).method == "low-rank"

    def test_what_was_asked_for_is_used(self):
        for method in OPERATORS:
            assert PSF(gaussian(1.2, 1.2, 2), SHAPE, method=method).method == method


class TestErrors:
    @pytest.mark.parametrize("shape", [(4, 5), (5, 4), (5,), (3, 3, 3)], ids=str)
    def test_even_or_flat_kernel_is_refused(self, shape):
        with pytest.raises(ParameterError, match="two-dimensional with odd sides, got shape"):
            PSF(np.ones(shape), SHAPE)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
    def test_kernel_without_a_positive_sum_is_refused(self, value):
        with pytest.raises(ParameterError, match="finite with a positive sum, got sum"):
            PSF(np.full((3, 3), value), SHAPE)

    def test_images_of_another_shape_are_refused(self):
        with pytest.raises(ParameterError, match=r"images must be \[..., 13, 22\]"):
            PSF(np.ones((3, 3)), SHAPE).convolve(tf.zeros([2, 22, 13]))
        with pytest.raises(ParameterError, match=r"images must be \[..., 30, 48\]"):
            PSF(np.ones((3, 3)), SHAPE, supersampling=2, padding=1).convolve(tf.zeros([2, 13, 22]))

    @pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 5, 6)], ids=str)
    def test_unusable_image_shape_is_refused(self, shape):
        with pytest.raises(ParameterError, match=r"PSF\.image_shape must be two positive integers"):
            PSF(np.ones((3, 3)), shape)

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"dtype": "float16"}, r"PSF\.dtype must be"),
            ({"method": "svd"}, r"PSF\.method must be one of .*'low-rank'\], got 'svd'"),
            ({"tolerance": -1e-9}, r"PSF\.tolerance must lie in \[0, 1\)"),
            ({"tolerance": np.nan}, r"PSF\.tolerance must lie in \[0, 1\)"),
            ({"supersampling": 0}, r"PSF\.supersampling must be a whole number >= 1, got 0"),
            ({"supersampling": 1.5}, r"PSF\.supersampling must be a whole number >= 1, got 1.5"),
            ({"padding": -1}, r"PSF\.padding must be a whole number >= 0, got -1"),
        ],
    )
    def test_unusable_setting_is_refused(self, setting, message):
        with pytest.raises(ParameterError, match=message):
            PSF(np.ones((3, 3)), SHAPE, **setting)


class TestKernelOfAProgram:
    """`convolve_by_fft`, whose kernel is a tensor."""

    @pytest.mark.parametrize("xla", [True, None])
    @pytest.mark.parametrize("shape", KERNELS)
    def test_equals_a_psf_with_that_kernel(self, shape, xla):
        unit = kernel(shape) / kernel(shape).sum()
        program = tf.function(convolve_by_fft, jit_compile=xla)
        expected = PSF(unit, SHAPE, method="fft", dtype="float64").convolve(IMAGES)
        np.testing.assert_allclose(program(tf.constant(IMAGES), tf.constant(unit)), expected, rtol=0, atol=1e-13)

    def test_gradient_is_the_adjoint(self):
        unit, upstream = tf.constant(kernel((5, 7))), tf.constant(IMAGES[::-1])
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            product = tf.reduce_sum(upstream * convolve_by_fft(images, unit))
        flipped = convolve_by_fft(upstream, unit[::-1, ::-1])
        np.testing.assert_allclose(tape.gradient(product, images), flipped, rtol=0, atol=1e-12)

    def test_a_kernel_without_a_middle_is_refused(self):
        with pytest.raises(ParameterError, match=r"convolve_by_fft: .* odd sides, .* got shape \(3, 4\)"):
            convolve_by_fft(tf.constant(IMAGES), tf.ones([3, 4], tf.float64))
