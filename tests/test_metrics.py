"""Figures of reconstructions and of populations: laws that any correct measure obeys."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from tflens.datasets.half_light import half_light_radius
from tflens.galaxies.metrics import (
    distribution_distances,
    log_power,
    noiseless_residual,
    peak_error,
    reduced_chi2,
    ssim,
    transfer,
)


@pytest.fixture(scope="module")
def galaxies():
    """Ellipses of unit sum with a knot each, on non-square stamps."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[-24:24, -20:20]
    images = []
    for q, r, dx, dy in zip(rng.uniform(0.3, 1, 12), rng.uniform(2, 6, 12), *rng.uniform(-6, 6, (2, 12)), strict=True):
        images.append(np.exp(-np.hypot(x, y / q) / r) + 0.4 * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / 3))
    images = np.array(images)
    return images / images.sum(axis=(1, 2), keepdims=True)


def square(images):
    return images[:, 4:-4]


class TestReconstructions:
    def test_truth_has_unit_chi2(self, galaxies):
        rng = np.random.default_rng(1)
        sigma = np.linspace(0.5, 2, len(galaxies))
        noisy = galaxies + sigma[:, None, None] * rng.normal(size=galaxies.shape)
        pixels = galaxies[0].size
        chi2 = reduced_chi2(noisy, galaxies, sigma)
        assert np.all(np.abs(chi2 - 1) < 5 * np.sqrt(2 / pixels))
        # An error of one sigma in every pixel adds one.
        assert reduced_chi2(noisy, galaxies + sigma[:, None, None], sigma).mean() == pytest.approx(2, abs=0.1)

    def test_perfect_model(self, galaxies):
        sigma = np.ones(len(galaxies))
        assert np.all(noiseless_residual(galaxies, galaxies, sigma) == 0)
        assert np.all(peak_error(galaxies, galaxies) == 0)
        np.testing.assert_allclose(ssim(galaxies, galaxies), 1, rtol=1e-12)

    def test_constant_offset_is_its_own_rms(self, galaxies):
        sigma = np.linspace(0.5, 2, len(galaxies))
        offset = galaxies + 0.5 * sigma[:, None, None]
        np.testing.assert_allclose(noiseless_residual(galaxies, offset, sigma), 0.5, rtol=1e-9)

    def test_residual_is_that_within_twice_the_half_light_radius(self, galaxies):
        radius, distance = half_light_radius(galaxies)
        outside = galaxies + (distance > 2.01 * radius[:, None, None])
        assert np.all(noiseless_residual(galaxies, outside, np.ones(len(galaxies))) == 0)

    def test_half_light_radius_of_a_gaussian(self):
        y, x = np.mgrid[-40:41, -30:33]
        radius, _ = half_light_radius(np.exp(-(x**2 + y**2) / (2 * 6.0**2))[None])
        assert radius[0] == pytest.approx(6 * np.sqrt(2 * np.log(2)), rel=0.01)

    def test_peak_error_of_a_scaled_model(self, galaxies):
        np.testing.assert_allclose(peak_error(galaxies, 0.9 * galaxies), 0.1, rtol=1e-9)


class TestSsim:
    @pytest.mark.parametrize("window", [7, 11])
    def test_against_scikit_image(self, galaxies, window):
        blurred = ndimage.gaussian_filter(galaxies, (0, 1.5, 1.5))
        expected = [
            structural_similarity(a, b, win_size=window, data_range=a.max(), use_sample_covariance=False)
            for a, b in zip(galaxies, blurred, strict=True)
        ]
        np.testing.assert_allclose(ssim(galaxies, blurred, window), expected, rtol=1e-9)

    def test_even_window_holds_every_placement_once(self, galaxies):
        """Of a window of 8: the definition, written out for one image."""
        a, b = galaxies[0], ndimage.gaussian_filter(galaxies[0], 1.5)
        c1, c2 = (0.01 * a.max()) ** 2, (0.03 * a.max()) ** 2
        x, y = (np.lib.stride_tricks.sliding_window_view(i, (8, 8)).reshape(-1, 64) for i in (a, b))
        covariance = np.mean(x * y, 1) - x.mean(1) * y.mean(1)
        expected = (2 * x.mean(1) * y.mean(1) + c1) / (x.mean(1) ** 2 + y.mean(1) ** 2 + c1)
        expected *= (2 * covariance + c2) / (x.var(1) + y.var(1) + c2)
        assert ssim(a[None], b[None])[0] == pytest.approx(expected.mean(), rel=1e-9)

    def test_falls_with_the_error_and_does_not_know_the_unit(self, galaxies):
        rng = np.random.default_rng(2)
        noise = rng.normal(size=galaxies.shape) * galaxies.max()
        figures = [ssim(galaxies, galaxies + size * noise).mean() for size in (0.01, 0.03, 0.1)]
        assert figures == sorted(figures, reverse=True)
        worse = galaxies + 0.03 * noise
        np.testing.assert_allclose(ssim(1e-3 * galaxies, 1e-3 * worse), ssim(galaxies, worse), rtol=1e-9)


class TestDistributions:
    def test_closed_forms(self):
        x = np.random.default_rng(1).normal(3, 2, 500)
        found = distribution_distances(
            {"same": x, "shifted": x, "scaled": x},
            {"same": x, "shifted": x + 1, "scaled": x.mean() + 2 * (x - x.mean())},
        )
        assert found["same"] == 0
        assert found["shifted"] == pytest.approx(1 / x.std(), rel=1e-9)
        assert found["scaled"] == pytest.approx(np.abs(x - x.mean()).mean() / x.std(), rel=1e-9)

    def test_failed_measurements_are_left_out(self):
        x = np.arange(10.0)
        found = distribution_distances({"a": x, "b": x}, {"a": np.append(x, np.nan), "b": np.full(3, np.nan)})
        assert found["a"] == 0
        assert np.isnan(found["b"])
        assert np.isnan(distribution_distances({"a": np.ones(5)}, {"a": x})["a"])  # no spread to measure it in

    def test_bands_hold_the_power_of_their_rings(self):
        """A plane wave of five cycles lies in the band of its wave number, and nowhere else."""
        side = 32
        wave = np.cos(2 * np.pi * 5 * np.arange(side) / side)[None, :] * np.ones((side, 1))
        power = log_power(wave[None], bands=16)  # of unit width: 1, 2, 3, ...
        found = [np.exp(values[0]) for values in power.values()]
        assert np.argmax(found) == 4
        assert sum(found) - max(found) < 1e-20 * max(found)

    def test_band_distance_is_zero_for_itself_and_sees_noise(self, galaxies):
        reference = log_power(square(galaxies))
        assert len(reference) == 15
        assert all(value == 0 for value in distribution_distances(reference, reference).values())
        noise = 1e-3 * np.random.default_rng(1).normal(size=square(galaxies).shape)
        noisy = distribution_distances(reference, log_power(square(galaxies) + noise))
        assert noisy["band 15"] > 10 * noisy["band 1"]


class TestSharpness:
    def test_one_for_itself(self, galaxies):
        k, ratio, geometric = transfer(square(galaxies), square(galaxies))
        assert k.tolist() == list(range(1, 11))
        np.testing.assert_allclose(ratio, 1)
        np.testing.assert_allclose(geometric, 1)

    def test_order_of_the_galaxies_does_not_matter(self, galaxies):
        _, ratio, geometric = transfer(square(galaxies), square(galaxies)[::-1])
        np.testing.assert_allclose([ratio, geometric], 1)

    def test_transfer_function_of_a_blurred_copy(self, galaxies):
        """A periodic Gaussian blur multiplies each mode by a known factor, and the power by its square."""
        images, width = square(galaxies), 1.3
        side = images.shape[-1]
        f = np.fft.fftfreq(side)
        filtered = np.exp(-2 * (np.pi * width) ** 2 * (f[:, None] ** 2 + f[None, :] ** 2))
        blurred = np.fft.ifft2(np.fft.fft2(images) * filtered).real
        k, ratio, geometric = transfer(images, blurred)
        expected = np.exp(-4 * (np.pi * width * k / side) ** 2)
        # A ring has a width: the factor at its middle is that of its mean to a few per cent.
        np.testing.assert_allclose(ratio, expected, rtol=0.08)
        np.testing.assert_allclose(geometric, expected, rtol=0.08)
        assert np.all(np.diff(ratio) < 0)
