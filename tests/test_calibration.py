"""Mocks, the figures that are counted over many fits of them, and fits that share what is compiled."""

import functools
import json
from dataclasses import asdict

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from typer.testing import CliRunner

from tflens import cli_calibrate
from tflens.cli import app
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.inference.calibration import MASS, compare, draw_mock, failed, figures, lens_model, survey
from tflens.inference.check import check
from tflens.inference.mocks import Mock, Survey
from tflens.inference.pipeline import Fit, FitSettings, Fitter
from tflens.light import Pixelated, Sersic
from tflens.plotting import calibration_figure
from tflens.run import describe_model

PIXEL_SCALE = 0.06
SETTINGS = FitSettings(starts=4, search_steps=24, survivors=2, polish_steps=8, chains=2, warmup=40, draws=30)


@functools.cache
def stamps() -> np.ndarray:
    """Three round and smooth galaxies, each of another size, on stamps that are not square."""
    y, x = np.mgrid[-14:15, -16:17]
    images = np.stack([np.exp(-np.hypot(x, y) / width) for width in (1.5, 2.0, 2.5)])
    return images / images.sum((1, 2), keepdims=True)


def small_survey() -> Survey:
    y, x = np.mgrid[-2:3, -2:3]
    psf = np.exp(-(x**2 + y**2) / 2)
    return Survey(PixelGrid((30, 34), 0.16), psf / psf.sum(), peak_snr=(30.0, 40.0), lens_flux=(0.3, 0.5))


def small_mock(index: int) -> Mock:
    model = lens_model(Pixelated(PIXEL_SCALE))
    return small_survey().draw(model, stamps()[index], [7, index], f"small {index}")


@functools.cache
def two_fits() -> tuple[list[Fit], list[int]]:
    """Of two lenses by one `Fitter`, and how often the search had been traced after each."""
    fitter = Fitter(lens_model(Sersic()), SETTINGS, crop=False)
    fits, traces = [], []
    for index in range(2):
        fits.append(fitter.fit(small_mock(index).observation, seed=index))
        programs = [*fitter._compiled.coarse._programs.values(), *fitter._compiled.light._programs.values()]
        traces.append(sum(program.experimental_get_tracing_count() for program in programs))
    return fits, traces


class TestMocks:
    def test_follow_from_seed_and_index(self):
        first, again = (draw_mock(stamps(), PIXEL_SCALE, 3, 1) for _ in range(2))
        other = draw_mock(stamps(), PIXEL_SCALE, 3, 2)
        np.testing.assert_array_equal(first.observation.image, again.observation.image)
        assert first.parameters == again.parameters
        assert (first.stamp != other.stamp).any()

    def test_noise_and_signal_are_as_stated(self):
        mock = small_mock(0)
        observation = mock.observation
        signal = mock.arcs.max()
        assert 30 <= signal <= 40
        assert observation.noise.min() >= np.sqrt(Survey.sky)
        corner = (observation.image / observation.noise)[:6, :6]
        assert abs(corner.std() - 1) < 4 / np.sqrt(2 * corner.size)

    def test_flux_and_magnification_are_those_of_the_arcs(self):
        mock = small_mock(1)
        assert mock.arcs.sum() == pytest.approx(mock.flux * mock.magnification, rel=1e-9)
        assert mock.magnification > 1

    def test_an_unlensed_source_keeps_its_flux(self):
        model = lens_model(Pixelated(PIXEL_SCALE))
        unlensed = type(model)([], model.lens_light, model.sources)
        mock = small_survey().draw(unlensed, stamps()[0], 1)
        assert mock.magnification == pytest.approx(1, abs=0.02)  # a little of it lies outside of the stamp's pixels

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"peak_snr": (20.0, 10.0)}, "peak_snr must be two ascending positive numbers"),
            ({"lens_flux": (0.0, 1.0)}, "lens_flux must be two ascending positive numbers"),
            ({"sky": 0.0}, r"sky must lie in \(0, 1\]"),
        ],
    )
    def test_impossible_surveys_are_refused(self, settings, message):
        with pytest.raises(ParameterError, match=message):
            Survey(PixelGrid((4, 5), 0.1), np.ones((1, 1)), **settings)

    def test_images_are_those_of_a_survey(self):
        assert draw_mock(stamps(), PIXEL_SCALE, 3, 0).observation.image.shape == survey().grid.shape == (52, 54)


class TestFitter:
    def test_a_second_lens_of_one_shape_compiles_nothing_again(self):
        _, (after_one, after_two) = two_fits()
        assert after_one == after_two > 0

    def test_each_fit_is_of_its_own_lens(self):
        fits, _ = two_fits()
        for index, fit in enumerate(fits):
            truth = small_mock(index).parameters["lens.theta_E"]
            assert np.median(fit.posterior.draws("lens.theta_E")) == pytest.approx(truth, rel=0.05)

    def test_target_has_the_data_of_its_fit_again(self):
        for fit in two_fits()[0]:
            np.testing.assert_array_equal(fit.target.image, fit.observation.image)
            np.testing.assert_array_equal(fit.target.mask, fit.mask)
            score = fit.target.log_prob(tf.constant(fit.optimum.u[:1])).numpy()
            np.testing.assert_allclose(score, fit.optimum.log_prob[:1], rtol=1e-5)

    def test_sampling_is_fine_enough_for_the_second_lens_too(self):
        fit = two_fits()[0][1]
        assert fit.target.rendering_error(fit.optimum.u[:1]) < 0.2  # 0.1 where the search ended

    def test_another_psf_is_refused_by_a_compiled_target(self):
        fit = two_fits()[0][0]
        other = type(fit.observation)(fit.observation.image, fit.observation.noise, np.ones((3, 3)) / 9, 0.16)
        assert not fit.target.suits(other)
        with pytest.raises(ParameterError, match=r"another PSF, or white noise .*: make a new LensTarget"):
            fit.target.observe(other)


class TestCompare:
    def test_of_a_real_fit(self):
        fit, mock = two_fits()[0][0], small_mock(0)
        result = json.loads(json.dumps(compare(mock, fit)))
        assert set(result["parameters"]) == set(MASS)
        for name, found in result["parameters"].items():
            assert found["truth"] == mock.parameters[name]
            assert found["rank"] == np.mean(fit.posterior.draws(name) < found["truth"])
        assert result["checks"] == {finding.name: finding.level for finding in check(fit)}
        # An exponential disk as a Sersic profile: what is left is noise, and an unconverged chain.
        assert result["source"]["error"] < 0.3
        assert abs(result["source"]["flux"]) < 0.2
        assert abs(result["source"]["r50"]) < 0.2


def results(n: int, width: float = 1.0, bias: float = 0.0, seed: int = 0) -> list[dict]:
    """Of fits whose posteriors are Gaussian, `width` times as wide as their errors, and biased by `bias` of them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        parameters = {}
        for name in MASS:
            truth, error = 1.0 if name == "lens.theta_E" else 0.1, 0.002
            median = truth + error * (bias + rng.standard_normal())
            rank = float(stats.norm.cdf((truth - median) / (width * error)))
            parameters[name] = {"truth": truth, "median": median, "std": width * error, "rank": rank, "r_hat": 1.0}
        source = {"error": 0.1, "flux": 0.05, "r50": -0.05}
        rest = {"chi2_arcs": 1.0, "max_r_hat": 1.02, "min_ess": 400.0, "latent_norm": 1.0}
        found.append({"parameters": parameters, "source": source, **rest, "seconds": 60.0, "gradients": 1000})
    return found


def values(found: list[dict]) -> dict[str, float]:
    return {record["figure"]: record["value"] for record in figures(found)}


class TestFigures:
    def test_honest_posteriors_are_found_honest(self):
        n = 400
        found = values(results(n))
        for name in MASS:
            assert abs(found[f"{name}: mean of z"]) < 4 / np.sqrt(n)
            assert abs(found[f"{name}: standard deviation of z"] - 1) < 4 / np.sqrt(2 * n)
            assert found[f"{name}: p-value of uniform ranks"] > 1e-4
        for level in (0.68, 0.95):
            error = np.sqrt(level * (1 - level) / (n * len(MASS)))
            assert abs(found[f"truths in the {level:.0%} interval, all of these"] - level) < 4 * error

    def test_posteriors_of_half_the_width_are_seen(self):
        found = values(results(100, width=0.5))
        assert found["lens.e1: standard deviation of z"] > 1.5
        assert found["lens.e1: p-value of uniform ranks"] < 1e-3
        assert found["truths in the 68% interval, all of these"] < 0.5

    def test_a_bias_of_half_a_sigma_is_seen(self):
        assert values(results(400, bias=0.5))["shear.gamma1: mean of z"] == pytest.approx(0.5, abs=4 / 20)

    def test_every_mock_counts(self):
        found = results(20)
        found[3]["parameters"]["lens.theta_E"]["median"] = 1.2
        found[4]["parameters"]["shear.gamma2"]["r_hat"] = float("nan")
        found[5]["chi2_arcs"] = None
        assert [failed(each) for each in found].count(True) == 2
        assert values(found)["failures: theta_E off by 5 %, or R-hat of the mass above 1.05"] == 0.1
        assert values(found)["theta_E off by 5 %"] == 0.05

    def test_figure_draws_every_parameter(self):
        figure = calibration_figure(results(30))
        assert len([axes for axes in figure.axes if axes.get_title()]) == len(MASS) + 1


class TestCommand:
    @pytest.fixture
    def told(self, monkeypatch, tmp_path):
        """`tflens calibrate` of 20 fits with a Sersic source that are made up, one of them a failure."""
        found = results(20)
        found[3]["parameters"]["lens.theta_E"]["median"] = 1.2
        for index, each in enumerate(found):
            each |= {"name": f"mock {index}", "chi2": 1.0, "commit": "abc"}
        stamps_given = ("prior", stamps(), PIXEL_SCALE)
        monkeypatch.setattr(cli_calibrate, "_stamps", lambda *_: stamps_given)
        monkeypatch.setattr(cli_calibrate, "_result", lambda *arguments: found[arguments[-1]])
        (tmp_path / "run").mkdir()
        arguments = ["calibrate", "--run", str(tmp_path / "run"), "--n", "20", "--source", "sersic"]
        return CliRunner().invoke(app, arguments), tmp_path / "run"

    def test_prints_every_figure_and_the_failures_by_name(self, told):
        outcome, _ = told
        assert outcome.exit_code == 0, outcome.output
        for figure in values(results(20)):
            assert figure in outcome.stdout
        failures = [line for line in outcome.stdout.splitlines() if line.startswith("failed:")]
        assert len(failures) == 1
        assert "mock 3:" in failures[0]

    def test_writes_records_that_can_be_repeated(self, told):
        _, run = told
        for record in json.loads((run / "fits.json").read_text()):
            assert record["variant"] == "prior sources, fitted with a Sersic profile"
            assert (record["n"], record["seed"], record["commit"]) == (20, 1, "abc")
            assert record["command"] == "tflens calibrate --n 20 --seed 1 --source sersic"
        assert (run / "prior-sersic-1.png").stat().st_size > 10_000

    def test_two_kinds_of_sources_at_once_are_refused(self, tmp_path):
        both = ["calibrate", "--run", str(tmp_path), "--data", "a", "--real", "b"]
        outcome = CliRunner().invoke(app, both)
        assert outcome.exit_code == 2
        assert "not both" in outcome.output

    def test_a_finished_mock_is_not_fitted_again_unless_the_model_has_changed(self, tmp_path):
        class Refuses:
            model, settings = lens_model(Sersic()), SETTINGS

            def fit(self, *_, **__):
                raise AssertionError("fitted again")

        file = tmp_path / "0.json"
        made_with = json.loads(json.dumps({"model": describe_model(Refuses.model), "settings": asdict(SETTINGS)}))
        file.write_text(json.dumps({"made_with": made_with, "kept": 1}))
        arguments = (file, Refuses(), stamps(), PIXEL_SCALE, 1, 0)
        assert cli_calibrate._result(*arguments)["kept"] == 1
        file.write_text(json.dumps({"made_with": {}}))
        with pytest.raises(ParameterError, match="of another model or other settings"):
            cli_calibrate._result(*arguments)
