"""From base space to the log posterior: round trips, laws of the prior, gradients, frames and masks."""

from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens
from scipy.stats import multivariate_normal, norm

from tflens._tfp import tfd
from tflens.cusp import REACH
from tflens.errors import ParameterError
from tflens.grid import PixelGrid
from tflens.inference.derived import source_fluxes
from tflens.inference.posterior import source_images, source_plane
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated, Sersic
from tflens.mass import EPL
from tflens.model import LensModel, LensTarget
from tflens.observation import Observation


def images(target: LensTarget, u: np.ndarray, amplitudes=tiny_lens.AMPLITUDES) -> np.ndarray:
    return target.component_images(tf.constant(u[None]), tf.constant([amplitudes], tf.float64)).numpy()[0]


# Masks ask nothing of the mass, without which XLA has little to compile.
LIGHT = {name: value for name, value in tiny_lens.TRUTH.items() if name.startswith("light.")}


def unlensed() -> LensModel:
    return LensModel(lens=[], lens_light=[Sersic()], source=Sersic(), dtype="float64")


def unlensed_points() -> tf.Tensor:
    at_truth = unlensed().base(LIGHT)
    return tf.constant(np.stack([at_truth, at_truth + 0.1]))


def noiseless() -> LensTarget:
    return tiny_lens.target(noisy=False)


class TestNames:
    def test_order_is_mass_lens_light_source(self):
        model = LensModel(source=Sersic())
        labels = list(dict.fromkeys(name.split(".")[0] for name in model.names))
        assert labels == ["lens", "shear", "light1", "light2", "source"]
        assert model.names[:8] == (
            *(f"lens.{name}" for name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")),
            *("shear.gamma1", "shear.gamma2"),
        )
        assert model.dim == model.physical_dim == len(model.names) == len(model.units) == 26
        units = dict(zip(model.names, model.units, strict=True))
        assert units["lens.theta_E"] == units["source.R_sersic"] == "arcsec"
        assert units["lens.e2"] == units["shear.gamma1"] == units["light2.n_sersic"] == ""

    def test_all_amplitudes_but_the_sky_are_positive(self):
        model = LensModel(source=Sersic())
        assert model.amplitude_names == ("light1.amp", "light2.amp", "source.amp", "sky.amp")
        assert model.positive == (True, True, True, False)
        bare = LensModel(lens_light=[], source=Sersic(), sky=False)
        assert (bare.amplitude_names, bare.positive) == (("source.amp",), (True,))

    def test_several_lenses_are_numbered(self):
        model = LensModel(lens=[EPL(), EPL()], lens_light=[Sersic()], source=Sersic())
        assert {name.split(".")[0] for name in model.names} == {"lens1", "lens2", "light", "source"}

    def test_latents_come_last_and_have_no_names(self):
        model = tiny_lens.model(tiny_lens.Blobs())
        assert model.dim == len(model.names) + 3
        u = tf.reshape(tf.range(2.0 * model.dim), [2, model.dim])
        np.testing.assert_array_equal(model.latents(u), u[:, -3:])


class TestPriors:
    def test_base_is_the_inverse_of_physical(self):
        model = tiny_lens.model()
        u = np.random.default_rng(0).normal(size=(30, model.dim))
        physical = {name: value.numpy() for name, value in model.physical(tf.constant(u)).items()}
        assert tuple(physical) == model.names
        back = [model.base({name: values[i] for name, values in physical.items()}) for i in range(len(u))]
        np.testing.assert_allclose(back, u, rtol=0, atol=1e-10)

    def test_what_is_not_given_stays_at_the_median(self):
        model = tiny_lens.model(tiny_lens.Blobs())
        u = model.base({"lens.theta_E": 2.0})
        assert u[0] != 0
        np.testing.assert_array_equal(u[1:], 0)
        assert float(model.physical(tf.constant(u))["lens.theta_E"]) == pytest.approx(2.0, rel=1e-12)

    @pytest.mark.parametrize("index", range(17))
    def test_standard_normals_become_draws_of_the_prior(self, index):
        # Change of variables: the normal density of u is the prior's at the parameter, times the Jacobian.
        model = tiny_lens.model()
        entry = model.entries[index]
        u = np.zeros((4, model.dim))
        u[:, entry.indices] = np.random.default_rng(index).normal(size=(4, len(entry.names)))
        part = tf.constant(u[:, entry.indices])
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(part)
            full = tf.concat([tf.constant(u[:, : entry.start]), part, tf.constant(u[:, entry.indices.stop :])], 1)
            physical = model.physical(full)
            value = tf.stack([physical[name] for name in entry.names], -1)
        jacobian = tape.batch_jacobian(value, part, experimental_use_pfor=False).numpy()
        density = entry.prior.log_prob(value if len(entry.names) > 1 else value[..., 0])
        expected = norm.logpdf(part.numpy()).sum(-1)
        np.testing.assert_allclose(density + np.linalg.slogdet(jacobian)[1], expected, rtol=0, atol=1e-10)

    def test_every_entry_is_covered_above(self):
        assert len(tiny_lens.model().entries) == 17

    def test_prior_can_be_replaced_by_a_distribution_or_a_factory(self):
        priors = {
            "lens.theta_E": tfd.Normal(np.float64(1.5), np.float64(0.1)),
            "lens.gamma": lambda dtype: tfd.Normal(tf.constant(2.0, dtype), tf.constant(0.01, dtype)),
            "lens.e1,e2": tfd.MultivariateNormalDiag(np.zeros(2), np.array([0.1, 0.2])),
        }
        model = tiny_lens.model(priors=priors)
        physical = model.physical(tf.ones([1, model.dim], tf.float64))
        found = [float(physical[f"lens.{name}"][0]) for name in ("theta_E", "gamma", "e1", "e2")]
        np.testing.assert_allclose(found, [1.6, 2.01, 0.1, 0.2], rtol=1e-14)
        assert len(priors) == 3  # the caller's dictionary is left alone

    def test_prior_of_another_precision_serves(self):
        model = tiny_lens.model(priors={"lens.theta_E": tfd.Uniform(0.5, 2.5)})
        assert model.physical(tf.zeros([1, model.dim], tf.float64))["lens.theta_E"].numpy() == pytest.approx([1.5])

    @pytest.mark.parametrize("name", ["lens.thetaE", "lens.e1", "sky.amp", "light1.R_sersic"])
    def test_prior_of_an_unknown_parameter_is_refused(self, name):
        with pytest.raises(ParameterError, match=rf"priors given for unknown parameter\(s\) \['{name}'\].*lens.e1,e2"):
            tiny_lens.model(priors={name: tfd.Normal(0.0, 1.0)})

    def test_prior_that_is_none_is_refused(self):
        with pytest.raises(ParameterError, match=r"a TFP distribution or a factory of one .* got None"):
            tiny_lens.model(priors={"lens.theta_E": None})

    def test_unknown_value_is_refused(self):
        with pytest.raises(ParameterError, match=r"unknown parameter\(s\) \['lens.theta'\].*lens.theta_E"):
            tiny_lens.model().base({"lens.theta": 1.0})

    def test_part_of_a_joint_parameter_is_refused(self):
        with pytest.raises(ParameterError, match=r"share a prior: give all of them, not only.*lens\.e2"):
            tiny_lens.model().base({"lens.e2": 0.1})


class TestFixedAndTied:
    GIVEN: ClassVar = {
        "lens.gamma": 1.9,
        "light.e1,e2": (0.05, 0.1),
        "light.center_x": "lens.center_x",
        "source.e1,e2": "lens.e1,e2",
    }

    def test_they_are_no_coordinates_and_take_their_values(self):
        model = tiny_lens.model(priors=self.GIVEN)
        assert model.dim == tiny_lens.model().dim - 6
        assert not {"lens.gamma", "light.e2", "light.center_x", "source.e1"} & set(model.names)
        values = model.physical(0.3 * tf.ones([2, model.dim], tf.float64))
        assert set(values) == set(tiny_lens.model().names)
        np.testing.assert_array_equal(values["light.e2"], [0.1, 0.1])
        np.testing.assert_array_equal(values["light.center_x"], values["lens.center_x"])
        np.testing.assert_array_equal(values["source.e1"], values["lens.e1"])

    def test_likelihood_is_that_of_the_free_model_at_the_same_values(self):
        free, bound = tiny_lens.target(), LensTarget(tiny_lens.model(priors=self.GIVEN), tiny_lens.observation())
        u = tf.constant(0.1 * np.random.default_rng(3).normal(size=(1, bound.model.dim)))
        values = {name: float(value[0]) for name, value in bound.model.physical(u).items()}
        expected = free.log_likelihood(tf.constant(free.model.base(values)[None]))
        np.testing.assert_allclose(bound.log_likelihood(u), expected, rtol=1e-9)

    def test_linearized_as_in_reverse_mode(self):
        target = LensTarget(tiny_lens.model(priors=self.GIVEN), tiny_lens.observation())
        u = tf.constant(0.2 * np.random.default_rng(6).normal(size=target.model.dim))
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = tf.reduce_sum(target.design(u[None])[0] ** 2)
        design, tangents = target.linearize(u)
        found = 2 * tf.einsum("kcp,cp->k", tangents, design)
        np.testing.assert_allclose(found, tape.gradient(value, u), rtol=1e-9)

    def test_total_mass_knows_them(self):
        model = tiny_lens.model(priors={"lens.gamma": 2.0, "lens.center_y": "lens.center_x"})
        values = {name: tiny_lens.TRUTH[name] for name in model.names if name in tiny_lens.TRUTH}
        free = tiny_lens.model().total_mass(values | {"lens.gamma": 2.0, "lens.center_y": values["lens.center_x"]})
        at = tf.constant([[0.7]], tf.float64), tf.constant([[0.2]], tf.float64)
        np.testing.assert_array_equal(model.total_mass(values).convergence(*at), free.convergence(*at))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"light.center_x": "lens.center_z"}, "light.center_x is tied to 'lens.center_z', which is no free"),
            ({"lens.gamma": 2.0, "source.n_sersic": "lens.gamma"}, "tied to 'lens.gamma', which is no free parameter"),
            ({"light.e1,e2": "lens.e1"}, "light.e1,e2 has 2 value.s. and cannot be tied to 'lens.e1', which has 1"),
            ({"light.e1,e2": 0.1}, "light.e1,e2 must be fixed at 2 finite number.s., got 0.1"),
            ({"lens.gamma": float("nan")}, "lens.gamma must be fixed at 1 finite number"),
            ({"lens.gamma": True}, "a prior must be a TFP distribution"),
        ],
    )
    def test_what_cannot_be_is_refused(self, given, message):
        with pytest.raises(ParameterError, match=message):
            tiny_lens.model(priors=given)

    def test_a_value_for_a_fixed_parameter_is_refused(self):
        with pytest.raises(ParameterError, match=r"unknown parameter.* \['lens.gamma'\]; the model's free ones"):
            tiny_lens.model(priors={"lens.gamma": 2.0}).base({"lens.gamma": 1.9})


class TestLogProb:
    @pytest.mark.parametrize("make", [tiny_lens.target, tiny_lens.latent_target])
    def test_batch_equals_loop(self, make):
        target = make()
        u = 0.3 * np.random.default_rng(3).normal(size=(3, target.model.dim))
        one_by_one = [target.log_prob(tf.constant(row[None])).numpy()[0] for row in u]
        np.testing.assert_allclose(target.log_prob(tf.constant(u)), one_by_one, rtol=1e-12)

    def test_gradient_equals_finite_differences(self):
        target = tiny_lens.target()
        u, step = tiny_lens.near_truth(1, 0.1), 1e-5
        point = tf.constant(u)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = target.log_prob(point)
        gradient = tape.gradient(value, point).numpy()[0]
        shifts = step * np.eye(target.model.dim)
        ends = target.log_prob(tf.constant(np.concatenate([u + shifts, u - shifts]))).numpy().reshape(2, -1)
        np.testing.assert_allclose(gradient, (ends[0] - ends[1]) / (2 * step), rtol=1e-5, atol=1e-5)

    def test_gradient_is_finite_wherever_the_prior_reaches_in_float32(self):
        target = LensTarget(tiny_lens.model(dtype="float32"), tiny_lens.observation())
        u = tf.constant(np.random.default_rng(4).normal(size=(64, target.model.dim)), tf.float32)
        u = tf.concat([u, 3 * u[:32], tf.zeros_like(u[:1])], 0)  # and beyond; and round, centred components
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = target.log_prob(u)
        assert np.isfinite(value).all()
        assert np.isfinite(tape.gradient(value, u)).all()

    @pytest.mark.parametrize("make", [tiny_lens.target, tiny_lens.latent_target])
    def test_value_and_gradient_equals_differentiation_of_its_parts(self, make):
        target = make()
        u = tf.constant(0.2 * np.random.default_rng(8).normal(size=(3, target.model.dim)))
        with tf.GradientTape() as tape:
            tape.watch(u)
            expected = 0.3 * target.log_likelihood(u) + target.log_prior(u)
        value, gradient = target.value_and_gradient(u, power=0.3)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        expected = tape.gradient(expected, u).numpy()
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())

    @pytest.mark.parametrize("compiled", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eager", "graph"])
    def test_log_prob_has_that_gradient(self, compiled):
        # With a network, whose weights TensorFlow sees as something to differentiate by.
        target = tiny_lens.latent_target()
        u = tf.constant(0.2 * np.random.default_rng(10).normal(size=(2, target.model.dim)))

        def differentiated(u):
            with tf.GradientTape() as tape:
                tape.watch(u)
                value = target.log_prob(u)
            return value, tape.gradient(value, u)

        found = (tf.function(differentiated, autograph=False) if compiled else differentiated)(u)
        for one, other in zip(found, target.value_and_gradient(u), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)

    def test_a_large_batch_in_chunks_equals_small_ones(self):
        target = tiny_lens.target()
        u = tf.constant(0.3 * np.random.default_rng(9).normal(size=(37, target.model.dim)))
        value, gradient = target.value_and_gradient(u)
        for part in (slice(0, 16), slice(30, 37)):
            value_of_part, gradient_of_part = target.value_and_gradient(u[part])
            np.testing.assert_allclose(value[part], value_of_part, rtol=1e-12)
            np.testing.assert_allclose(gradient[part], gradient_of_part, rtol=1e-9, atol=1e-9)

    def test_prior_is_a_unit_normal(self):
        u = tiny_lens.near_truth(3, 1.0)
        target = tiny_lens.target()
        difference = target.log_prob(tf.constant(u)) - target.log_likelihood(tf.constant(u))
        np.testing.assert_allclose(difference, -0.5 * (u**2).sum(1), atol=1e-9)

    def test_likelihood_is_the_marginal_of_a_gaussian(self):
        # One positive amplitude and the sky: exact, by the covariance of all pixels and by conditioning on them.
        model = LensModel(lens=[], lens_light=[Sersic()], dtype="float64")
        observation = tiny_lens.blank(shape=(7, 9))
        target = LensTarget(model, observation)
        u = 0.3 * np.random.default_rng(5).normal(size=(2, model.dim))
        data = (observation.image / observation.noise).ravel()
        scale = max(10.0, np.linalg.norm(data))
        for design, found in zip(
            target.design(tf.constant(u)).numpy(), target.log_likelihood(tf.constant(u)), strict=True
        ):
            unit = design / np.linalg.norm(design, axis=1, keepdims=True)
            covariance = np.eye(data.size) + scale**2 * unit.T @ unit
            free = multivariate_normal.logpdf(data, cov=covariance) + data.size / 2 * np.log(2 * np.pi)
            gain = scale**2 * unit @ np.linalg.inv(covariance)
            mean, variance = gain @ data, scale**2 * np.eye(2) - gain @ unit.T * scale**2
            positive = norm.logcdf(mean[0] / np.sqrt(variance[0, 0])) + np.log(2)
            np.testing.assert_allclose(found, free + positive, rtol=1e-9)


class TestLinearize:
    @pytest.mark.parametrize("make", [noiseless, tiny_lens.latent_target])
    def test_equals_reverse_mode_in_random_directions(self, make):
        target = make()
        u = tf.constant(0.2 * np.random.default_rng(6).normal(size=target.model.dim))
        design, tangents = target.linearize(u)
        assert tangents.shape == (target.model.dim, *design.shape)
        np.testing.assert_allclose(design, target.design(u[None])[0], rtol=1e-12)
        rng = np.random.default_rng(7)
        for _ in range(3):
            cotangent = tf.constant(rng.normal(size=design.shape))
            with tf.GradientTape() as tape:
                tape.watch(u)
                value = tf.reduce_sum(target.design(u[None])[0] * cotangent)
            expected = tape.gradient(value, u).numpy()
            found = tf.einsum("kcp,cp->k", tangents, cotangent).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())

    def test_latents_move_the_source_alone(self):
        target = tiny_lens.latent_target()
        _, tangents = target.linearize(tf.zeros([target.model.dim], tf.float64))
        latents = tangents.numpy()[target.model.physical_dim :]
        source = target.model.amplitude_names.index("source.amp")
        assert (np.abs(latents[:, source]).max(-1) > 0).all()
        np.testing.assert_array_equal(np.delete(latents, source, axis=1), 0)


class TestSeveralSources:
    """A formula between two networks."""

    @staticmethod
    def target() -> LensTarget:
        return LensTarget(tiny_lens.model([tiny_lens.Blobs(), Sersic(), tiny_lens.Blobs()]), tiny_lens.observation())

    def test_have_names_and_latents_of_their_own(self):
        model = self.target().model
        assert model.amplitude_names == ("light.amp", "source1.amp", "source2.amp", "source3.amp", "sky.amp")
        assert model.source_amplitudes == (1, 2, 3)
        assert {"source1.scale", "source2.R_sersic", "source3.center_x"} <= set(model.names)
        assert (model.latent_dims, model.dim) == ((3, 0, 3), len(model.names) + 6)
        # Priors are those of a source, each as if it were the only one.
        assert float(model.physical(tf.zeros([model.dim], tf.float64))["source2.R_sersic"]) == pytest.approx(0.2)

    def test_each_is_seen_as_if_it_were_alone(self):
        target = self.target()
        model = target.model
        u = 0.3 * np.random.default_rng(1).normal(size=(2, model.dim))
        design = target.design(tf.constant(u)).numpy()
        for number, source in enumerate(model.sources, 1):
            alone = LensTarget(tiny_lens.model(source), tiny_lens.observation())
            shared = [name for name in model.names if not name.startswith("source")]
            same = [model.names.index(name) for name in shared]
            own = [i for i, name in enumerate(model.names) if name.startswith(f"source{number}.")]
            first = model.physical_dim + sum(model.latent_dims[: number - 1])
            latents = list(range(first, first + model.latent_dims[number - 1]))
            expected = alone.design(tf.constant(u[:, same + own + latents])).numpy()
            np.testing.assert_allclose(design[:, number], expected[:, 1], rtol=1e-12, atol=1e-14)

    def test_a_source_of_given_pixels_is_refused(self):
        with pytest.raises(ParameterError, match=r"Pixelated.* has no image of its own"):
            LensTarget(tiny_lens.model([Sersic(), Pixelated(0.1)]), tiny_lens.observation())

    def test_gradient_and_tangents_equal_finite_differences(self):
        target = self.target()
        u = 0.3 * np.random.default_rng(3).normal(size=target.model.dim)
        gradient = target.value_and_gradient(tf.constant(u[None]))[1].numpy()[0]
        tangents = target.linearize(tf.constant(u))[1].numpy()
        for direction in np.eye(len(u)):
            step = tf.constant(np.stack([u + 1e-5 * direction, u - 1e-5 * direction]))
            up, down = target.value_and_gradient(step)[0].numpy()
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(gradient @ direction, (up - down) / 2e-5, rtol=1e-5, atol=1e-6 * scale)
            up, down = target.design(step).numpy()
            found = np.tensordot(direction, tangents, 1)
            np.testing.assert_allclose(found, (up - down) / 2e-5, atol=1e-6 * np.abs(tangents).max())

    def test_the_unlensed_sources_add_up(self):
        target = self.target()
        model = target.model
        u = 0.3 * np.random.default_rng(4).normal(size=(2, model.dim))
        amplitudes = np.random.default_rng(5).uniform(1, 2, (2, 5))
        physical = {name: value.numpy() for name, value in model.physical(tf.constant(u)).items()}
        plane = source_plane(target, physical, 160)
        light = source_images(target, plane, u, amplitudes).sum((-2, -1)) * plane.pixel_area
        flux = source_fluxes(model, physical | dict(zip(model.amplitude_names, amplitudes.T, strict=True)))
        assert list(flux) == ["source1.flux", "source2.flux", "source3.flux"]
        np.testing.assert_allclose(light, sum(flux.values()), rtol=0.02)  # what lies outside, and coarse pixels


class TestEvaluate:
    def test_parts_add_up(self):
        target, u = tiny_lens.target(), tiny_lens.near_truth(1, 0.05)[0]
        best = target.evaluate(u)
        parts = images(target, u, best.amplitudes)
        np.testing.assert_allclose(best.lensed_source, parts[1], rtol=1e-12)
        np.testing.assert_allclose(best.lens_light, parts[0] + parts[2], rtol=1e-12)
        np.testing.assert_allclose(best.image, best.lens_light + best.lensed_source, rtol=1e-12)
        np.testing.assert_allclose(best.residual, (target.image - best.image) / target.noise, rtol=1e-10, atol=1e-10)
        assert best.chi2 == pytest.approx(np.mean(best.residual**2), rel=1e-12)

    def test_truth_is_recovered_without_noise(self):
        target, u = tiny_lens.target(noisy=False), tiny_lens.truth()
        best = target.evaluate(u)
        sigma = np.sqrt(np.diag(target.linear(tf.constant(u[None])).covariance.numpy()[0]))
        # The amplitudes have a wide prior, which pulls a little.
        np.testing.assert_allclose((best.amplitudes - tiny_lens.AMPLITUDES) / sigma, 0, atol=0.02)
        assert best.chi2 < 1e-5

    def test_image_is_that_of_the_layer(self):
        u = tiny_lens.truth()
        layer = LensLayer(
            tiny_lens.grid(),
            tiny_lens.model().lens,
            [Sersic()],
            [Sersic()],
            psf=tiny_lens.PSF,
            exact_cusps=True,
            dtype="float64",
        )
        values = tiny_lens.TRUTH | tiny_lens.SERSIC_SOURCE

        def of(label):
            return {name.split(".")[1]: value for name, value in values.items() if name.startswith(label + ".")}

        light, source, sky = tiny_lens.AMPLITUDES
        expected = layer(
            {
                "mass": [of("lens"), of("shear")],
                "lens_light": [of("light") | {"amp": light}],
                "source": [of("source") | {"amp": source}],
            }
        )
        np.testing.assert_allclose(images(tiny_lens.target(), u).sum(0), expected + sky, rtol=1e-10)


class TestPixels:
    def test_frame_cuts_the_same_image(self):
        frame = (slice(3, 17), slice(5, 24))
        observation = tiny_lens.blank(psf=tiny_lens.DELTA)
        whole = LensTarget(tiny_lens.model(), observation)
        part = LensTarget(tiny_lens.model(), observation, frame)
        u = tiny_lens.near_truth(1, 0.1)[0]
        assert part.mask.shape == (14, 19)
        np.testing.assert_allclose(images(part, u), images(whole, u)[:, *frame], rtol=1e-10, atol=1e-13)

    def test_supersampling_is_the_gauss_legendre_mean_over_a_pixel(self):
        u = tiny_lens.near_truth(1, 0.1)[0]
        pixels = LensTarget(tiny_lens.model(), tiny_lens.blank(tiny_lens.DELTA, (9, 12), 0.3), supersampling=2)
        # Its two nodes on each axis stand 1/sqrt(12) of a pixel from the middle, with equal weights.
        shift, mean = 0.3 / np.sqrt(12), 0.0
        inputs = pixels.model.layer_inputs(pixels.model.physical(tf.constant(u[None])))
        for x, y in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            grid = PixelGrid((9, 12), 0.3, center=(x * shift, y * shift))
            layer = LensLayer(grid, pixels.model.lens, pixels.model.lens_light, pixels.model.sources, dtype="float64")
            mean = mean + np.stack(layer.images(inputs))[:, 0] / 4
        # Around the cusp of the lens's light a target does better.
        (light,) = inputs["lens_light"]
        x, y = pixels.grid.coordinates()
        near = np.maximum(np.abs(x - light["center_x"]), np.abs(y - light["center_y"])) < (REACH + 0.5) * 0.3
        assert near.sum() == (2 * REACH + 1) ** 2
        mean[0][near], found = 0.0, images(pixels, u, (1.0, 1.0, 0.0))[:2].copy()
        found[0][near] = 0.0
        np.testing.assert_allclose(found, mean, rtol=1e-10)

    def test_refined_renders_within_a_twentieth_of_the_noise(self):
        target = LensTarget(tiny_lens.model(), tiny_lens.observation())
        mask = target.mask.copy()
        mask[0, 0] = False
        target.use(mask)
        u = tiny_lens.near_truth(1, 0.02)
        amplitudes = tuple(target.linear(tf.constant(u)).mean.numpy()[0])
        refined = target.refined(2, target.refinement(u, 2, 0.05))
        np.testing.assert_array_equal(refined.mask, mask)
        even = LensTarget(target.model, target.observation, supersampling=2)
        # The same rule in 32 x 32 parts of every pixel.
        fine = LensTarget(target.model, target.observation, supersampling=2, refine=np.full(target.grid.shape, 32))
        truth = images(fine, u[0], amplitudes).sum(0)
        errors = [
            np.abs(images(t, u[0], amplitudes).sum(0) - truth)[mask] / target.noise[mask] for t in (refined, even)
        ]
        assert errors[0].max() < 0.05 < errors[1].max()

    def test_component_lies_where_its_coordinates_say(self):
        model = LensModel(lens=[], lens_light=[Sersic()], dtype="float64")
        observation = tiny_lens.blank(psf=tiny_lens.DELTA)
        grid = PixelGrid(observation.image.shape, observation.pixel_scale)
        x, y = grid.coordinates()
        u = model.base({"light.center_x": x[0, 19], "light.center_y": y[4, 0]})
        light = images(LensTarget(model, observation), u, (1.0, 0.0))[0]
        assert np.unravel_index(light.argmax(), light.shape) == (4, 19)
        np.testing.assert_allclose(light[:9, 15:24], light[:9, 15:24][::-1, ::-1], rtol=1e-10)

    def test_masked_pixels_of_the_observation_do_not_count(self):
        observation, u = tiny_lens.observation(), unlensed_points()
        mask = np.random.default_rng(8).random(tiny_lens.SHAPE) < 0.8
        spoiled = np.where(mask, observation.image, 1e3)
        values = [
            LensTarget(unlensed(), Observation(image, observation.noise, tiny_lens.PSF, 0.15, mask=mask))
            for image in (observation.image, spoiled)
        ]
        np.testing.assert_array_equal(values[0].log_prob(u), values[1].log_prob(u))
        assert np.isnan(values[1].evaluate(u.numpy()[0]).residual[~mask]).all()

    def test_unused_pixels_do_not_count(self):
        observation, u = tiny_lens.observation(), unlensed_points()
        mask = np.random.default_rng(9).random(tiny_lens.SHAPE) < 0.8
        # Turned in sign: the width of the amplitudes' prior, which is taken from the whole image, stays.
        turned = np.where(mask, observation.image, -observation.image)
        targets = [
            LensTarget(unlensed(), Observation(image, observation.noise, tiny_lens.PSF, 0.15))
            for image in (observation.image, turned)
        ]
        assert np.abs(targets[0].log_prob(u) - targets[1].log_prob(u)).min() > 100
        for target in targets:
            target.use(mask)
        np.testing.assert_array_equal(targets[0].log_prob(u), targets[1].log_prob(u))

    def test_a_new_mask_counts_at_once_and_compiles_nothing(self):
        target = LensTarget(unlensed(), tiny_lens.observation())
        score = tf.function(target.log_prob, autograph=False)
        u = unlensed_points()
        before = score(u).numpy()
        mask = np.ones(tiny_lens.SHAPE, bool)
        mask[:8, 4:] = False
        target.use(mask)
        assert np.abs(score(u) - before).min() > 1
        np.testing.assert_allclose(score(u), target.log_prob(u), rtol=1e-12)
        target.use(np.ones(tiny_lens.SHAPE, bool))
        np.testing.assert_array_equal(score(u), before)
        assert score.experimental_get_tracing_count() == 1

    def test_mask_must_fit(self):
        mask = np.ones(tiny_lens.SHAPE, bool)
        mask[2, 3] = False
        target = LensTarget(tiny_lens.model(), tiny_lens.observation().with_mask(mask))
        with pytest.raises(ParameterError, match=r"must have shape \(20, 24\).*got shape \(24, 20\)"):
            target.use(mask.T)
        with pytest.raises(ParameterError, match="use only pixels that the observation uses"):
            target.use(np.ones(tiny_lens.SHAPE, bool))
        np.testing.assert_array_equal(target.mask, mask)
