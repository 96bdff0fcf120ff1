"""Several bands of one lens: what is shared is one, what is not is each band's, and together they know more."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.bands import LATENTS, BandsModel, BandsTarget
from tflens.errors import ParameterError
from tflens.inference.bands import fit_bands
from tflens.inference.optimize import gauss_newton, least_squares_objective
from tflens.inference.settings import FitSettings
from tflens.light import Exponential, Sersic
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation
from tflens.parameters import normal

PLACE = ("source.center_x", "source.center_y")
SHAPE, SCALE = (17, 15), 0.2  # of the second band


def models() -> dict[str, LensModel]:
    red = tiny_lens.model(tiny_lens.Blobs())
    return {"red": red, "blue": LensModel(red.lens, [Exponential()], [tiny_lens.Blobs()], dtype="float64", sky=False)}


@functools.cache
def target() -> BandsTarget:
    model = BandsModel(models(), shared=PLACE)
    blue = tiny_lens.blank(psf=tiny_lens.DELTA, shape=SHAPE, scale=SCALE)
    observations = {"blue": blue, "red": tiny_lens.observation()}
    return BandsTarget(model, {band: LensTarget(model.models[band], seen) for band, seen in observations.items()})


def points(n: int, seed: int = 0, width: float = 0.3) -> np.ndarray:
    return width * np.random.default_rng(seed).normal(size=(n, target().model.dim))


class TestModel:
    def test_names_and_places(self):
        model = target().model
        of_lens = [f"lens.{name}" for name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")]
        assert model.names[:8] == (*of_lens, "shear.gamma1", "shear.gamma2")
        assert model.names[8:10] == PLACE
        assert "red.light.n_sersic" in model.names
        assert "blue.source.scale" in model.names
        assert [name for name in model.names if name.endswith(PLACE)] == list(PLACE)
        assert model.dim == len(model.names) + 2 * 3

    def test_every_band_sees_the_shared_values_and_its_own(self):
        model, u = target().model, points(1)[0]
        values = {band: each.physical(model.of_band(band, tf.constant(u))) for band, each in model.models.items()}
        for name in model.shared:
            assert values["red"][name] == values["blue"][name]
        assert values["red"]["source.scale"] != values["blue"]["source.scale"]
        used = np.concatenate(list(model.indices.values()))
        assert set(used) == set(range(model.dim))

    def test_join_undoes_of_band(self):
        model, u = target().model, points(4)
        again = model.join({band: model.of_band(band, u).numpy() for band in model.models})
        np.testing.assert_array_equal(again, u)

    def test_latents_may_be_shared(self):
        model = BandsModel(models(), shared=[*PLACE, LATENTS])
        assert model.dim == len(model.names) + 3
        for indices in model.indices.values():
            np.testing.assert_array_equal(indices[-3:], len(model.names) + np.arange(3))

    @pytest.mark.parametrize(
        ("change", "shared", "words"),
        [
            (
                {"priors": {"lens.gamma": normal(2.0, 0.05)}},
                (),
                "priors of 'lens.gamma', which is shared, differ between red and",
            ),
            (
                {"priors": {"source.center_x": 0.0}},
                PLACE,
                "'source.center_x' is to be shared, but is no free parameter of blue",
            ),
            ({"lens": []}, (), "blue must have the mass profiles"),
            ({"source": Sersic()}, (LATENTS,), "can be shared by equal sources alone"),
        ],
    )
    def test_what_cannot_be_shared_is_refused(self, change, shared, words):
        red = tiny_lens.model(tiny_lens.Blobs())
        settings = {"lens": red.lens, "lens_light": [Sersic()], "source": tiny_lens.Blobs(), "dtype": "float64"}
        with pytest.raises(ParameterError, match=words):
            BandsModel({"red": red, "blue": LensModel(**settings | change)}, shared)

    def test_no_band_is_refused(self):
        with pytest.raises(ParameterError, match="one band or more"):
            BandsModel({})


class TestTarget:
    def test_likelihoods_add_up_and_the_prior_counts_once(self):
        u = tf.constant(points(3))
        model = target().model
        value, gradient = target().value_and_gradient(u)
        parts = [each.log_likelihood(model.of_band(band, u)) for band, each in target().targets.items()]
        np.testing.assert_allclose(value, sum(parts) - 0.5 * tf.reduce_sum(u**2, -1), rtol=1e-12)
        np.testing.assert_allclose(value, target().log_likelihood(u) + target().log_prior(u), rtol=1e-12)
        for direction in np.eye(model.dim)[::3]:
            ends = [target().value_and_gradient(u + 1e-5 * sign * direction)[0].numpy() for sign in (1, -1)]
            found = gradient.numpy() @ direction
            np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-5, atol=1e-5 * np.abs(gradient).max())

    def test_log_prob_has_that_gradient(self):
        u = tf.constant(points(2, seed=4))
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = target().log_prob(u)
        expected = target().value_and_gradient(u)
        np.testing.assert_allclose(value, expected[0], rtol=1e-14)
        np.testing.assert_allclose(tape.gradient(value, u), expected[1], rtol=1e-12)

    def test_tempering_leaves_the_prior_alone(self):
        u = tf.constant(points(2, seed=5))
        value, gradient = target().value_and_gradient(u, 0.0)
        np.testing.assert_allclose(value, target().log_prior(u), rtol=1e-12)
        np.testing.assert_allclose(gradient, -u, rtol=1e-12, atol=1e-14)

    @pytest.mark.slow
    def test_gauss_newton_is_the_system_of_the_objective(self):
        u = points(1, seed=1)[0]
        system = gauss_newton(target(), tf.constant(u))
        point = tf.constant(u[None])
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = least_squares_objective(target(), point)
        gradient = tape.gradient(value, point)[0]
        np.testing.assert_allclose(system.objective, value[0], rtol=1e-10)
        np.testing.assert_allclose(system.gradient, gradient / 2, rtol=0, atol=1e-7 * np.abs(gradient).max())
        np.testing.assert_allclose(system.curvature, tf.transpose(system.curvature), rtol=1e-9, atol=1e-9)

    @pytest.mark.slow
    def test_two_bands_know_the_mass_better_than_either(self):
        u = points(1, seed=1)[0]
        joint = np.linalg.inv(gauss_newton(target(), tf.constant(u)).curvature)
        model = target().model
        for band, each in target().targets.items():
            alone = np.linalg.inv(gauss_newton(each, model.of_band(band, tf.constant(u))).curvature)
            for i, name in enumerate(model.shared[:8]):
                place = model.models[band].names.index(name)
                assert joint[i, i] < alone[place, place]

    def test_wrong_bands_are_refused(self):
        with pytest.raises(ParameterError, match=r"target for each of \['red', 'blue'\], got \['red'\]"):
            BandsTarget(target().model, {"red": target().targets["red"]})


class TestFit:
    def test_errors(self):
        model = BandsModel(models())
        with pytest.raises(ParameterError, match="observation in each of"):
            fit_bands({"red": tiny_lens.observation()}, model)
        bare = {band: LensModel(lens_light=[Sersic()]) for band in "ab"}
        with pytest.raises(ParameterError, match="model of a one"):
            fit_bands(dict.fromkeys("ab", tiny_lens.observation()), BandsModel(bare))

    @pytest.mark.slow
    def test_truth_is_found_in_two_bands_of_different_pixels(self):
        """The second band has larger pixels, less light of the lens, and another source."""
        truth = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE
        shared = [*PLACE, "light.center_x", "light.center_y"]
        wide = LensModel([*tiny_lens.model().lens], [Sersic()], Sersic())
        model = BandsModel({"red": wide, "blue": wide}, shared)
        seen = {}
        for band, shape, scale, change in (
            ("red", tiny_lens.SHAPE, tiny_lens.PIXEL_SCALE, {}),
            ("blue", SHAPE, SCALE, {"source.R_sersic": 0.3, "light.n_sersic": 1.5}),
        ):
            clean = LensTarget(tiny_lens.model(), tiny_lens.blank(shape=shape, scale=scale), None, 4)
            u = tf.constant(tiny_lens.model().base(truth | change)[None])
            image = clean.component_images(u, tf.constant([tiny_lens.AMPLITUDES], tf.float64)).numpy()[0].sum(0)
            noise = np.full(shape, tiny_lens.NOISE)
            image = image + np.random.default_rng(3).normal(0, noise)
            seen[band] = Observation(image, noise, tiny_lens.PSF, scale)
        found = fit_bands(seen, model, FitSettings(starts=24, survivors=4, chains=4, warmup=80, draws=100))
        for fit in found.fits.values():
            row = next(row for row in fit.posterior.table() if row.name == "lens.theta_E")
            assert abs(row.median - truth["lens.theta_E"]) < 4 * (row.high - row.low) / 2
            assert row.median == pytest.approx(truth["lens.theta_E"], rel=0.01)
            assert 0.8 < fit.best.chi2 < 1.2
        draws = [fit.posterior.draws("lens.theta_E") for fit in found.fits.values()]
        np.testing.assert_array_equal(*draws)
        radii = [np.median(fit.posterior.draws("source.R_sersic")) for fit in found.fits.values()]
        assert radii[0] == pytest.approx(0.2, rel=0.2)
        assert radii[1] == pytest.approx(0.3, rel=0.2)
