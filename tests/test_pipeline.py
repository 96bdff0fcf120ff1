"""A whole fit of a synthetic lens, and what surrounds it."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy import ndimage
from small_fit import BAD, SETTINGS, THETA_E, observation, small_fit

from tflens.errors import ParameterError
from tflens.inference.initial import Glance, smooth_noise
from tflens.inference.map import draw_starts, polish, search
from tflens.inference.mock_lenses import lens_model
from tflens.inference.pipeline import Fitter, arc_mask, find_neighbours, fit
from tflens.inference.progress import STAGES, Status
from tflens.inference.settings import FitSettings
from tflens.light import Sersic
from tflens.model import Evaluation, LensModel, LensTarget
from tflens.observation import Observation

SHARED_LENSES = (
    "EuclidQ1_102018665_NEG570040238507752998",
    "SL2SJ0219-0829_F475X",
    "SL2SJ0219-0829_F600LP",
    "SLACSJ0252+0039",
    "SLACSJ0728+3835",
)


class TestSettings:
    @pytest.mark.parametrize("value", [True, 3.0, "3", None, np.nan, -1])
    @pytest.mark.parametrize("name", ["seed", "starts", "draws"])
    def test_what_is_no_integer_is_refused(self, name, value):
        with pytest.raises(ParameterError, match=rf"FitSettings.{name} must be an integer >= \d+, got"):
            FitSettings(**{name: value})

    @pytest.mark.parametrize(
        ("name", "least"),
        [
            ("starts", 1),
            ("search_steps", 12),
            ("survivors", 1),
            ("polish_steps", 1),
            ("chains", 2),
            ("warmup", 40),
            ("draws", 20),
            ("supersampling", 1),
        ],
    )
    def test_bounds(self, name, least):
        assert getattr(FitSettings(**{name: least}), name) == least
        with pytest.raises(ParameterError, match=rf"{name} must be an integer >= {least}, got {least - 1}"):
            FitSettings(**{name: least - 1})


class TestFit:
    def test_truth_is_found(self):
        fit = small_fit().fit
        row = next(row for row in fit.posterior.table() if row.name == "lens.theta_E")
        assert row.median == pytest.approx(THETA_E, rel=0.02)
        assert abs(row.median - THETA_E) < 4 * (row.high - row.low) / 2

    def test_residuals_are_noise(self):
        found = small_fit().fit.diagnostics()
        # Four standard deviations of a mean of squares of unit normals.
        assert abs(found["chi2"] - 1) < 4 * np.sqrt(2 / found["used_pixels"])
        assert abs(found["chi2_arcs"] - 1) < 4 * np.sqrt(2 / found["arc_pixels"])

    def test_bad_pixels_are_left_out(self):
        fit = small_fit().fit
        used = np.zeros(fit.observation.mask.shape, bool)
        used[fit.look.frame] = fit.target.mask
        assert not used[BAD].any()
        assert fit.diagnostics()["used_pixels"] == used.sum()

    def test_monitor_hears_every_stage_in_order(self):
        stages = [status.stage for status in small_fit().heard]
        assert tuple(dict.fromkeys(stages)) == STAGES
        for stage in ("search", "warm-up", "sampling"):
            fractions = [status.fraction for status in small_fit().heard if status.stage == stage]
            assert fractions == sorted(fractions)
            assert fractions[-1] == 1.0

    def test_optimum_is_sorted_and_no_lower_than_where_the_search_ended(self):
        fit = small_fit().fit
        assert (np.diff(fit.optimum.log_prob) <= 0).all()
        score = fit.target.log_prob(tf.constant(fit.optimum.u)).numpy()
        np.testing.assert_allclose(fit.optimum.log_prob, score, rtol=1e-5)
        searched = [status for status in small_fit().heard if status.stage == "search"][-1]
        assert fit.optimum.log_prob[0] > fit.target.log_prob(tf.constant(searched.points[:1])).numpy()[0]

    def test_model_without_a_source_is_refused_at_once(self):
        heard: list[Status] = []
        with pytest.raises(ParameterError, match="cannot be fitted without a source"):
            fit(small_fit().fit.observation, LensModel(), monitor=heard.append)
        assert not heard


class TestTogether:
    SETTINGS = FitSettings(**{**SETTINGS, "starts": 6, "search_steps": 48})

    @staticmethod
    def observations() -> list[Observation]:
        """A lens, and its mirror image with more noise."""
        first = observation()
        rng = np.random.default_rng(8)
        image = first.image[:, ::-1] + rng.normal(0, 0.04, first.image.shape)
        noise = np.full(image.shape, 0.05)
        mirrored = Observation(image, noise, first.psf, 0.1, mask=first.mask[:, ::-1], name="mirrored")
        return [first, mirrored]

    @pytest.mark.slow
    def test_each_lens_is_found(self):
        fitter = Fitter(lens_model(Sersic()), self.SETTINGS, crop=False)
        fits = fitter.fit_together(self.observations())
        assert [fit.observation.name for fit in fits] == ["small lens", "mirrored"]
        for each in fits:
            assert np.median(each.posterior.draws("lens.theta_E")) == pytest.approx(THETA_E, rel=0.02)
            assert abs(each.best.chi2 - 1) < 5 * np.sqrt(2 / each.mask.sum())
            # Of either the target has its own data again when it is asked for.
            score = each.target.log_prob(tf.constant(each.optimum.u[:1])).numpy()
            np.testing.assert_allclose(score, each.optimum.log_prob[:1], rtol=1e-4)
        e1, mirrored = (np.median(fit.posterior.draws("lens.e1")) for fit in fits)
        assert e1 == pytest.approx(mirrored, abs=0.05)
        assert fits[0].posterior.draws("source.center_x").mean() > 0.03
        assert fits[1].posterior.draws("source.center_x").mean() < -0.03

    def test_what_cannot_be_fitted_together_is_refused(self):
        with pytest.raises(ParameterError, match="needs crop=False and the sampler hmc"):
            Fitter(lens_model(Sersic()), self.SETTINGS).fit_together(self.observations())
        first = observation()
        smaller = Observation(first.image[:30], first.noise[:30], first.psf, 0.1, name="smaller")
        with pytest.raises(ParameterError, match="'smaller' differs from the lenses before it in shape"):
            Fitter(lens_model(Sersic()), self.SETTINGS, crop=False).fit_together([first, smaller])


class TestStarts:
    LOOK = Glance(
        center=(0.06, -0.03),
        radii=np.array([0.5, 0.8]),
        weights=np.array([0.0, 1.0]),
        mask=np.ones(tiny_lens.SHAPE, bool),
        frame=(slice(None), slice(None)),
        light={"light.R_sersic": 0.4, "light.center_x": 0.06, "light2.R_sersic": 9.0},
        excess=np.zeros(tiny_lens.SHAPE),
    )

    def starts(self, n: int, seed: int = 0) -> np.ndarray:
        return draw_starts(tiny_lens.model(), self.LOOK, n, np.random.default_rng(seed))

    def test_scatter_around_the_arcs_and_the_light(self):
        u = self.starts(400)
        assert (u.shape, u.dtype) == ((400, 20), np.float64)
        physical = {name: value.numpy() for name, value in tiny_lens.model().physical(tf.constant(u)).items()}
        ratio = np.log(physical["lens.theta_E"] / 0.8)
        assert ratio.mean() == pytest.approx(0, abs=4 * 0.15 / 20)
        assert 0.13 < ratio.std() < 0.18
        np.testing.assert_allclose(np.log(physical["light.R_sersic"] / 0.4).mean(), 0, atol=0.01)
        # What the look does not know scatters by half the prior.
        assert u[:, tiny_lens.model().names.index("source.center_y")].std() == pytest.approx(0.5, rel=0.15)

    @pytest.mark.slow
    def test_search_and_polish_repeat_themselves(self):
        def run():
            target = tiny_lens.target()
            found = search(target, self.starts(4), 12, 3)
            return found, polish(target, found, 4)

        (found, polished), (found_again, polished_again) = run(), run()
        for first, second in ((found, found_again), (polished, polished_again)):
            np.testing.assert_array_equal(first.u, second.u)
            np.testing.assert_array_equal(first.log_prob, second.log_prob)
        assert found.bad_gradients == 0
        assert found.u.shape == polished.u.shape == (3, 20)
        assert (np.diff(found.log_prob) <= 0).all()
        assert (np.diff(polished.log_prob) <= 0).all()
        assert polished.log_prob[0] > found.log_prob[0]


class TestArcMask:
    def test_arcs_of_the_data_count_even_if_the_model_ignores_them(self):
        target, truth = tiny_lens.target(), tiny_lens.target().evaluate(tiny_lens.truth())
        blind = Evaluation(
            image=truth.lens_light,
            lens_light=truth.lens_light,
            lensed_source=np.zeros_like(truth.image),
            residual=(target.image - truth.lens_light) / target.noise,
            amplitudes=truth.amplitudes * [1, 0, 1],
        )
        arcs = arc_mask(target, blind)
        bright = truth.lensed_source > 5 * target.noise
        assert bright.sum() > 30
        assert arcs[bright].all()
        # And little else: only what the smoothing reaches.
        reach = ndimage.binary_dilation(truth.lensed_source > target.noise, iterations=2)
        assert (arcs & ~reach).sum() <= 0.01 * arcs.size

    def test_arcs_of_the_model_count_even_if_the_data_lack_them(self):
        target, truth = tiny_lens.target(), tiny_lens.target().evaluate(tiny_lens.truth())
        lensed = np.zeros_like(truth.image)
        lensed[3, 5:9] = 2 * tiny_lens.NOISE
        hopeful = Evaluation(target.image + lensed, target.image, lensed, -lensed / target.noise, truth.amplitudes)
        np.testing.assert_array_equal(arc_mask(target, hopeful), lensed > 0)

    def test_unused_pixels_never_count(self):
        mask = np.ones(tiny_lens.SHAPE, bool)
        mask[:, 12:] = False
        target = LensTarget(tiny_lens.model(), tiny_lens.observation().with_mask(mask))
        truth = tiny_lens.target().evaluate(tiny_lens.truth())
        arcs = arc_mask(target, truth)
        assert arcs[:, :12].any()
        assert not arcs[:, 12:].any()


class TestNeighbours:
    BLOB = (17, 21)  # 1.8 arcsec from the lens, whose arcs are at 0.8

    def blob(self, row: int, column: int, peak: float = 0.25) -> np.ndarray:
        y, x = np.mgrid[: tiny_lens.SHAPE[0], : tiny_lens.SHAPE[1]]
        return peak * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 3)

    def target(self, extra: np.ndarray, mask: np.ndarray | None = None) -> LensTarget:
        plain = tiny_lens.observation()
        observation = Observation(plain.image + extra, plain.noise, tiny_lens.PSF, tiny_lens.PIXEL_SCALE, mask=mask)
        return LensTarget(tiny_lens.model(), observation)

    def test_clean_lens_has_none(self):
        assert not find_neighbours(tiny_lens.target(), tiny_lens.truth()).any()

    def test_blob_outside_the_arcs_is_found(self):
        blob = self.blob(*self.BLOB)
        found = find_neighbours(self.target(blob), tiny_lens.truth())
        assert found[blob > 5 * tiny_lens.NOISE].all()
        assert found.sum() < 0.3 * found.size
        lensed = tiny_lens.target().evaluate(tiny_lens.truth()).lensed_source
        assert not found[lensed > 0.5 * lensed.max()].any()

    # FAILS BECAUSE OF A BUG: the margin of three pixels around a neighbour is not kept out of the arcs.
    def test_margin_of_a_blob_takes_no_pixel_of_the_arcs(self):
        target = self.target(self.blob(*self.BLOB))
        found = find_neighbours(target, tiny_lens.truth())
        lensed = target.evaluate(tiny_lens.truth()).lensed_source
        assert np.count_nonzero(found & (lensed > 3 * tiny_lens.NOISE)) == 0

    def test_residual_in_the_arcs_is_none(self):
        # A wrong source leaves strong residuals, all of them near the Einstein radius.
        values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE | {"source.center_x": -0.2}
        target, u = tiny_lens.target(), tiny_lens.model().base(values)
        residual = smooth_noise(target.evaluate(u).residual)
        assert (residual > 5).sum() > 10
        bright = target.evaluate(tiny_lens.truth()).lensed_source > 5 * tiny_lens.NOISE
        assert not (find_neighbours(target, u) & bright).any()

    def test_unused_pixels_are_none(self):
        mask = np.ones(tiny_lens.SHAPE, bool)
        mask[self.BLOB] = False
        found = find_neighbours(self.target(self.blob(*self.BLOB), mask), tiny_lens.truth())
        assert found.any()
        assert not found[self.BLOB]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHARED_LENSES)
def test_published_einstein_radii_of_real_lenses(shared_data, name):
    observation = Observation.from_fits(shared_data / "lenses" / f"{name}.fits")
    row = next(row for row in fit(observation).posterior.table() if row.name == "lens.theta_E")
    assert row.median == pytest.approx(observation.metadata["THETA_E"], rel=0.05)
