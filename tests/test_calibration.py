"""Mocks, the figures that are counted over many fits of them, and fits that share what is compiled."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from calibrate_stub import made_up
from scipy import stats
from traces import counted_traces

from tflens.calibration_figure import calibration_figure
from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.grid import PixelGrid
from tflens.inference.calibration import (
    MASS,
    chosen_stamp,
    compare,
    draw_mock,
    failed,
    figures,
    reasons,
    thinned_rank,
    uniform_ranks,
)
from tflens.inference.check import check
from tflens.inference.gain import gains
from tflens.inference.mock_lenses import lens_model, survey
from tflens.inference.mocks import Mock, Survey
from tflens.inference.pipeline import Fit, Fitter
from tflens.inference.settings import FitSettings
from tflens.light import Pixelated, Sersic

PIXEL_SCALE = 0.06
SETTINGS = FitSettings(starts=4, search_steps=24, survivors=2, polish_steps=8, chains=2, warmup=40, draws=30, rounds=1)


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


def drawn(seed: int, index: int) -> Mock:
    """Of the survey of calibrations."""
    return draw_mock(Pixelated(PIXEL_SCALE), chosen_stamp(stamps(), seed, index), seed, index)


@functools.cache
def fitted_in_turn() -> tuple[list[Fit], list[int], list[int]]:
    """Of two lenses by one `Fitter`, then of the first again; and the graphs traced until each ended, in all and of the
    search."""
    fitter = Fitter(lens_model(Sersic()), SETTINGS, crop=False)
    fits, traces, of_search = [], [], []
    with counted_traces() as traced:
        for index in (0, 1, 0):
            fits.append(fitter.fit(small_mock(index).observation, seed=index))
            traces.append(len(traced))
            programs = [*fitter._compiled.coarse._programs.values(), *fitter._compiled.light._programs.values()]
            of_search.append(sum(program.experimental_get_tracing_count() for program in programs))
    return fits, traces, of_search


def two_fits() -> list[Fit]:
    return fitted_in_turn()[0][:2]


class TestMocks:
    def test_follow_from_seed_and_index(self):
        first, again, other = (drawn(3, index) for index in (1, 1, 2))
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
        assert drawn(3, 0).observation.image.shape == survey().grid.shape == (52, 54)


class TestFitter:
    def test_a_second_lens_of_one_shape_is_sought_by_the_same_programs(self):
        _, _, (after_one, after_two, _) = fitted_in_turn()
        assert after_one == after_two > 0

    def test_a_lens_whose_programs_are_there_traces_nothing_and_owes_nothing_to_those_before_it(self):
        (first, between, again), traces, _ = fitted_in_turn()
        assert (first.refine != between.refine).any()
        assert 0 < traces[1] == traces[2]
        np.testing.assert_array_equal(again.posterior.data.posterior["u"], first.posterior.data.posterior["u"])

    def test_each_fit_is_of_its_own_lens(self):
        for index, fit in enumerate(two_fits()):
            truth = small_mock(index).parameters["lens.theta_E"]
            assert np.median(fit.posterior.draws("lens.theta_E")) == pytest.approx(truth, rel=0.05)

    def test_target_has_the_data_of_its_fit_again(self):
        for fit in two_fits():
            np.testing.assert_array_equal(fit.target.image, fit.observation.image)
            np.testing.assert_array_equal(fit.target.mask, fit.mask)
            score = fit.target.log_prob(tf.constant(fit.optimum.u[:1])).numpy()
            np.testing.assert_allclose(score, fit.optimum.log_prob[:1], rtol=1e-5)
            np.testing.assert_array_equal(fit.target.refine, fit.refine)

    def test_sampling_is_fine_enough_for_the_second_lens_too(self):
        fit = two_fits()[1]
        assert fit.target.rendering_error(fit.optimum.u[:1]) < 0.2  # 0.1 where the search ended

    def test_another_psf_is_refused_by_a_compiled_target(self):
        fit = two_fits()[0]
        other = type(fit.observation)(fit.observation.image, fit.observation.noise, np.ones((3, 3)) / 9, 0.16)
        assert not fit.target.suits(other)
        with pytest.raises(ParameterError, match=r"another PSF, or white noise .*: make a new LensTarget"):
            fit.target.observe(other)


class TestCompare:
    def test_of_a_real_fit(self):
        fit, mock = two_fits()[0], small_mock(0)
        result = json.loads(json.dumps(compare(mock, fit)))
        assert set(result["parameters"]) == set(MASS)
        for name, found in result["parameters"].items():
            assert found["truth"] == mock.parameters[name]
            assert found["rank"] == np.mean(fit.posterior.draws(name) < found["truth"])
            below, of = found["sbc"]
            assert 0 <= below <= of <= 60
            assert of >= min(found["ess"], 60) / 2  # whole steps of each chain
        assert result["checks"] == {finding.name: finding.level for finding in check(fit)}
        # An exponential disk as a Sersic profile: what is left is noise, and an unconverged chain.
        assert result["source"]["error"] < 0.3
        assert abs(result["source"]["flux"]) < 0.2
        assert abs(result["source"]["r50"]) < 0.2


def results(n: int, width: float = 1.0, bias: float = 0.0, seed: int = 0) -> list[dict]:
    """Of fits whose posteriors are Gaussian, `width` times as wide as their errors, and biased by `bias` of them."""
    rng = np.random.default_rng(seed)
    return [made_up(rng, width, bias) for _ in range(n)]


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
        found = values(results(200, width=0.5))
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

    def test_a_mock_without_a_fit_is_a_failure_and_no_other_figure(self):
        found = results(20)
        cut = [*found[:15], *({"no_fit": "the process was ended by SIGKILL"} for _ in range(5))]
        assert failed(cut[-1])
        everything, of_fits = values(cut), values(found[:15])
        for figure, value in everything.items():
            shares = {"failures: theta_E off by 5 %, or R-hat of the mass above 1.05", "theta_E off by 5 %"}
            shares.add("R-hat of anything above 1.05, latents included")
            assert value == (0.25 if figure in shares else of_fits[figure])
        assert {record["fits"] for record in figures(cut)} == {15}
        assert [record["value"] for record in figures(cut[-5:])] == [1.0, 1.0, 1.0]

    def test_failures_have_reasons(self):
        (good, wrong, torn, lost) = results(4)
        wrong["parameters"]["lens.theta_E"]["median"] = 0.9 * wrong["parameters"]["lens.theta_E"]["truth"]
        torn["parameters"]["lens.e1"]["r_hat"], torn["parameters"]["shear.gamma1"]["r_hat"] = 1.1, 1.2
        lost["parameters"]["lens.theta_E"]["median"] = float("nan")
        assert reasons(good) == []
        assert reasons(wrong) == ["theta_E off by -10.0%"]
        assert reasons(torn) == ["R-hat 1.200 of shear.gamma1 and of 1 more"]
        assert failed(lost)

    def test_gain_is_that_of_the_same_lenses(self):
        flow, other = results(30), results(30)
        for each in other:
            theta_E = each["parameters"]["lens.theta_E"]
            theta_E["median"] = theta_E["truth"] + 3 * (theta_E["median"] - theta_E["truth"])
            each["chi2_arcs"] = 1.5
        f1, f3 = gains({"flow": flow, "normal": other})
        assert (f1["id"], f1["over"], f1["fits"]) == ("F6", "normal", 30)
        # Every lens is off by three times as much, however lenses are resampled.
        np.testing.assert_allclose([f1["value"], *f1["spread"]], 3.0, rtol=1e-9)
        np.testing.assert_allclose([f3["value"], *f3["spread"]], 1.5, rtol=1e-9)
        flow[3] = {"no_fit": "lost"}
        assert gains({"flow": flow, "normal": other})[0]["fits"] == 29
        assert gains({"normal": other, "sersic": other}) == []


class TestRanks:
    def posteriors(self, n: int, correlation: float) -> tuple[list[float], list[list[int]]]:
        """Ranks among all draws, and `thinned_rank`, of honest posteriors whose chains are autoregressive."""
        rng = np.random.default_rng(4)
        draws = rng.standard_normal((n, 4, 200))
        for i in range(1, 200):
            draws[..., i] = correlation * draws[..., i - 1] + np.sqrt(1 - correlation**2) * draws[..., i]
        ess = 800 * (1 - correlation) / (1 + correlation)
        truth = rng.standard_normal(n)
        return (
            [float(np.mean(each < t)) for each, t in zip(draws, truth, strict=True)],
            [thinned_rank(each, t, ess) for each, t in zip(draws, truth, strict=True)],
        )

    def test_thinned_ranks_of_honest_chains_are_uniform_where_ranks_of_all_draws_are_not(self):
        n = 4000
        plain, thinned = self.posteriors(n, 0.95)
        below, of = np.array(thinned).T
        assert set(of) == {24}  # 800 draws are worth 20, every 39th of 200: 6 of each of 4 chains
        counts = np.bincount(below, minlength=25)
        assert stats.chisquare(counts).pvalue > 1e-3
        at_the_ends = np.mean([rank in (0.0, 1.0) for rank in plain])
        assert at_the_ends > 3 * 2 / 801  # three times as often as among 800 independent draws

    def test_ranks_are_spread_over_their_steps(self):
        found = results(500)
        for each in found:
            for parameter in each["parameters"].values():
                parameter["sbc"] = [int(parameter["rank"] * 4), 3]  # honest ranks among three draws
        ranks = uniform_ranks(found)
        assert ranks.shape == (500, len(MASS))
        assert ((ranks > 0) & (ranks < 1)).all()
        for i, name in enumerate(MASS):
            assert stats.kstest(ranks[:, i], "uniform").pvalue > 1e-4
            steps = [each["parameters"][name]["sbc"][0] for each in found]
            np.testing.assert_array_equal(np.floor(ranks[:, i] * 4), steps)
        np.testing.assert_array_equal(uniform_ranks(found), ranks)


class TestFigure:
    def panels(self, found: list[dict]) -> dict[str, object]:
        figure = calibration_figure(found, "a test")
        figure.draw_without_rendering()
        return {axes.get_title().split(":  p")[0]: axes for axes in figure.axes}

    def test_draws_every_parameter_coverage_z_and_errors(self):
        panels = self.panels(results(30))
        assert len(panels) == len(MASS) + 3

    def test_bars_count_all_mocks_with_fits(self):
        found = [*results(40), {"no_fit": "lost"}]
        assert sum(bar.get_height() for bar in self.panels(found)["$e_1$"].patches[1:]) == 40

    def test_what_chance_does_not_do_is_orange(self):
        orange = (0xD9 / 255, 0x5F / 255, 0x02 / 255, 1.0)

        def orange_bars(found: list[dict]) -> int:
            return sum(bar.get_facecolor() == orange for bar in self.panels(found)["$e_2$"].patches)

        assert orange_bars(results(200, width=0.4)) >= 2
        assert orange_bars(results(200)) <= 1

    @pytest.mark.parametrize("found", [results(1), [{"no_fit": "lost"}] * 2], ids=["one mock", "no fit"])
    def test_of_next_to_nothing(self, found):
        assert "coverage of all seven" in self.panels(found)


class TestPrior:
    def test_mocks_of_the_prior_place_the_galaxy_as_the_fit_does(self):
        source = NeuralSource()
        first, again = (draw_mock(source, None, 3, 0) for _ in range(2))
        np.testing.assert_array_equal(first.observation.image, again.observation.image)
        assert first.source is source
        assert first.stamp.shape == (64, 64)
        assert first.arcs.sum() == pytest.approx(first.flux * first.magnification, rel=1e-6)
