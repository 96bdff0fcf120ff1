"""Observation: what is known of its noise is carried everywhere, and what no noise can have is refused."""

import numpy as np
import pytest
from astropy.io import fits

from tflens.errors import ObservationError
from tflens.observation import NO_DATA_NOISE, Observation, power_spectrum

KERNEL = np.array([[0.02, 0.15, -0.05], [0.2, 1.0, 0.2], [-0.05, 0.15, 0.02]])


def made(correlation=None, **changed):
    """24 x 31 pixels of noise, one of them without data."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=(24, 31))
    image[2, 28] = np.nan
    given = {"image": image, "noise": 0.5 + rng.random(image.shape), "psf": np.ones((1, 1)), "mask": ~np.isnan(image)}
    return Observation(**given | changed, pixel_scale=0.05, noise_correlation=correlation)


def test_the_noise_is_white_unless_told():
    assert made().noise_correlation is None
    assert made([[1.0]]).noise_correlation is None
    assert "correlated" not in repr(made())


def test_it_is_a_copy_that_cannot_be_changed():
    given = KERNEL.astype(">f8")
    correlation = made(given).noise_correlation
    given[:] = 0
    np.testing.assert_array_equal(correlation, KERNEL)
    assert correlation.dtype.isnative
    with pytest.raises(ValueError, match="read-only"):
        correlation[0, 0] = 1
    assert repr(made(KERNEL)).endswith("PSF 1 x 1, noise correlated over 3 x 3)")


def test_a_file_brings_it_back(tmp_path):
    for kernel in (KERNEL, np.array([[0.25, 1.0, 0.25]])):
        made(kernel).to_fits(tmp_path / "a.fits", overwrite=True)
        np.testing.assert_array_equal(Observation.from_fits(tmp_path / "a.fits").noise_correlation, kernel)
        assert Observation.from_fits(tmp_path / "a.fits", noise_correlation=None).noise_correlation is None
    made().to_fits(tmp_path / "white.fits")
    with fits.open(tmp_path / "white.fits") as hdus:
        assert "CORR" not in hdus
    assert Observation.from_fits(tmp_path / "white.fits").noise_correlation is None
    with pytest.raises(ObservationError, match=r"extension KERNEL for the noise correlation is missing"):
        Observation.from_fits(tmp_path / "white.fits", noise_correlation="KERNEL")


def test_separate_files_bring_it_too(tmp_path):
    made(KERNEL).to_fits(tmp_path / "a.fits")
    parts = {role: f"{tmp_path}/a.fits[{name}]" for role, name in (("image", "SCI"), ("noise", "ERR"), ("psf", "PSF"))}
    assert Observation.from_files(**parts, pixel_scale=0.05).noise_correlation is None
    together = Observation.from_files(**parts, noise_correlation=f"{tmp_path}/a.fits[CORR]")
    np.testing.assert_array_equal(together.noise_correlation, KERNEL)


def test_single_precision_is_near_enough(tmp_path):
    """As another program would write it: its halves and its middle may differ in the last digits."""
    kernel = KERNEL.astype(np.float32)
    kernel[0, 1] = np.nextafter(kernel[0, 1], 1, dtype=np.float32)
    assert made(kernel).noise_correlation is not None


def test_another_mask_keeps_it():
    mask = made().mask.copy()
    mask[:2, :3] = False
    np.testing.assert_array_equal(made(KERNEL).with_mask(mask).noise_correlation, KERNEL)


def test_other_knowledge_of_the_noise():
    before = made()
    after = before.with_noise(KERNEL, scale=0.7)
    np.testing.assert_array_equal(after.noise[after.mask], 0.7 * before.noise[before.mask])
    np.testing.assert_array_equal(after.noise_correlation, KERNEL)
    np.testing.assert_array_equal(after.image, before.image)
    assert after.with_noise().noise_correlation is None
    # A pixel without data stays one, and can still not be revived.
    assert after.noise[2, 28] == NO_DATA_NOISE
    with pytest.raises(ObservationError, match="must have data"):
        after.with_mask(np.ones(after.mask.shape, bool))
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ObservationError, match=r"with_noise\(scale\): .* positive number"):
            before.with_noise(scale=scale)


def changed(at, value):
    kernel = KERNEL.copy()
    kernel[at] = value
    return kernel


@pytest.mark.parametrize(
    ("kernel", "rule", "value"),
    [
        (np.ones((2, 3)), "odd number of pixels", "2 x 3"),
        (np.ones((3, 33)), "not be larger than the image", "3 x 33"),
        (changed((0, 1), np.nan), "finite", "pixel [0, 1]"),
        (2 * KERNEL, "1 in the middle", "it is 2"),
        (changed((0, 1), 0.16), "the same at (y, x) and (-y, -x)", "0.01"),
        (np.array([[0.6, 1.0, 0.6]]), "power spectrum of at least 0.0001", "-0.2"),
        (np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]), "power spectrum", "add 0.001"),
        (np.ones((3, 3), complex), "real numbers", "complex"),
        (np.ones(3), "two-dimensional", "(3,)"),
    ],
)
def test_what_no_noise_has_is_refused(kernel, rule, value):
    with pytest.raises(ObservationError) as caught:
        made(kernel)
    message = str(caught.value)
    assert message.startswith("Observation.noise_correlation: the noise correlation must")
    assert rule in message
    assert value in message
    assert message.endswith(".")


def test_the_remedy_for_waves_without_power_works():
    kernel = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    kernel[1, 1] += 0.001
    np.testing.assert_array_equal(made(kernel / 1.001).noise_correlation, kernel / 1.001)


def test_a_bad_kernel_of_a_file_is_named(tmp_path):
    made(KERNEL).to_fits(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update") as hdus:
        hdus["CORR"].data[1, 1] = 3
    with pytest.raises(ObservationError, match=r"a.fits\[CORR\]: the noise correlation must be 1 in the middle"):
        Observation.from_fits(tmp_path / "a.fits")


def test_power_spectrum_is_that_of_noise():
    """Of white noise that passed through a response, the squared modulus of its transform."""
    response = np.array([[0.0, 0.1, 0.3], [0.0, 1.0, 0.2]])
    full = np.zeros((3, 5))
    for dy in (-1, 0, 1):
        for dx in range(-2, 3):
            shifted = np.zeros((4, 7))
            shifted[1 + dy : 3 + dy, 2 + dx : 5 + dx] = response
            full[1 + dy, 2 + dx] = np.sum(shifted[1:3, 2:5] * response)
    power = power_spectrum(full / full[1, 2])
    expected = np.abs(np.fft.fft2(response, power.shape)) ** 2 / full[1, 2]
    np.testing.assert_allclose(power, expected, atol=1e-12)
    assert power.mean() == pytest.approx(1)
