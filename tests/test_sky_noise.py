"""The noise that blank sky shows: known noise is found with sources in the field, and a run takes it and repeats it."""

import json

import numpy as np
import pytest
from scipy import ndimage, signal

import tflens.cli
from tflens.config import Input, RunConfig
from tflens.errors import ObservationError, ParameterError
from tflens.observation import Observation, power_spectrum
from tflens.run import prepare
from tflens.sky_noise import LEAST_POWER, MAX_LAG, SkyNoise, blank_sky, measure_sky_noise

SHAPE = (120, 140)
DRIZZLED = np.outer([0.15, 1.0, 0.15], [0.2, 1.0, 0.2])
LEANING = np.array([[0.0, 0.1, 0.3], [0.0, 1.0, 0.2], [0.2, 0.1, 0.0]])
SHARPENED = np.array([[0.0, -0.06, 0.0], [-0.06, 1.0, -0.06], [0.0, -0.06, 0.0]])


def sky(seed=0):
    """A lens with a halo that reaches the borders, faint and bright galaxies, and a background that is not level."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    radius = np.hypot(x - 70, y - 60)
    image = 60 / (1 + (radius / 4) ** 2) + 8 * np.exp(-((radius - 20) ** 2) / 8) + 0.3 + 0.004 * x
    for _ in range(12):
        flux, width = 10 ** rng.uniform(0, 1.5), rng.uniform(1.0, 2.5)
        image += flux * np.exp(-((x - rng.uniform(0, 140)) ** 2 + (y - rng.uniform(0, 120)) ** 2) / 2 / width**2)
    return image


def observed(response, seed=0, true_over_map=1.0, light=True):
    """An image whose noise passed through a response, with a noise map that includes the photons of its light."""
    rng = np.random.default_rng([seed, 1])
    ky, kx = response.shape
    noise = signal.fftconvolve(rng.normal(size=(SHAPE[0] + ky - 1, SHAPE[1] + kx - 1)), response, mode="valid")
    noise /= np.linalg.norm(response)
    image = light * sky(seed)
    sigma = np.sqrt(1 + 0.1 * image)
    mask = rng.random(SHAPE) > 0.01
    return Observation(image + sigma * noise, sigma / true_over_map, np.ones((1, 1)), 0.05, mask)


def truth(response):
    """Its correlation, `[2 MAX_LAG + 1, 2 MAX_LAG + 1]`."""
    kernel = signal.correlate(response, response)
    return np.pad(kernel / kernel.max(), MAX_LAG - np.array(kernel.shape) // 2)


def within(found, kernel):
    """The same part of a kernel of the largest size."""
    cut = slice(MAX_LAG - len(found) // 2, MAX_LAG + len(found) // 2 + 1)
    return kernel[cut, cut]


@pytest.mark.parametrize("response", [DRIZZLED, LEANING, SHARPENED], ids=["drizzled", "leaning", "sharpened"])
def test_known_noise_is_found_within_its_stated_errors(response):
    """Among sources that are not masked by anyone but the measurement itself, with a noise map of the wrong size."""
    kernel, z, of_scale = truth(response), [], []
    for seed in range(12):
        found = measure_sky_noise(observed(response, seed, true_over_map=0.7))
        assert found.correlation.shape >= (3, 3)
        wrong = np.abs(found.correlation - within(found.correlation, kernel))
        assert wrong.max() < 0.06
        middle = len(wrong) // 2
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            at = middle + dy, middle + dx
            z.append((found.correlation[at] - kernel[MAX_LAG + dy, MAX_LAG + dx]) / found.correlation_error[at])
        of_scale.append((found.scale - 0.7) / found.scale_error)
    assert abs(np.mean(z)) < 0.7
    assert 0.6 < np.std(z) < 1.4
    assert abs(np.mean(of_scale)) < 1.2
    assert np.std(of_scale) < 1.6


def test_stated_errors_are_the_scatter_without_any_light():
    z = []
    for seed in range(40):
        found = measure_sky_noise(observed(DRIZZLED, 100 + seed, light=False))
        middle = len(found.correlation) // 2
        kernel = truth(DRIZZLED)[MAX_LAG, MAX_LAG + 1]
        z.append(
            [
                (found.correlation[middle, middle + 1] - kernel) / found.correlation_error[middle, middle + 1],
                (found.scale - 1) / found.scale_error,
            ]
        )
    np.testing.assert_allclose(np.mean(z, 0), 0, atol=0.7)
    np.testing.assert_allclose(np.std(z, 0), 1, atol=0.45)


def test_white_noise_is_white():
    for seed in range(5):
        found = measure_sky_noise(observed(np.ones((1, 1)), seed))
        assert found.correlation.tolist() == [[1.0]]
        assert found.kernel is None
        assert found.neighbours == 0
        assert found.scale == pytest.approx(1, abs=5 * found.scale_error)
        assert found.large_scale == found.scale


def test_a_map_that_is_right_for_large_areas_is_told():
    """As drizzling leaves it: the scatter is smaller by what the correlation makes up for."""
    large = np.sqrt(truth(DRIZZLED).sum())
    found = measure_sky_noise(observed(DRIZZLED, 3, true_over_map=1 / large))
    assert found.scale == pytest.approx(1 / large, abs=5 * found.scale_error)
    assert found.large_scale == pytest.approx(1, abs=0.07)


@pytest.mark.parametrize("width", [0.6, 1.0, 1.6])
def test_what_is_found_is_accepted(width):
    """Smooth noise has waves with hardly any power: an estimate of it must not be negative anywhere."""
    y, x = np.mgrid[-4:5, -4:5]
    observation = observed(np.exp(-(x**2 + y**2) / 2 / width**2), 5)
    found = measure_sky_noise(observation)
    assert power_spectrum(found.correlation).min() > 0.999 * LEAST_POWER
    np.testing.assert_array_equal(observation.with_noise(found.kernel).noise_correlation, found.correlation)


def test_blank_sky_has_no_light_in_it():
    observation = observed(DRIZZLED, 1)
    residual, blank = blank_sky(observation)
    light = ndimage.gaussian_filter(sky(1), 1)
    background = np.median(light[blank])
    assert not blank[~observation.mask].any()
    assert np.max(light[blank]) < background + 3.5
    assert abs(np.mean(residual[blank])) < 0.05
    assert blank.mean() > 0.4


def test_too_little_sky_is_refused():
    observation = observed(DRIZZLED, light=False)
    mask = np.zeros(SHAPE, bool)
    mask[:30, :30] = True
    with pytest.raises(ObservationError, match="1000 or more pixels of blank sky") as caught:
        measure_sky_noise(observation.with_mask(mask))
    assert str(caught.value).endswith(".")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("sky") / "lens.fits"
    observed(DRIZZLED, 7, true_over_map=0.8).to_fits(path)
    return path


@pytest.fixture(scope="module")
def found(file) -> SkyNoise:
    return measure_sky_noise(Observation.from_fits(file))


class TestInput:
    def test_auto_is_what_is_measured(self, file, found):
        raw = Observation.from_fits(file)
        both = Input(str(file), noise_correlation="auto", noise_scale="auto").read()
        np.testing.assert_array_equal(both.noise_correlation, found.correlation)
        np.testing.assert_array_equal(both.noise, raw.noise * found.scale)
        one = Input(str(file), noise_correlation="auto").read()
        np.testing.assert_array_equal(one.noise_correlation, found.correlation)
        np.testing.assert_array_equal(one.noise, raw.noise)
        other = Input(str(file), noise_scale="0.5").read()
        assert other.noise_correlation is None
        np.testing.assert_array_equal(other.noise, raw.noise * 0.5)

    def test_a_kernel_in_the_file_or_in_another(self, file, found, tmp_path):
        with_kernel = tmp_path / "with.fits"
        Observation.from_fits(file).with_noise(found.kernel).to_fits(with_kernel)
        own = Input(str(with_kernel)).read()
        np.testing.assert_array_equal(own.noise_correlation, found.correlation)
        assert Input(str(with_kernel), noise_correlation="none").read().noise_correlation is None
        other = Input(str(file), noise_correlation=f"{with_kernel}[CORR]")
        np.testing.assert_array_equal(other.read().noise_correlation, found.correlation)
        apart = Input(str(with_kernel), noise_file=f"{file}[ERR]").read()
        np.testing.assert_array_equal(apart.noise_correlation, found.correlation)
        assert other.measured()[0].noise_correlation == found.correlation.tolist()

    def test_a_run_tells_records_and_repeats_it(self, file, tmp_path):
        heard = []
        config = RunConfig(Input(str(file), noise_correlation="auto", noise_scale="auto"))
        job = prepare(config, tmp_path / "a", note=heard.append)
        (words,) = heard
        assert "neighbours correlate by 0.3" in words
        assert "0.80" in words
        assert "\n" not in words
        (tmp_path / "config.json").write_text(json.dumps(job.config.as_dict()))
        again = prepare(RunConfig.load(tmp_path / "config.json"), tmp_path / "b", note=heard.append)
        assert len(heard) == 1
        assert again.config == job.config
        for part in ("noise_correlation", "noise", "image"):
            np.testing.assert_array_equal(getattr(again.observation, part), getattr(job.observation, part))

    def test_words_say_what_a_fit_lacks(self, found):
        assert "--noise" not in found.in_words(correlated=True)
        assert "take --noise-scale auto" in found.in_words(correlated=True, scale=1.0)
        assert "take --noise-correlation auto" in found.in_words(correlated=False)

    def test_without_options_nothing_is_measured(self, file):
        assert Input(str(file)).measured() == (Input(str(file)), None)

    @pytest.mark.parametrize("scale", ["0", "-1", "nan", "much", "inf"])
    def test_an_impossible_scale_is_refused(self, scale):
        with pytest.raises(ParameterError, match=r'noise_scale must be "auto" or a positive number'):
            Input("lens.fits", noise_scale=scale)

    def test_the_command_line_takes_both(self, file, tmp_path, monkeypatch):
        taken = []
        monkeypatch.setattr(tflens.cli, "_fit", lambda config, *rest: taken.append(config.input))
        for options in ([], ["--noise-correlation", "auto", "--noise-scale", "auto"], ["--noise-scale", "0.7"]):
            with pytest.raises(SystemExit) as ended:
                tflens.cli.main(["fit", str(file), "--out", str(tmp_path / "out"), *options])
            assert ended.value.code == 0
        assert [(each.noise_correlation, each.noise_scale) for each in taken] == [
            (None, 1.0),
            ("auto", "auto"),
            (None, 0.7),
        ]
