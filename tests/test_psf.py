"""Convolution with the PSF is linear, exact to rounding, and neither wraps around nor shifts."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.signal import convolve2d, correlate2d, fftconvolve

from tflens.errors import ParameterError
from tflens.psf import PSF

SHAPE = (13, 22)
# Odd, narrow, larger than half the image, larger than the image on one side and on both.
KERNELS = [(3, 7), (1, 1), (1, 5), (9, 15), (21, 5), (5, 45), (31, 51)]
RNG = np.random.default_rng(11)
IMAGES = RNG.normal(size=(2, 3, *SHAPE))

every_kernel = pytest.mark.parametrize("shape", KERNELS, ids=str)


def kernel(shape: tuple[int, int]) -> np.ndarray:
    """Without any symmetry, so that a flip or a shift shows."""
    return np.random.default_rng(2).uniform(0.1, 1, size=shape)


@every_kernel
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("xla", [False, True], ids=["eager", "xla"])
def test_equals_the_sum_over_the_kernel(shape, dtype, tolerance, xla):
    psf = PSF(kernel(shape), SHAPE, dtype)
    convolve = tf.function(psf.convolve, jit_compile=True, autograph=False) if xla else psf.convolve
    found = convolve(tf.constant(IMAGES, dtype))
    assert found.dtype == dtype
    unit = kernel(shape) / kernel(shape).sum()
    for i, j in np.ndindex(2, 3):
        # The frame is the image's, also where the kernel is the larger: scipy's "full", cut by hand.
        full = convolve2d(IMAGES[i, j], unit, mode="full", boundary="fill")
        ky, kx = shape
        expected = full[ky // 2 : ky // 2 + SHAPE[0], kx // 2 : kx // 2 + SHAPE[1]]
        np.testing.assert_allclose(found[i, j], expected, rtol=0, atol=tolerance)


def test_equals_scipys_fft_convolution_on_a_large_frame():
    image, psf = RNG.normal(size=(90, 61)), kernel((25, 19))
    found = PSF(psf, image.shape, "float64").convolve(image)
    np.testing.assert_allclose(found, fftconvolve(image, psf / psf.sum(), mode="same"), rtol=0, atol=1e-14)


@every_kernel
def test_gradient_is_the_correlation(shape):
    psf = PSF(kernel(shape), SHAPE, "float64")
    image, weight = tf.constant(IMAGES[0, 0]), RNG.normal(size=SHAPE)
    with tf.GradientTape() as tape:
        tape.watch(image)
        value = tf.reduce_sum(weight * psf.convolve(image))
    full = correlate2d(weight, psf.kernel, mode="full", boundary="fill")
    ky, kx = shape
    expected = full[ky // 2 : ky // 2 + SHAPE[0], kx // 2 : kx // 2 + SHAPE[1]]
    np.testing.assert_allclose(tape.gradient(value, image), expected, rtol=0, atol=1e-14)


def test_light_at_one_edge_does_not_come_back_at_the_other():
    image = np.zeros(SHAPE)
    image[0, 0] = image[-1, 0] = 1.0
    found = PSF(np.ones((5, 9)), SHAPE, "float64").convolve(image).numpy()
    np.testing.assert_allclose(found[:, 5:], 0, atol=1e-16)
    np.testing.assert_allclose(found[3:-3], 0, atol=1e-16)
    np.testing.assert_allclose(found.sum(), 2 * 3 * 5 / 45, rtol=1e-13)


def test_point_source_draws_the_kernel_upright_and_normalised():
    psf = PSF(7 * kernel((5, 7)), SHAPE, "float64")
    image = np.zeros(SHAPE)
    image[6, 10] = 1.0
    np.testing.assert_allclose(
        psf.convolve(image).numpy()[4:9, 7:14], kernel((5, 7)) / kernel((5, 7)).sum(), atol=1e-15
    )
    np.testing.assert_allclose(psf.kernel.sum(), 1, rtol=1e-14)


def test_forward_mode_derivative_is_the_convolution_of_the_tangent():
    psf = PSF(kernel((3, 7)), SHAPE, "float64")
    image, tangent = tf.constant(IMAGES[0, 0]), tf.constant(IMAGES[1, 1])
    with tf.autodiff.ForwardAccumulator(image, tangent) as accumulator:
        value = psf.convolve(image)
    np.testing.assert_allclose(accumulator.jvp(value), psf.convolve(tangent), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (5,), (3, 3, 3)], ids=str)
def test_even_or_flat_kernel_is_refused(shape):
    with pytest.raises(ParameterError, match="two-dimensional with odd sides, got shape"):
        PSF(np.ones(shape), SHAPE)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_kernel_without_a_positive_sum_is_refused(value):
    with pytest.raises(ParameterError, match="finite with a positive sum, got sum"):
        PSF(np.full((3, 3), value), SHAPE)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ParameterError, match=r"images must be \[..., 13, 22\]"):
        PSF(np.ones((3, 3)), SHAPE).convolve(tf.zeros([2, 22, 13]))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 5, 6)], ids=str)
def test_unusable_image_shape_is_refused(shape):
    with pytest.raises(ParameterError, match=r"PSF\.image_shape must be two positive integers"):
        PSF(np.ones((3, 3)), shape)


def test_unknown_dtype_is_refused():
    with pytest.raises(ParameterError, match=r"PSF\.dtype must be"):
        PSF(np.ones((3, 3)), SHAPE, dtype="float16")
