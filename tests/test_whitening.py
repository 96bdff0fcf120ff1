"""Whitening, against the exact covariance of an image with bad pixels; and what the likelihood makes of it."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy import signal, stats

from tflens.errors import ParameterError
from tflens.forward_mode import ForwardAccumulator
from tflens.inference.initial import smooth_noise
from tflens.linear import marginalize
from tflens.model import LensTarget
from tflens.observation import Observation
from tflens.whitening import taps_for, whiten, whitening_taps

SHAPE = (20, 24)
# White noise that passed through these: a drizzled image; one whose noise leans to one side; and the mean of two by two
# pixels, whose power spectrum vanishes at the highest wave, but for a thousandth of white noise.
DRIZZLED = np.outer([0.25, 1.0, 0.25], [0.25, 1.0, 0.25])
LEANING = np.array([[0.0, 0.1, 0.3], [0.0, 1.0, 0.2], [0.2, 0.1, 0.0]])
BOX = np.ones((2, 2))


def correlation(response, white=0.0):
    """Of white noise that was convolved with a response, plus a share of white noise, `[odd, odd]`."""
    kernel = signal.correlate(response, response)
    middle = tuple(n // 2 for n in kernel.shape)
    kernel = kernel / kernel[middle] / (1 + white)
    kernel[middle] = 1.0
    return kernel


KERNELS = {"drizzled": correlation(DRIZZLED), "leaning": correlation(LEANING), "box": correlation(BOX, 1e-3)}


def rng(seed=0):
    return np.random.default_rng(seed)


def bad_pixels():
    """One in sixteen, and a block."""
    mask = rng(1).random(SHAPE) > 1 / 16
    mask[7:11, 5:9] = False
    return mask


def noise_map():
    """Photons of a galaxy on top of the sky."""
    y, x = np.indices(SHAPE)
    return np.sqrt(0.3 + np.exp(-((x - 11) ** 2 + (y - 8) ** 2) / 40))


def correlated(response, n, seed=0):
    """Unit noise with the correlation of a response, `[n, ny, nx]`."""
    ky, kx = response.shape
    noise = rng(seed).normal(size=(n, SHAPE[0] + ky - 1, SHAPE[1] + kx - 1))
    return signal.fftconvolve(noise, response[None], mode="valid", axes=(1, 2)) / np.linalg.norm(response)


def dense(kernel, noise, mask):
    """The exact covariance of the used pixels, `[used, used]`."""
    places, (hy, hx) = np.argwhere(mask), (n // 2 for n in kernel.shape)
    lag = places[:, None] - places[None]
    inside = (np.abs(lag) <= [hy, hx]).all(-1)
    dy, dx = np.where(inside, lag[..., 0], 0), np.where(inside, lag[..., 1], 0)
    sigma = noise[mask]
    return np.where(inside, kernel[hy + dy, hx + dx], 0.0) * sigma[:, None] * sigma


def matrix(taps, mask):
    """What `whiten` does to the used pixels, `[used, used]`."""
    unit = np.zeros((mask.sum(), *mask.shape))
    unit[np.arange(len(unit)), *np.nonzero(mask)] = 1.0
    return whiten(tf.constant(unit), tf.constant(taps)).numpy()[:, mask].T


def shapes(mask):
    """A sky, small and large galaxies, the shift of one, and a ring, `[5, used]`: what lens fits measure."""
    y, x = np.indices(SHAPE) - np.array([10.0, 12.0])[:, None, None]
    radius = np.hypot(x, y)
    small, large = np.exp(-(radius**2) / 2 / 1.2**2), np.exp(-((x - 2) ** 2 + (y - 2) ** 2) / 2 / 4**2)
    return np.stack(
        [image[mask] for image in (np.ones(SHAPE), small, large, x * small, np.exp(-((radius - 6) ** 2) / 2))]
    )


class Setup:
    """A kernel on an image with bad pixels and uneven noise: exact covariance, whitening, and what linear fits make."""

    def __init__(self, kernel, noise):
        self.mask, self.noise = bad_pixels(), noise
        self.exact = dense(kernel, self.noise, self.mask)
        self.whitening = matrix(whitening_taps(self.noise, self.mask, kernel), self.mask)
        self.design = shapes(self.mask)

    def errors(self, precision):
        """Of a linear fit that takes this for the noise's precision: those it states, and those it makes."""
        stated = np.linalg.inv(self.design @ precision @ self.design.T)
        weights = stated @ self.design @ precision
        return np.sqrt(np.diag(stated)), np.sqrt(np.diag(weights @ self.exact @ weights.T))


@functools.cache
def setup(name):
    return Setup(KERNELS[name], noise_map())


class TestAgainstTheExactCovariance:
    @pytest.mark.parametrize("name", KERNELS)
    def test_every_whitened_pixel_has_unit_variance_and_so_chi2_is_unbiased(self, name):
        case = setup(name)
        whitened = case.whitening @ case.exact @ case.whitening.T
        np.testing.assert_allclose(np.diag(whitened), 1, rtol=1e-10)
        precision = case.whitening.T @ case.whitening
        assert np.trace(precision @ case.exact) == pytest.approx(case.mask.sum(), rel=1e-10)

    @pytest.mark.parametrize(("name", "tolerance"), [("drizzled", 0.01), ("leaning", 0.06), ("box", 0.25)])
    def test_whitened_pixels_are_independent(self, name, tolerance):
        case = setup(name)
        whitened = case.whitening @ case.exact @ case.whitening.T
        np.testing.assert_allclose(whitened, np.eye(len(whitened)), atol=tolerance)

    @pytest.mark.parametrize(("name", "nats"), [("drizzled", 0.05), ("leaning", 0.5), ("box", 30)])
    def test_distance_from_the_exact_distribution(self, name, nats):
        """Kullback-Leibler: with chi^2 unbiased, half the difference of the log determinants, and never negative."""
        case = setup(name)
        divergence = -np.linalg.slogdet(case.whitening)[1] - np.linalg.slogdet(case.exact)[1] / 2
        assert 0 <= divergence < nats

    @pytest.mark.parametrize(
        ("name", "loss", "lie"), [("drizzled", 3e-4, 0.005), ("leaning", 2e-3, 0.005), ("box", 0.03, 0.08)]
    )
    def test_errors_of_a_linear_fit(self, name, loss, lie):
        """They are hardly larger than the smallest there can be, and they are what is stated."""
        case = setup(name)
        best = case.errors(np.linalg.inv(case.exact))[0]
        stated, made = case.errors(case.whitening.T @ case.whitening)
        assert np.all(made >= best * (1 - 1e-9))
        np.testing.assert_allclose(made, best, rtol=loss)
        np.testing.assert_allclose(stated, made, rtol=lie)

    def test_what_white_noise_would_state(self):
        case = setup("drizzled")
        stated, made = case.errors(np.diag(case.noise[case.mask] ** -2.0))
        assert np.all(stated < 0.7 * made)

    def test_what_a_diagonal_in_fourier_space_would_do(self):
        """The figures of the module's docstring. It needs even noise besides."""
        kernel = KERNELS["drizzled"]
        case = Setup(kernel, np.ones(SHAPE))
        full = np.zeros(SHAPE)
        full[:5, :5] = kernel
        power = np.real(np.fft.fft2(np.roll(full, (-2, -2), (0, 1))))
        unit = np.eye(case.mask.size)[case.mask.ravel()].reshape(-1, *SHAPE)
        precision = np.real(np.fft.ifft2(np.fft.fft2(unit) / power))[:, case.mask]
        assert np.trace(precision @ case.exact) / case.mask.sum() == pytest.approx(1.20, abs=0.005)
        stated, made = case.errors(precision)
        assert np.min(stated / made) == pytest.approx(0.57, abs=0.005)


class TestWhiten:
    def test_white_noise_has_one_tap_and_is_divided_by_sigma(self):
        taps = whitening_taps(noise_map(), bad_pixels())
        assert taps.shape == (taps_for(None), *SHAPE) == (1, *SHAPE)
        images = rng().normal(size=(3, *SHAPE))
        expected = images * np.where(bad_pixels(), 1 / noise_map(), 0)
        np.testing.assert_array_equal(whiten(tf.constant(images), tf.constant(taps)), expected)

    def test_a_kernel_without_correlation_is_white(self):
        taps = whitening_taps(noise_map(), bad_pixels(), np.pad([[1.0]], 1))
        np.testing.assert_array_equal(taps[0], whitening_taps(noise_map(), bad_pixels())[0])
        np.testing.assert_array_equal(np.abs(taps[1:]), 0)

    @pytest.mark.parametrize("response", [DRIZZLED, LEANING], ids=["drizzled", "leaning"])
    def test_correlated_noise_becomes_white(self, response):
        """Noise that was made, not described: a kernel that were turned or mirrored would leave correlations."""
        images = correlated(response, 2000) * noise_map()
        taps = whitening_taps(noise_map(), bad_pixels(), correlation(response))
        whitened = whiten(tf.constant(images), tf.constant(taps)).numpy()
        assert np.all(whitened[:, ~bad_pixels()] == 0)
        used = whitened[:, bad_pixels()]
        chi2 = np.sum(used**2)
        assert abs(chi2 - used.size) < 4 * np.sqrt(2 * used.size)
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 1)):
            near = whitened[:, : SHAPE[0] - dy, max(0, -dx) : SHAPE[1] - max(0, dx)]
            products = near * whitened[:, dy:, max(0, dx) : SHAPE[1] + min(0, dx)]
            pairs = np.count_nonzero(products)
            assert abs(products.sum()) < 4 * np.sqrt(pairs) + 0.002 * pairs, (dy, dx)

    def test_pixels_that_are_not_used_do_not_matter(self):
        mask = bad_pixels()
        taps = tf.constant(whitening_taps(noise_map(), mask, KERNELS["leaning"]))
        image = rng().normal(size=SHAPE)
        other = np.where(mask, image, 1e6)
        np.testing.assert_array_equal(whiten(tf.constant(image), taps), whiten(tf.constant(other), taps))

    def test_it_is_linear_in_any_batch(self):
        taps = tf.constant(whitening_taps(noise_map(), bad_pixels(), KERNELS["leaning"]))
        images = rng().normal(size=(2, 3, *SHAPE))
        together = whiten(tf.constant(images), taps).numpy()
        for index in np.ndindex(2, 3):
            np.testing.assert_allclose(together[index], whiten(tf.constant(images[index]), taps), atol=1e-13)
        total = whiten(tf.constant(images.sum((0, 1))), taps)
        np.testing.assert_allclose(together.sum((0, 1)), total, atol=1e-12)

    def test_derivatives_in_both_modes_eager_and_compiled(self):
        """Of a linear map A: forward A v, reverse w A, and the second derivative of a square through both."""
        mask = bad_pixels()
        taps = whitening_taps(noise_map(), mask, KERNELS["leaning"])
        linear = matrix(taps, mask)
        images, direction, upstream = (tf.constant(rng(i).normal(size=(2, *SHAPE))) for i in range(3))
        taps = tf.constant(taps)

        def derivatives(images, direction, upstream):
            with ForwardAccumulator(images, direction) as forward:
                value = whiten(images, taps)
            with tf.GradientTape() as tape:
                tape.watch(images)
                again = whiten(images, taps)
            return forward.jvp(value), tape.gradient(again, images, output_gradients=upstream)

        eager = derivatives(images, direction, upstream)
        compiled = tf.function(derivatives, jit_compile=True)(images, direction, upstream)
        for found, name in ((eager, "eager"), (compiled, "compiled")):
            ahead, back = (each.numpy() for each in found)
            np.testing.assert_allclose(ahead[:, mask], direction.numpy()[:, mask] @ linear.T, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(back[:, mask], upstream.numpy()[:, mask] @ linear, atol=1e-12, err_msg=name)
            assert np.all(back[:, ~mask] == 0)

    @pytest.mark.parametrize("name", KERNELS)
    def test_single_precision(self, name):
        """A bright image, signal-to-noise 300 a pixel, whitened to a thousandth of the noise or two."""
        taps = whitening_taps(noise_map(), bad_pixels(), KERNELS[name])
        y, x = np.indices(SHAPE)
        image = 300 * np.exp(-((x - 12) ** 2 + (y - 10) ** 2) / 30)
        exact = whiten(tf.constant(image), tf.constant(taps)).numpy()
        single = whiten(tf.constant(image, tf.float32), tf.constant(taps, tf.float32)).numpy()
        np.testing.assert_allclose(single, exact, atol=2e-3)


CORRELATED = KERNELS["leaning"]


@functools.cache
def observation():
    """The tiny lens with correlated noise and bad pixels."""
    without = tiny_lens.observation(noisy=False)
    assert without.image.shape == SHAPE
    image = without.image + without.noise * correlated(LEANING, 1, seed=5)[0]
    return replace(without, image=image, mask=bad_pixels(), noise_correlation=CORRELATED)


@functools.cache
def target():
    return LensTarget(tiny_lens.model(), observation())


@functools.cache
def white_target():
    return LensTarget(tiny_lens.model(), observation().with_noise())


POINT = tf.constant(tiny_lens.truth()[None])


class TestLikelihood:
    @pytest.mark.parametrize("dtype", ["float64", "float32"])
    def test_is_that_of_the_exact_covariance(self, dtype):
        """Up to a constant that no parameter changes: here of amplitudes, from the least squares with the dense one."""
        this = target() if dtype == "float64" else LensTarget(tiny_lens.model(dtype=dtype), observation())
        mask = this.mask
        precision = np.linalg.inv(dense(CORRELATED, this.noise, mask))
        unit = this.component_images(tf.cast(POINT, dtype), tf.ones([1, 3], dtype)).numpy()[0].astype(np.float64)
        images, data = unit[:, mask], this.image[mask]
        covariance = np.linalg.inv(images @ precision @ images.T)
        mean = covariance @ images @ precision @ data
        solution = this.linear(tf.cast(POINT, dtype))
        sigma = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(np.sqrt(np.diag(solution.covariance[0])), sigma, rtol=0.01)
        np.testing.assert_allclose((solution.mean[0] - mean) / sigma, 0, atol=0.05)

    def test_evaluation_shows_one_residual_and_judges_by_the_other(self):
        best = target().evaluate(POINT[0].numpy())
        mask = target().mask
        np.testing.assert_array_equal(np.isnan(best.whitened), ~mask)
        np.testing.assert_allclose(best.residual[mask], ((target().image - best.image) / target().noise)[mask])
        linear = matrix(whitening_taps(target().noise, mask, CORRELATED), mask)
        np.testing.assert_allclose(best.whitened[mask], linear @ (target().image - best.image)[mask], atol=1e-9)
        np.testing.assert_allclose(
            best.whitened[mask], target().linear(POINT).residual.numpy()[0][mask.ravel()], atol=1e-6
        )
        assert best.chi2 == pytest.approx(np.mean(best.whitened[mask] ** 2))
        white = white_target().evaluate(POINT[0].numpy())
        np.testing.assert_array_equal(white.whitened, white.residual)

    def test_gradient_and_tangents(self):
        """Reverse mode through the posterior and forward mode through the design, by finite differences."""
        u = tf.constant(tiny_lens.near_truth(1, 0.1))
        direction = rng(3).normal(size=u.shape[1])
        step = 1e-5
        points = tf.constant(u.numpy() + np.array([[-step], [step]]) * direction)
        gradient = target().value_and_gradient(u)[1].numpy()[0]
        low, high = (float(target().log_likelihood(p[None])[0] + target().log_prior(p[None])[0]) for p in points)
        assert gradient @ direction == pytest.approx((high - low) / (2 * step), rel=1e-5)
        tangents = target().linearize(u[0])[1].numpy()
        low, high = (target().design(p[None]).numpy()[0] for p in points)
        difference = (high - low) / (2 * step)
        np.testing.assert_allclose(
            np.tensordot(direction, tangents, 1), difference, atol=1e-6 * np.abs(difference).max()
        )

    def test_stated_errors_are_the_scatter_of_200_images(self):
        """Of amplitudes; and white noise states errors that are too small by the factor that the dense one tells."""
        truth = np.array(tiny_lens.AMPLITUDES)
        without = tiny_lens.observation(noisy=False)
        images = without.image + without.noise * correlated(LEANING, 200, seed=6)
        design = {kind: this.design(POINT) for kind, this in (("right", target()), ("white", white_target()))}
        factor = self.factor_of_white_noise()
        for kind, this in (("right", target()), ("white", white_target())):
            z = []
            for image in images:
                data = whiten(tf.constant(image), tf.constant(this.seen.taps)).numpy().reshape(-1)
                # So wide a prior that it has no part in the law.
                solution = marginalize(design[kind], tf.constant(data), 1e6, this.model.positive)
                z.append((solution.mean[0] - truth) / np.sqrt(np.diag(solution.covariance[0])))
            z = np.array(z)
            expected = np.ones(3) if kind == "right" else factor
            assert np.all(np.abs(z.mean(0)) < 4 * expected / np.sqrt(200))
            low, high = np.sqrt(stats.chi2.ppf([1e-4, 1 - 1e-4], 199) / 199)
            assert np.all((low < z.std(0, ddof=1) / expected) & (z.std(0, ddof=1) / expected < high)), kind
        assert np.all(factor > 1.3)

    def factor_of_white_noise(self):
        mask = target().mask
        images = target().component_images(POINT, tf.ones([1, 3], tf.float64)).numpy()[0][:, mask]
        noise = target().noise[mask]
        stated = np.linalg.inv(images / noise**2 @ images.T)
        weights = stated @ (images / noise**2)
        return np.sqrt(np.diag(weights @ dense(CORRELATED, target().noise, mask) @ weights.T) / np.diag(stated))


class TestFirstLook:
    @pytest.mark.parametrize("name", [None, "drizzled", "leaning"])
    def test_smoothed_noise_is_of_unit_variance(self, name):
        """So that its thresholds in sigma mean what they say."""
        response = {None: np.ones((1, 1)), "drizzled": DRIZZLED, "leaning": LEANING}[name]
        images = correlated(response, 2000, seed=8)
        smooth = np.array([smooth_noise(image, KERNELS.get(name)) for image in images])[:, 6:-6, 6:-6]
        assert np.std(smooth) == pytest.approx(1, rel=0.02)


class TestSharing:
    def test_correlated_and_white_noise_need_programs_of_their_own(self):
        white = observation().with_noise()
        assert not target().suits(white)
        assert target().suits(observation().with_noise(KERNELS["drizzled"]))
        with pytest.raises(ParameterError, match="white noise instead of correlated"):
            target().observe(white)

    def test_another_kernel_without_compiling(self):
        before = target().linear(POINT).log_likelihood
        traced = target()._compiled_design.experimental_get_tracing_count()
        try:
            target().observe(observation().with_noise(KERNELS["drizzled"]))
            assert target().linear(POINT).log_likelihood != before
        finally:
            target().observe(observation())
        assert target().linear(POINT).log_likelihood == before
        assert target()._compiled_design.experimental_get_tracing_count() == traced

    def test_a_smaller_mask(self):
        this = LensTarget(tiny_lens.model(), observation())
        mask = bad_pixels()
        mask[:, :6] = False
        this.use(mask)
        other = LensTarget(tiny_lens.model(), observation().with_mask(mask))
        np.testing.assert_array_equal(this.seen.taps, other.seen.taps)
        np.testing.assert_array_equal(this.seen.data, other.seen.data)

    def test_a_frame(self):
        """Beyond the frame nothing is known: its border is one of the image."""
        frame = slice(2, 15), slice(4, 20)
        this = LensTarget(tiny_lens.model(), observation(), frame)
        cut = observation()
        part = Observation(cut.image[frame], cut.noise[frame], np.ones((1, 1)), 0.15, cut.mask[frame])
        expected = whitening_taps(part.noise, part.mask, CORRELATED)
        np.testing.assert_array_equal(this.seen.taps, expected)
