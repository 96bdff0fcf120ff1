"""The galaxy model: encoder, decoder, flow, autoencoder, training, and the saved form. Tiny networks throughout."""

import importlib
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_galaxies import DIM, SIDE, adam, blobs, disturb, make_decoder, make_encoder, normal

from tflens._tfp import tfd
from tflens.datasets.pipeline import hst_psf, observed_galaxies
from tflens.datasets.records import Dataset
from tflens.datasets.simulated import simulate_galaxy
from tflens.errors import ParameterError, SavedModelError
from tflens.galaxies import GalaxyModel, NeuralSource, load_galaxy_model
from tflens.galaxies.condition import Condition
from tflens.galaxies.coupling import CouplingFlow
from tflens.galaxies.decoder import Upsampling
from tflens.galaxies.encoder import POSTERIORS, Encoder
from tflens.galaxies.flow import InverseAutoregressiveFlow
from tflens.galaxies.newton import newton_refined
from tflens.galaxies.posterior import GaussianPosterior, gaussian_kl
from tflens.galaxies.source import find_galaxy_model
from tflens.galaxies.spline import SplineFlow
from tflens.galaxies.vae import GalaxyVAE, posterior_draws
from tflens.psf import PSF

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[1]
every_posterior = pytest.mark.parametrize("kind", POSTERIORS)


def make_flow(stages=2, **options):
    flow = InverseAutoregressiveFlow(DIM, stages=stages, hidden=(12, 12), **options)
    flow.build()
    return flow


def make_coupling():
    flow = CouplingFlow(DIM, stages=2, hidden=(12, 12))
    flow.build()
    return flow


def make_vae(posterior="full", **options):
    keras.utils.set_random_seed(1)
    vae = GalaxyVAE(make_encoder(posterior=posterior), make_decoder(), hst_psf(0.2, 5), **options)
    vae.build()
    return vae


@pytest.fixture(scope="module")
def galaxies():
    return blobs(24)


@pytest.fixture(scope="module")
def batch(galaxies):
    return next(iter(observed_galaxies(galaxies, hst_psf(0.2, 5), batch_size=6)))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    flow = disturb(make_flow())
    flow.adapt(np.random.default_rng(1).normal(1.0, 2.0, size=(200, DIM)))
    return GalaxyModel(disturb(make_encoder()), disturb(make_decoder()), flow, pixel_scale=0.2)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "galaxies" / "1"
    model.save(directory)
    return directory


class TestDecoder:
    def test_two_forms_of_the_transposed_convolution_agree(self):
        layer = Upsampling(3)
        x = normal(2, 5, 7, 4)
        expected = keras.layers.Conv2DTranspose(3, 4, strides=2, padding="same")
        expected.build(x.shape)
        layer.build(x.shape)
        expected.set_weights(disturb(layer).get_weights())
        np.testing.assert_allclose(layer(x), expected(x), atol=1e-5)
        np.testing.assert_allclose(layer(x, xla=True), expected(x), atol=1e-5)

    def test_unit_flux_and_positive_also_far_out(self, model):
        images = model.decode(tf.concat([normal(5, DIM), 10 * normal(5, DIM)], 0))
        assert float(tf.reduce_min(images[:5])) > 0
        assert float(tf.reduce_min(images)) >= 0  # positive up to the range of float32
        np.testing.assert_allclose(tf.reduce_sum(images, (-2, -1)), 1, rtol=1e-5)

    def test_logits_have_no_checkerboard(self):
        """The filter on the logits removes the wavelength of two pixels, away from the stamp's edge."""
        decoder = disturb(make_decoder())
        logits = tf.math.log(decoder(normal(1, DIM)))[0].numpy()
        kernel = decoder._filter[:, :, 0, 0]
        signs = (-1.0) ** np.arange(3)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_allclose(kernel @ signs, 0, atol=1e-7)
        np.testing.assert_allclose(signs @ kernel, 0, atol=1e-7)
        assert np.isfinite(logits).all()

    def test_batch_equals_loop(self, model):
        z = normal(3, 2, DIM)
        images = model.decode(z)
        assert images.shape == (3, 2, SIDE, SIDE)
        for i in range(3):
            for j in range(2):
                np.testing.assert_allclose(images[i, j], model.decode(z[i, j]), rtol=1e-5)

    def test_xla_equals_eager(self, model):
        u = normal(3, DIM)
        compiled = tf.function(lambda u: model.generate(u, xla=True), jit_compile=True)
        np.testing.assert_allclose(compiled(u), model.generate(u), rtol=1e-4)

    def test_gradient_against_finite_differences(self, model):
        u, weights = normal(1, DIM), normal(1, SIDE, SIDE, seed=4)

        def value(u):
            return tf.reduce_sum(weights * model.generate(u)) * 100

        with tf.GradientTape() as tape:
            tape.watch(u)
            loss = value(u)
        gradient = tape.gradient(loss, u)
        step = 1e-2
        for i in range(DIM):
            move = step * tf.one_hot([i], DIM)
            difference = (value(u + move) - value(u - move)) / (2 * step)
            assert float(gradient[0, i]) == pytest.approx(float(difference), rel=0.01, abs=1e-3)

    @pytest.mark.parametrize("jit", [False, True])
    def test_jacobian_by_double_vjp(self, model, jit):
        """A Jacobian-vector product as the gradient of a vector-Jacobian product, as a lens fit takes it."""
        u, tangent = normal(2, DIM), normal(2, DIM, seed=5)

        @tf.function(jit_compile=jit)
        def push_forward(u, tangent):
            cotangent = tf.zeros((2, SIDE, SIDE))
            with tf.GradientTape() as outer:
                outer.watch(cotangent)
                with tf.GradientTape() as inner:
                    inner.watch(u)
                    image = model.generate(u, xla=jit)
                back = inner.gradient(image, u, output_gradients=cotangent)
            return outer.gradient(back, cotangent, output_gradients=tangent)

        step = 1e-2
        difference = (model.generate(u + step * tangent) - model.generate(u - step * tangent)) / (2 * step)
        scale = float(tf.reduce_max(tf.abs(difference)))
        np.testing.assert_allclose(push_forward(u, tangent), difference, atol=0.01 * scale)

    def test_result_has_the_type_of_the_input(self, model):
        assert model.generate(tf.cast(normal(2, DIM), tf.float64)).dtype == tf.float64


def repeated(batch, count):
    return {key: tf.repeat(value[:1], count, axis=0) for key, value in batch.items()}


@every_posterior
class TestPosterior:
    """The laws that every posterior must obey, whatever its form."""

    def test_density_of_a_draw_is_its_log_prob(self, kind, batch):
        """A draw carries its density along; `log_prob` finds the same by going back."""
        posterior = disturb(make_encoder(posterior=kind)).posterior(batch["image"], batch["sigma"])
        draw = posterior.draw(normal(6, DIM))
        np.testing.assert_allclose(posterior.log_prob(tf.identity(draw.z)), draw.log_prob, atol=2e-4)

    def test_density_is_that_of_the_change_of_variables(self, kind, batch):
        posterior = disturb(make_encoder(posterior=kind)).posterior(batch["image"][:1], batch["sigma"][:1])
        noise = normal(1, DIM)
        with tf.GradientTape() as tape:
            tape.watch(noise)
            draw = posterior.draw(noise)
        _, log_det = np.linalg.slogdet(tape.jacobian(draw.z, noise)[0, :, 0].numpy().astype(float))
        base = -0.5 * float(tf.reduce_sum(noise**2)) - DIM / 2 * np.log(2 * np.pi)
        assert float(draw.log_prob[0]) == pytest.approx(base - log_det, abs=1e-3)

    def test_kl_is_the_mean_of_log_q_minus_log_p(self, kind, batch):
        posterior = disturb(make_encoder(posterior=kind)).posterior(**inputs(repeated(batch, 20_000)))
        draw = posterior.draw(normal(20_000, DIM))
        ratio = draw.log_prob - tfd.MultivariateNormalDiag(tf.zeros(DIM)).log_prob(draw.z)
        error = float(tf.math.reduce_std(ratio)) / np.sqrt(20_000)
        assert float(tf.reduce_mean(tf.reduce_sum(draw.kl, -1))) == pytest.approx(
            float(tf.reduce_mean(ratio)), abs=5 * error
        )

    def test_moments_are_those_of_the_draws(self, kind, batch):
        encoder = disturb(make_encoder(posterior=kind))
        mean, scale = encoder(batch["image"], batch["sigma"])
        draws = encoder.posterior(**inputs(repeated(batch, 20_000))).draw(normal(20_000, DIM)).z.numpy()
        covariance = (scale[0] @ tf.transpose(scale[0])).numpy()
        spread = np.sqrt(np.diag(covariance))
        # A flow's moments are estimated from 256 draws of its own.
        count = 256 if kind == "iaf" else 20_000
        assert np.all(np.abs(draws.mean(0) - mean[0]) < 5 * spread / np.sqrt(count))
        np.testing.assert_allclose(
            np.cov(draws, rowvar=False), covariance, atol=5 * np.sqrt(2 / count) * spread.max() ** 2
        )

    def test_every_variable_has_a_gradient(self, kind, batch):
        vae = make_vae(kind, warmup_steps=0, free_bits=0.0)
        disturb(vae)
        with tf.GradientTape() as tape:
            loss = vae.training_terms(batch, tf.constant(0))["loss"]
        variables = vae.trainable_variables
        for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True):
            assert np.isfinite(gradient.numpy()).all()
            assert np.any(gradient.numpy() != 0), variable.path

    def test_weights_and_configuration_make_the_same_encoder(self, kind, batch, tmp_path):
        encoder = disturb(make_encoder(posterior=kind))
        encoder.save_weights(tmp_path / "encoder.weights.h5")
        again = Encoder.from_config(encoder.get_config())
        again.build()
        again.load_weights(tmp_path / "encoder.weights.h5")
        for a, b in zip(again(**inputs(batch)), encoder(**inputs(batch)), strict=True):
            np.testing.assert_array_equal(a, b)


def inputs(batch):
    return {"image": batch["image"], "sigma": batch["sigma"]}


def test_diagonal_posterior_has_no_correlations(batch):
    _, scale = disturb(make_encoder(posterior="diagonal"))(batch["image"], batch["sigma"])
    np.testing.assert_array_equal(scale, tf.linalg.diag(tf.linalg.diag_part(scale)))


def test_unknown_posterior():
    with pytest.raises(ParameterError, match="posterior must be one of full, diagonal, iaf, got 'banded'"):
        make_encoder(posterior="banded")


class LinearDecoder:
    """image = W z + b: then evidence and posterior are known in closed form."""

    latent_dim, stamp_size, built = DIM, SIDE, True

    def __init__(self):
        rng = np.random.default_rng(3)
        self.matrix = rng.normal(size=(SIDE * SIDE, DIM)).astype(np.float32)
        self.offset = rng.normal(size=SIDE * SIDE).astype(np.float32)

    def __call__(self, z):
        return tf.reshape(tf.linalg.matvec(self.matrix, z) + self.offset, [-1, SIDE, SIDE])


class ExactEncoder:
    """p(z | x) of the linear decoder with prior N(0, I)."""

    latent_dim, stamp_size, built = DIM, SIDE, True

    def __init__(self, decoder):
        self.decoder = decoder

    def posterior(self, image, sigma):
        weights = tf.constant(self.decoder.matrix, tf.float64)
        variance = tf.cast(sigma, tf.float64)[:, None, None] ** 2
        covariance = tf.linalg.inv(tf.eye(DIM, dtype=tf.float64) + tf.transpose(weights) @ weights / variance)
        residual = tf.cast(tf.reshape(image, [-1, SIDE**2]) - self.decoder.offset, tf.float64)
        mean = tf.linalg.matvec(covariance, residual @ weights / variance[:, 0])
        return GaussianPosterior(tf.cast(mean, tf.float32), tf.cast(tf.linalg.cholesky(covariance), tf.float32))


class TestLinearGaussianModel:
    @pytest.fixture
    def data(self):
        decoder = LinearDecoder()
        sigma = tf.constant([3.0, 6.0, 9.0])
        image = decoder(normal(3, DIM, seed=8)) + sigma[:, None, None] * normal(3, SIDE, SIDE, seed=9)
        covariance = decoder.matrix.astype(float) @ decoder.matrix.T
        evidence = [
            tfd.MultivariateNormalFullCovariance(
                decoder.offset.astype(float), covariance + float(s) ** 2 * np.eye(SIDE**2)
            ).log_prob(x.numpy().ravel().astype(float))
            for x, s in zip(image, sigma, strict=True)
        ]
        constant = SIDE**2 * np.log(sigma * np.sqrt(2 * np.pi))
        return decoder, {"image": image, "sigma": sigma}, np.array(evidence), constant

    def test_elbo_of_the_exact_posterior_is_the_evidence(self, data):
        """With the KL by Monte Carlo (here a flow that is the identity) exactly so, for every draw."""
        decoder, batch, evidence, constant = data
        vae = GalaxyVAE(ExactEncoder(decoder), decoder, prior=make_flow(stages=1))
        for seed in range(3):
            chi2, kl = vae.elbo_terms(batch, seed=[seed, 0])
            np.testing.assert_allclose(-chi2 / 2 - kl[:, 0] - constant, evidence, atol=0.02)

    def test_closed_form_kl_gives_it_in_the_mean(self, data):
        decoder, batch, evidence, constant = data
        vae = GalaxyVAE(ExactEncoder(decoder), decoder)
        many = {name: tf.repeat(value[None], 400, 0) for name, value in batch.items()}
        many = {name: tf.reshape(value, [-1, *value.shape[2:]]) for name, value in many.items()}
        chi2, kl = vae.elbo_terms(many, seed=[0, 0])
        elbo = np.reshape(-chi2 / 2 - tf.reduce_sum(kl, -1), [400, 3]) - constant
        error = np.std(elbo, axis=0) / np.sqrt(len(elbo))
        assert np.all(np.abs(np.mean(elbo, axis=0) - evidence) < 5 * error)
        assert error.max() < 0.15


class TestNewtonSteps:
    def test_one_step_finds_the_posterior_mean_of_a_linear_model(self):
        decoder = LinearDecoder()
        sigma = tf.constant([3.0, 6.0, 9.0])
        image = decoder(normal(3, DIM, seed=8)) + sigma[:, None, None] * normal(3, SIDE, SIDE, seed=9)
        exact = ExactEncoder(decoder).posterior(image, sigma)
        start = GaussianPosterior(exact.mean + 0.3 * normal(3, DIM, seed=4), exact.scale)
        refined = newton_refined(start, image, sigma, decoder, steps=1)
        np.testing.assert_allclose(refined.mean, exact.mean, atol=1e-4)
        np.testing.assert_array_equal(refined.scale, exact.scale)

    def test_a_gaussian_prior_is_heeded(self):
        """Of another Gaussian prior, the exact mean again in one step."""
        decoder, sigma = LinearDecoder(), tf.constant([30.0, 60.0])
        image = decoder(normal(2, DIM, seed=8)) + sigma[:, None, None] * normal(2, SIDE, SIDE, seed=9)
        mean, scale = normal(DIM, seed=3), tf.linalg.band_part(normal(DIM, DIM, seed=4), -1, 0) + 2 * tf.eye(DIM)
        precision = tf.linalg.inv(scale @ tf.transpose(scale))
        hessian = precision + tf.transpose(decoder.matrix) @ decoder.matrix / sigma[:, None, None] ** 2
        residual = tf.reshape(image, [2, -1]) - decoder.offset
        right = residual @ decoder.matrix / sigma[:, None] ** 2 + tf.linalg.matvec(precision, mean)
        exact = tf.linalg.solve(hessian, right[..., None])[..., 0]
        start = GaussianPosterior(exact + 0.2 * normal(2, DIM), tf.linalg.cholesky(tf.linalg.inv(hessian)))
        refined = newton_refined(start, image, sigma, decoder, 1, (mean, scale))
        np.testing.assert_allclose(refined.mean, exact, atol=1e-3)
        assert np.abs(newton_refined(start, image, sigma, decoder, 1).mean - exact).max() > 0.05

    def test_flow_inside_the_elbo_is_their_prior(self, model, batch, tmp_path):
        image, sigma = batch["image"], batch["sigma"]
        options = {"psf": hst_psf(0.2, 5), "newton_steps": 1}
        parts = model.encoder, model.decoder, model.flow
        joint, normal_prior = GalaxyModel(*parts, **options, flow_in_elbo=True), GalaxyModel(*parts, **options)
        vae = GalaxyVAE(model.encoder, model.decoder, options["psf"], prior=model.flow, newton_steps=1)
        mean = joint.encode(image, sigma)[0]
        np.testing.assert_allclose(vae.posterior(image, sigma).mean, mean, atol=1e-3)
        assert np.abs(normal_prior.encode(image, sigma)[0] - mean).max() > 0.01
        joint.save(tmp_path)
        np.testing.assert_allclose(GalaxyModel.load(tmp_path).encode(image, sigma)[0], mean, atol=1e-4)

    @pytest.mark.parametrize("wrong", [0.03, 30.0])
    def test_never_uphill_whatever_the_covariance(self, batch, wrong):
        """A network that knows nothing yet: the length of the step makes up for its scale, or there is no step."""
        vae = make_vae()
        disturb(vae.decoder)
        image, sigma = batch["image"], batch["sigma"]
        start = GaussianPosterior(normal(6, DIM), wrong * tf.eye(DIM, batch_shape=[6]))

        def energy(z):
            residual = (image - vae.observe(z)) / sigma[:, None, None]
            return (tf.reduce_sum(residual**2, (-2, -1)) + tf.reduce_sum(z**2, -1)).numpy()

        energies = [energy(newton_refined(start, image, sigma, vae.observe, steps).mean) for steps in range(4)]
        assert np.all(np.diff(energies, axis=0) <= 0)
        assert np.all(energies[-1] < energies[0])
        moved = newton_refined(start, image, sigma, vae.observe, 1).mean - start.mean
        assert np.linalg.norm(moved, axis=-1).max() < 2.0001

    def test_gradients_pass_to_the_encoder_as_if_it_had_given_the_mean(self, batch):
        vae = make_vae(newton_steps=2, free_bits=0.0)
        disturb(vae.encoder)
        with tf.GradientTape() as tape:
            posterior = vae.posterior(batch["image"], batch["sigma"])
            value = tf.reduce_sum(posterior.mean * normal(6, DIM, seed=3))
        with tf.GradientTape() as plain:
            mean, _ = vae.encoder(batch["image"], batch["sigma"])
            expected = tf.reduce_sum(mean * normal(6, DIM, seed=3))
        weights = vae.encoder.mean.trainable_variables
        for a, b in zip(tape.gradient(value, weights), plain.gradient(expected, weights), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
        assert np.all(np.linalg.norm(posterior.mean - mean, axis=-1) > 0.01)

    def test_begin_at_a_step_of_the_training(self, batch):
        with_steps, without = make_vae(newton_in_training=1, newton_after=3), make_vae()
        compiled = tf.function(with_steps.training_terms)
        refined = make_vae(newton_in_training=1).training_terms(batch, tf.constant(3))["loss"]
        for step, expected in ((2, without.training_terms(batch, tf.constant(2))["loss"]), (3, refined)):
            assert float(compiled(batch, tf.constant(step))["loss"]) == pytest.approx(float(expected), rel=1e-5)
        assert abs(float(refined / without.training_terms(batch, tf.constant(3))["loss"]) - 1) > 1e-3
        assert with_steps.validation_terms(batch)["loss"] == without.validation_terms(batch)["loss"]
        assert make_vae(newton_steps=1).validation_terms(batch)["loss"] < without.validation_terms(batch)["loss"]

    def test_saved_with_the_psf_they_need(self, model, batch, tmp_path):
        parts = model.encoder, model.decoder, model.flow
        with pytest.raises(ParameterError, match="newton_steps need the PSF of the training"):
            GalaxyModel(*parts, newton_steps=2)
        with pytest.raises(ParameterError, match=r"got -1 .* 'full'"):
            GalaxyModel(*parts, newton_steps=-1)
        with pytest.raises(ParameterError, match=r"GalaxyVAE: newton_steps .* got 1 .* 'iaf'"):
            make_vae(posterior="iaf", newton_steps=1)
        refined = GalaxyModel(*parts, psf=hst_psf(0.2, 5), newton_steps=2)
        refined.save(tmp_path)
        image, sigma = batch["image"], batch["sigma"]
        mean, scale = refined.encode(image, sigma)
        np.testing.assert_array_equal(GalaxyModel.load(tmp_path).encode(image, sigma)[0], mean)
        program = tf.saved_model.load(str(tmp_path / "saved_model"))
        np.testing.assert_allclose(program.encode(image, sigma)["mean"], mean, atol=1e-4)
        np.testing.assert_array_equal(scale, model.encode(image, sigma)[1])
        assert not np.allclose(mean, model.encode(image, sigma)[0], atol=1e-2)


class TestAutoencoder:
    def test_kl_against_closed_form(self):
        mean = normal(3, DIM)
        scale = tf.linalg.band_part(normal(3, DIM, DIM, seed=2), -1, 0)
        scale = tf.linalg.set_diag(scale, tf.exp(tf.linalg.diag_part(scale)))
        expected = tfd.MultivariateNormalTriL(mean, scale).kl_divergence(tfd.MultivariateNormalDiag(tf.zeros(DIM)))
        kl = gaussian_kl(mean, scale)
        assert float(tf.reduce_min(kl)) >= 0
        np.testing.assert_allclose(tf.reduce_sum(kl, -1), expected, rtol=1e-5)

    def test_elbo_against_the_densities(self, batch):
        vae = make_vae()
        disturb(vae.encoder)
        chi2, kl = vae.elbo_terms(batch, seed=[1, 2])
        mean, scale = vae.encoder(batch["image"], batch["sigma"])
        z = mean + tf.linalg.matvec(scale, tf.random.stateless_normal(mean.shape, [1, 2]))
        likelihood = tfd.Normal(vae.observe(z), batch["sigma"][:, None, None])
        log_likelihood = tf.reduce_sum(likelihood.log_prob(batch["image"]), (-2, -1))
        constant = SIDE**2 * tf.math.log(batch["sigma"] * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(-chi2 / 2 - constant, log_likelihood, rtol=1e-4)
        assert kl.shape == (6, DIM)

    def test_truth_has_unit_chi2(self, batch):
        """If the decoder drew the truth, the residual would be the noise alone."""
        residual = (batch["image"] - batch["signal"]) / batch["sigma"][:, None, None]
        assert float(tf.reduce_mean(residual**2)) == pytest.approx(1, abs=0.15)

    @pytest.mark.parametrize("prior", [None, make_coupling])
    def test_warm_up_beta_and_free_bits(self, batch, prior):
        """The weight of the KL at the first step is that of one step; a dimension costs its free bits at least."""
        for options in ({"warmup_steps": 4, "free_bits": -1e3, "beta": 3.0}, {"warmup_steps": 0, "free_bits": 1e3}):
            vae = make_vae(**options, prior=prior and prior())
            chi2, kl = vae.elbo_terms(batch, seed=[0, 0])
            free = DIM * options["free_bits"]
            cost = free if free > 0 else 3.0 / 4 * float(tf.reduce_mean(tf.reduce_sum(kl, -1)))
            expected = float(tf.reduce_mean(chi2)) / 2 + cost
            assert float(vae.training_terms(batch, tf.constant(0))["loss"]) == pytest.approx(expected, rel=1e-5)
            weight = vae.training_terms(batch, tf.constant(100))["kl_weight"]
            assert float(weight) == options.get("beta", 1.0)

    def test_without_psf_the_image_is_compared_as_it_is(self):
        vae = GalaxyVAE(make_encoder(), make_decoder())
        z = normal(2, DIM)
        np.testing.assert_array_equal(vae.observe(z), vae.decoder(z))

    def test_flow_is_trained_inside_the_elbo(self, galaxies):
        """Networks fixed, flow free: the KL divergence falls."""
        data = observed_galaxies(galaxies, hst_psf(0.2, 5), batch_size=24, augment=False)
        batch = next(iter(data))
        vae = make_vae(prior=make_coupling(), warmup_steps=0, free_bits=0.0)
        disturb(vae.encoder, size=2.0)
        vae.encoder.trainable = vae.decoder.trainable = False
        assert len(vae.trainable_variables) == len(vae.prior.trainable_variables) == 2 * 2 * 3
        vae.compile(optimizer=adam(2e-2))
        start = float(vae.test_step(batch)["kl"])
        step = tf.function(vae.train_step)
        for _ in range(60):
            step(batch)
        assert float(vae.test_step(batch)["kl"]) < start - 1

    def test_conditional_prior_reads_the_condition(self, batch):
        vae = make_vae(prior=disturb(make_flow(condition_dim=2)))
        conditions = normal(6, 2, seed=4)
        _, kl = vae.elbo_terms({**batch, "condition": conditions}, seed=[0, 0])
        _, other = vae.elbo_terms({**batch, "condition": conditions + 1}, seed=[0, 0])
        assert np.all(np.abs(kl - other) > 1e-4)

    def test_gradients_are_finite_also_for_extreme_stamps(self, batch):
        vae = make_vae()
        extreme = {"image": batch["image"] * [[[0.0]], [[1e3]], [[-1e3]], [[1.0]], [[1.0]], [[1.0]]]}
        extreme["sigma"] = batch["sigma"] * [1.0, 1.0, 1.0, 1e-2, 1e2, 1.0]
        with tf.GradientTape() as tape:
            chi2, kl = vae.elbo_terms(extreme, seed=[0, 0])
            loss = tf.reduce_mean(chi2) + tf.reduce_sum(kl)
        for gradient, variable in zip(
            tape.gradient(loss, vae.trainable_variables), vae.trainable_variables, strict=True
        ):
            assert np.isfinite(gradient.numpy()).all(), variable.path

    def test_posterior_draws_follow_the_posterior(self, batch):
        encoder = disturb(make_encoder())
        many = {key: tf.repeat(value[:1], 4000, axis=0) for key, value in batch.items()}
        draws = posterior_draws(encoder.posterior, tf.data.Dataset.from_tensor_slices(many).batch(1000), seed=1)
        mean, scale = (value[0].numpy() for value in encoder(batch["image"], batch["sigma"]))
        spread = np.sqrt(np.diag(scale @ scale.T))
        np.testing.assert_allclose(draws.mean(0), mean, atol=5 * spread.max() / np.sqrt(4000))
        np.testing.assert_allclose(np.cov(draws, rowvar=False), scale @ scale.T, atol=0.12 * spread.max() ** 2)


class TestSavedModel:
    def test_round_trip(self, model, saved, batch):
        again = GalaxyModel.load(saved)
        assert (again.pixel_scale, again.resolution, again.latent_dim) == (0.2, 0.06, DIM)
        np.testing.assert_array_equal(again.sample_prior(3, seed=1), model.sample_prior(3, seed=1))
        for a, b in zip(
            again.encode(batch["image"], batch["sigma"]), model.encode(batch["image"], batch["sigma"]), strict=True
        ):
            np.testing.assert_array_equal(a, b)

    def test_exported_program_agrees_with_keras(self, model, saved, batch):
        program = tf.saved_model.load(str(saved / "saved_model"))
        u = normal(5, DIM)
        np.testing.assert_allclose(program.to_latent(u), model.to_latent(u), atol=1e-5)
        np.testing.assert_allclose(program.decode(u), model.decode(u), rtol=1e-5)
        np.testing.assert_allclose(program.generate(u), model.generate(u), rtol=1e-4)
        encoded = program.encode(batch["image"], batch["sigma"])
        mean, scale = model.encode(batch["image"], batch["sigma"])
        np.testing.assert_allclose(encoded["mean"], mean, atol=1e-5)
        np.testing.assert_allclose(encoded["scale"], scale, atol=1e-5)
        assert {"decode", "to_latent", "generate", "encode"} <= set(program.signatures)

    @pytest.mark.parametrize(("flow", "posterior"), [(CouplingFlow, "iaf"), (SplineFlow, "diagonal")])
    def test_every_kind_of_network_is_saved(self, flow, posterior, tmp_path, batch):
        model = GalaxyModel(
            disturb(make_encoder(posterior=posterior)),
            make_decoder(),
            flow(DIM, stages=2, hidden=(6,)),
            before_psf=False,
        )
        disturb(model.flow)
        model.save(tmp_path)
        again = GalaxyModel.load(tmp_path)
        assert (type(again.flow), again.encoder.posterior_kind, again.before_psf) == (flow, posterior, False)
        np.testing.assert_array_equal(again.sample_prior(3, seed=1), model.sample_prior(3, seed=1))
        program = tf.saved_model.load(str(tmp_path / "saved_model"))
        mean, _ = again.encode(batch["image"], batch["sigma"])
        np.testing.assert_allclose(program.encode(batch["image"], batch["sigma"])["mean"], mean, atol=1e-5)
        np.testing.assert_allclose(program.generate(normal(5, DIM)), model.generate(normal(5, DIM)), rtol=1e-4)
        assert set(program.signatures["to_latent"].structured_input_signature[1]) == {"u"}

    def test_prior_sample_is_seeded(self, model):
        a, b, c = (model.sample_prior(2, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, c, atol=1e-6)

    def test_found_by_path_and_version(self, model, saved):
        newer = saved.with_name("10")
        GalaxyModel(model.encoder, model.decoder, model.flow, pixel_scale=0.3).save(newer)
        assert load_galaxy_model(saved).pixel_scale == 0.2
        assert load_galaxy_model(saved.parent).pixel_scale == 0.3  # the newest by number: 10 after 1
        assert load_galaxy_model(saved.parent, version=1).pixel_scale == 0.2
        with pytest.raises(SavedModelError, match="no version 7; it has 1, 10"):
            load_galaxy_model(saved.parent, version=7)

    def test_errors_name_the_file(self, model, saved, tmp_path):
        with pytest.raises(SavedModelError, match="no galaxy model 'nebulae'"):
            load_galaxy_model("nebulae")
        with pytest.raises(SavedModelError, match="holds no versions"):
            load_galaxy_model(tmp_path)
        with pytest.raises(SavedModelError, match=r"no config\.json"):
            GalaxyModel.load(tmp_path)
        broken = tmp_path / "broken"
        broken.mkdir()
        config = json.loads((saved / "config.json").read_text())

        (broken / "config.json").write_text("{")
        with pytest.raises(SavedModelError, match=r"config\.json is not readable"):
            GalaxyModel.load(broken)
        (broken / "config.json").write_text(json.dumps({**config, "flow": {"kind": "glow"}}))
        with pytest.raises(SavedModelError, match="kind must be one of iaf, coupling, spline, got 'glow'"):
            GalaxyModel.load(broken)
        (broken / "config.json").write_text(json.dumps({**config, "format": "other"}))
        with pytest.raises(SavedModelError, match="does not describe a galaxy model"):
            GalaxyModel.load(broken)
        (broken / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "flow"}))
        with pytest.raises(SavedModelError, match="no model that can be built: KeyError"):
            GalaxyModel.load(broken)
        (broken / "config.json").write_text(json.dumps(config))
        with pytest.raises(SavedModelError, match=r"encoder\.weights\.h5 is missing"):
            GalaxyModel.load(broken)
        for name in ("encoder", "decoder", "flow"):
            content = (saved / f"{name}.weights.h5").read_bytes()
            (broken / f"{name}.weights.h5").write_bytes(content if name != "flow" else content[:-10])
        with pytest.raises(SavedModelError, match=r"flow\.weights\.h5 .*SHA-256"):
            GalaxyModel.load(broken)
        (broken / "flow.weights.h5").write_bytes((saved / "flow.weights.h5").read_bytes())
        config["decoder"]["filters"] = [8, 6, 5]
        (broken / "config.json").write_text(json.dumps(config))
        with pytest.raises(SavedModelError, match=r"decoder\.weights\.h5 does not fit"):
            GalaxyModel.load(broken)

    def test_psf_is_kept_with_its_digest(self, model, tmp_path):
        seen = model.replace(psf=hst_psf(0.2, 5), newton_steps=2)
        seen.save(tmp_path)
        again = GalaxyModel.load(tmp_path)
        np.testing.assert_array_equal(again.psf, seen.psf)
        path = tmp_path / "psf.npy"
        np.save(path, seen.psf[::-1] + np.float32(1e-3))
        with pytest.raises(SavedModelError, match=rf"^{re.escape(str(path))} is not the file .*SHA-256"):
            GalaxyModel.load(tmp_path)
        path.unlink()
        with pytest.raises(SavedModelError, match=rf"^{re.escape(str(path))} is missing"):
            GalaxyModel.load(tmp_path)

    def test_psf_of_another_model_is_not_picked_up(self, model, tmp_path):
        model.replace(psf=hst_psf(0.2, 5)).save(tmp_path)
        model.save(tmp_path)
        np.save(tmp_path / "psf.npy", hst_psf(0.2, 5))
        assert GalaxyModel.load(tmp_path).psf is None

    def test_replace_changes_what_it_is_told_only(self, model):
        settings = {
            "pixel_scale": 0.3,
            "resolution": 0.1,
            "before_psf": False,
            "psf": hst_psf(0.2, 5),
            "newton_steps": 2,
            "flow_in_elbo": True,
        }
        changed = model.replace(**settings)
        again = changed.replace(flow=make_flow(condition_dim=1), condition=Condition(("size",)))
        for name, value in settings.items():
            np.testing.assert_array_equal(getattr(again, name), value, name)
        assert (again.encoder, again.decoder, again.condition) == (model.encoder, model.decoder, Condition(("size",)))
        with pytest.raises(TypeError, match="pixel_scales"):
            model.replace(pixel_scales=0.1)

    def test_fit_prior_changes_the_prior_only(self, model, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "scripts")
        script, new = importlib.import_module("fit_prior"), make_flow(seed=7)
        old = model.replace(psf=hst_psf(0.2, 5), newton_steps=2, flow_in_elbo=True, resolution=0.1)
        old.save(tmp_path / "old")
        monkeypatch.setattr(script, "load_dataset", lambda path, split: split)
        monkeypatch.setattr(script, "train_flow", lambda *arguments: new)
        monkeypatch.setattr(sys, "argv", ["", "--model", f"{tmp_path}/old", "--out", f"{tmp_path}/new"])
        script.main()
        saved = GalaxyModel.load(tmp_path / "new")
        for name in ("pixel_scale", "resolution", "before_psf", "psf", "newton_steps", "flow_in_elbo"):
            np.testing.assert_array_equal(getattr(saved, name), getattr(old, name), name)
        np.testing.assert_array_equal(saved.sample_prior(2, 1), old.replace(flow=new).sample_prior(2, 1))

    def test_newton_steps_are_measured_into_a_table(self, model, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "scripts")
        script, tables = importlib.import_module("newton_steps"), importlib.import_module("update_tables")
        folder, kernel = tmp_path / "galaxies/2", hst_psf(0.2, 5)
        model.replace(psf=kernel, newton_steps=1).save(folder)
        galaxies = Dataset(blobs(12), np.arange(12), {}, {"psf": kernel.tolist()})
        monkeypatch.setattr(script, "load_dataset", lambda path, split: galaxies)
        monkeypatch.setattr(script, "STEPS", (0, 2))
        file = tmp_path / "records.json"
        monkeypatch.setattr(
            sys, "argv", ["newton_steps.py", "--model", str(folder), "--galaxies", "9", "--records", str(file)]
        )
        script.main()
        records = json.loads(file.read_text())
        assert {(record["newton_steps"], record["n"], record["variant"]) for record in records} == {
            (0, 9, "galaxies/2"),
            (2, 9, "galaxies/2"),
        }
        # Newton's steps of an untrained model fit better than none.
        none, two = ([r["value"] for r in records if (r["newton_steps"], r["id"]) == (n, "G2")] for n in (0, 2))
        assert all(b < a for a, b in zip(none, two, strict=True))
        rows = tables.newton_steps(records).splitlines()
        assert [row.split(" | ")[:2] for row in rows[2:4]] == [["| 0", f"{none[0]:.3f}"], ["| 2", f"{two[0]:.3f}"]]

    def test_wrong_shapes_are_named(self, model):
        with pytest.raises(ParameterError, match="latent dimension 4"):
            model.generate(tf.zeros((2, 3)))
        with pytest.raises(ParameterError, match=r"\[\.\.\., 16, 16\]"):
            model.encode(tf.zeros((2, 16, 12)), tf.ones(2))
        with pytest.raises(ParameterError, match="condition_dim 0 needs a condition of that length, got 2"):
            GalaxyModel(model.encoder, model.decoder, model.flow, condition=Condition(("a", "b")))
        with pytest.raises(ParameterError, match="one latent dimension"):
            GalaxyModel(make_encoder(), make_decoder(), InverseAutoregressiveFlow(3))


@pytest.fixture(scope="module")
def shipped():
    return load_galaxy_model("galaxies")


class TestNeuralSource:
    def test_priors_differ_by_the_flow_alone(self, shipped):
        u = tf.random.stateless_normal([3, shipped.latent_dim], [1, 2])
        flow, standard = NeuralSource(), NeuralSource(prior="normal")
        np.testing.assert_array_equal(flow.image(u), shipped.generate(u))
        np.testing.assert_array_equal(standard.image(u), shipped.decode(u))
        config = {"name": "galaxies", "version": None, "prior": "normal", "interpolation": "quadratic"}
        assert standard.get_config() == config

    def test_its_centre_is_that_of_its_light_wherever_the_stamp_has_it(self):
        source = NeuralSource()
        y, x = np.mgrid[-31.5:32, -31.5:32].astype(np.float32)
        stamp = np.exp(-((x - 3) ** 2 + (y + 2) ** 2) / 40) + 0.5 * np.exp(-((x + 5) ** 2 + (y - 6) ** 2) / 30)
        at = {"center_x": 0.3, "center_y": -0.1, "scale": 1.1}
        axis = np.linspace(-2.5, 2.5, 801, dtype=np.float32)
        light = source.brightness(axis[None], axis[:, None], image=tf.constant(stamp), **at).numpy().astype(float)
        weight = light**2 / (light**2).sum()
        np.testing.assert_allclose([(weight * axis).sum(), (weight * axis[:, None]).sum()], [0.3, -0.1], atol=3e-4)
        shifted = tf.roll(stamp, [3, -5], [0, 1])
        again = source.brightness(axis[None], axis[:, None], image=shifted, **at)
        np.testing.assert_allclose(again, light, atol=1e-4 * light.max())

    def test_its_gradient_does_not_jump_where_rays_cross_its_pixels(self, shipped):
        source, image = NeuralSource(), shipped.sample_prior(4, seed=2)
        x = tf.constant(np.linspace(-0.6, 0.6, 24001)[None, None], tf.float32)

        def steps(source: NeuralSource) -> np.ndarray:
            with tf.GradientTape() as tape:
                tape.watch(x)
                light = source.brightness(x, 0.01 * tf.ones_like(x), image=image, center_x=0.0, center_y=0.0, scale=1.0)
            slope = tape.gradient(light, x).numpy()[0, 0]
            return np.abs(np.diff(slope)).max() / np.abs(slope).max()

        assert steps(source) < 0.01
        assert steps(NeuralSource(interpolation="bilinear")) > 0.1

    def test_another_prior_is_refused(self):
        with pytest.raises(ParameterError, match='prior must be "flow" or "normal", got \'uniform\''):
            NeuralSource(prior="uniform")

    def test_another_interpolation_is_refused(self):
        with pytest.raises(ParameterError, match=r"NeuralSource\.interpolation must be one of .*, got 'nearest'"):
            NeuralSource(interpolation="nearest")


class TestShippedModel:
    def test_draws_galaxies(self, shipped):
        assert (shipped.stamp_size, shipped.pixel_scale) == (64, 0.05)
        images = shipped.sample_prior(16, seed=1).numpy()
        np.testing.assert_allclose(images.sum(axis=(1, 2)), 1, rtol=1e-4)
        # Centred, compact and of many shapes: most of the light in the inner quarter of the stamp, none alike.
        assert images[:, 16:48, 16:48].sum(axis=(1, 2)).min() > 0.5
        assert np.ptp(images.max(axis=(1, 2))) > 2e-3

    def test_explains_galaxies_of_another_seed(self, shipped):
        """To the noise at S/N 15-50; at S/N 100-300 what is left is a small part of it."""
        galaxies = np.array([simulate_galaxy(99, index) for index in range(32)])
        for snr_range, limit in (((15.0, 50.0), 1.03), ((100.0, 300.0), 1.3)):
            batch = next(iter(observed_galaxies(galaxies, shipped.psf, 32, seed=1, snr_range=snr_range, augment=False)))
            mean, _ = shipped.encode(batch["image"], batch["sigma"])
            seen = PSF(shipped.psf, (64, 64)).convolve(shipped.decode(mean))
            chi2 = tf.reduce_mean(((batch["image"] - seen) / batch["sigma"][:, None, None]) ** 2, (-2, -1))
            assert 0.97 < np.median(chi2) < limit

    def test_exported_program_agrees_with_keras(self, shipped):
        program = tf.saved_model.load(str(find_galaxy_model("galaxies") / "saved_model"))
        u = normal(2, shipped.latent_dim)
        np.testing.assert_allclose(program.generate(u), shipped.generate(u), rtol=1e-3, atol=1e-8)

    def test_all_models_fit_into_forty_megabytes(self):
        files = find_galaxy_model("galaxies").parents[1].rglob("*")
        assert sum(path.stat().st_size for path in files if path.is_file()) < 40e6
