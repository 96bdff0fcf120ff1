"""The galaxy model: encoder, decoder, flow, autoencoder, training, and the saved form. Tiny networks throughout."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tflens._tfp import tfd
from tflens.datasets.pipeline import Convolution, hst_psf, observed_galaxies
from tflens.datasets.simulated import simulate_galaxy
from tflens.errors import ParameterError, SavedModelError
from tflens.galaxies import GalaxyModel, load_galaxy_model
from tflens.galaxies.decoder import Decoder, Upsampling
from tflens.galaxies.encoder import Encoder
from tflens.galaxies.flow import Conditioner, InverseAutoregressiveFlow
from tflens.galaxies.metrics import noiseless_residual, peak_error, reduced_chi2
from tflens.galaxies.recipe import evaluate, train_galaxy_model
from tflens.galaxies.reconstruct import fit_latents
from tflens.galaxies.training import train
from tflens.galaxies.vae import GalaxyVAE, gaussian_kl, posterior_draws

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

DIM, SIDE = 4, 16


def normal(*shape, seed=1):
    return tf.random.stateless_normal(shape, [seed, 0])


def disturb(network, seed=2, size=0.3):
    """Weights away from their special start (zeros, identity)."""
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        variable.assign(variable.numpy() + size * rng.normal(size=variable.shape) / np.sqrt(variable.shape[0]))
    return network


def make_encoder():
    encoder = Encoder(DIM, SIDE, filters=(4, 8), hidden=8)
    encoder.build()
    return encoder


def make_decoder():
    decoder = Decoder(DIM, SIDE, filters=(8, 6, 4))
    decoder.build()
    return decoder


def make_flow(stages=2):
    flow = InverseAutoregressiveFlow(DIM, stages=stages, hidden=(12, 12))
    flow.build()
    return flow


def make_vae(**options):
    keras.utils.set_random_seed(1)
    vae = GalaxyVAE(make_encoder(), make_decoder(), hst_psf(0.2, 5), **options)
    vae.build()
    return vae


@pytest.fixture(scope="module")
def galaxies():
    return np.stack([simulate_galaxy(5, index, stamp=SIDE, pixel_scale=0.2) for index in range(24)])


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


class TestFlow:
    @pytest.mark.parametrize("trained", [False, True])
    def test_jacobian_is_triangular_also_after_a_step_of_the_optimiser(self, trained):
        conditioner = Conditioner(DIM, hidden=(12, 12))
        conditioner.build()
        disturb(conditioner)
        if trained:
            optimizer = keras.optimizers.Adam(0.1)
            for seed in range(3):
                with tf.GradientTape() as tape:
                    loss = tf.add_n([tf.reduce_sum(y**3) for y in conditioner(normal(8, DIM, seed=seed))])
                variables = conditioner.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
        x = normal(1, DIM)
        for output in (0, 1):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = conditioner(x)[output]
            jacobian = tape.jacobian(y, x)[0, :, 0, :].numpy()
            assert np.all(np.triu(jacobian) == 0)
            assert np.all(jacobian[np.tril_indices(DIM, -1)] != 0)

    def test_round_trip_without_the_cache(self):
        flow = disturb(make_flow(stages=3))
        bijector = flow.bijector()
        u = normal(50, DIM)
        z = bijector.forward(u)
        assert float(tf.reduce_max(tf.abs(z - u))) > 0.1
        np.testing.assert_allclose(bijector.inverse(tf.identity(z)), u, atol=1e-4)

    def test_density_is_that_of_the_change_of_variables(self):
        flow = disturb(make_flow())
        u = normal(1, DIM)
        with tf.GradientTape() as tape:
            tape.watch(u)
            z = flow(u)
        _, log_det = np.linalg.slogdet(tape.jacobian(z, u)[0, :, 0].numpy().astype(float))
        base = -0.5 * float(tf.reduce_sum(u**2)) - DIM / 2 * np.log(2 * np.pi)
        assert float(flow.log_prob(tf.identity(z))[0]) == pytest.approx(base - log_det, abs=1e-3)

    def test_starts_as_the_full_gaussian(self):
        flow = make_flow()
        rng = np.random.default_rng(1)
        z = rng.normal(size=(500, DIM)) @ rng.normal(size=(DIM, DIM)) + 1
        flow.adapt(z)
        gaussian = tfd.MultivariateNormalFullCovariance(z.mean(0), np.cov(z, rowvar=False))
        np.testing.assert_allclose(flow.log_prob(z.astype(np.float32)), gaussian.log_prob(z), rtol=1e-3)

    def test_every_variable_is_trained_and_saved(self, tmp_path):
        flow = make_flow()
        flow.compile(optimizer=keras.optimizers.Adam(1e-2))
        # Two steps: the inner layers of a conditioner move once its last layer is no longer zero.
        before = [variable.numpy() for variable in flow.trainable_variables]
        for seed in range(2):
            flow.train_step(normal(64, DIM, seed=seed) ** 2)
        assert len(before) == 2 * 2 * 3  # stages, kernel and bias, layers
        for old, variable in zip(before, flow.trainable_variables, strict=True):
            assert np.any(old != variable.numpy()), variable.path
        flow.save_weights(tmp_path / "flow.weights.h5")
        other = make_flow()
        other.load_weights(tmp_path / "flow.weights.h5")
        assert len(other.variables) == len(flow.variables) == len(before) + 2
        u = normal(5, DIM)
        np.testing.assert_array_equal(other(u), flow(u))

    def test_learns_what_a_gaussian_cannot(self):
        """Maximum likelihood on a curved density gains nats over the full Gaussian that it starts from."""
        keras.utils.set_random_seed(1)
        rng = np.random.default_rng(1)
        x = rng.normal(size=(4096, 2))
        z = np.stack([x[:, 0], x[:, 0] ** 2 + 0.3 * x[:, 1]], 1).astype(np.float32)
        flow = InverseAutoregressiveFlow(2, stages=2, hidden=(16,))
        flow.build()
        flow.adapt(z[:2048])
        flow.compile(optimizer=keras.optimizers.Adam(2e-2))
        held_out = z[2048:]
        start = float(flow.test_step(held_out)["loss"])
        step = tf.function(flow.train_step)
        for _ in range(150):
            step(z[:2048])
        assert float(flow.test_step(held_out)["loss"]) < start - 0.5


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

    def test_warm_up_and_free_bits(self, batch):
        """The weight of the KL at the first step is that of one step; a dimension costs its free bits at least."""
        for options in ({"warmup_steps": 4, "free_bits": 0.0}, {"warmup_steps": 0, "free_bits": 1e3}):
            vae = make_vae(**options)
            vae.compile(optimizer=keras.optimizers.SGD(0.0))
            vae.optimizer.build(vae.trainable_variables)
            chi2, kl = vae.elbo_terms(batch, seed=[0, 0])
            cost = DIM * 1e3 if options["free_bits"] else float(tf.reduce_mean(tf.reduce_sum(kl, -1))) / 4
            expected = float(tf.reduce_mean(chi2)) / 2 + cost
            assert float(vae.train_step(batch)["loss"]) == pytest.approx(expected, rel=1e-5)

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
        draws = posterior_draws(encoder, tf.data.Dataset.from_tensor_slices(many).batch(1000), seed=1)
        mean, scale = (value[0].numpy() for value in encoder(batch["image"], batch["sigma"]))
        spread = np.sqrt(np.diag(scale @ scale.T))
        np.testing.assert_allclose(draws.mean(0), mean, atol=5 * spread.max() / np.sqrt(4000))
        np.testing.assert_allclose(np.cov(draws, rowvar=False), scale @ scale.T, atol=0.12 * spread.max() ** 2)


class TestTraining:
    def run(self, galaxies, directory, epochs):
        vae = make_vae(warmup_steps=5)
        vae.compile(optimizer=keras.optimizers.Adam(1e-2))
        validation = observed_galaxies(galaxies[16:], hst_psf(0.2, 5), batch_size=5, seed=9, augment=False)

        def data(epoch):
            return observed_galaxies(galaxies[:16], hst_psf(0.2, 5), batch_size=8, epoch=epoch)

        return vae, train(vae, data, validation, directory, epochs)

    def test_killed_run_goes_on_as_if_it_had_not_been(self, galaxies, tmp_path):
        whole, history = self.run(galaxies, tmp_path / "whole", 4)
        self.run(galaxies, tmp_path / "parts", 2)
        parts, resumed = self.run(galaxies, tmp_path / "parts", 4)
        assert [record["epoch"] for record in resumed] == [1, 2, 3, 4]
        for a, b in zip(history, resumed, strict=True):
            assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-5)
        for a, b in zip(whole.trainable_variables, parts.trainable_variables, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)

    def test_learns_and_ends_with_the_best_weights(self, galaxies, tmp_path):
        vae, history = self.run(galaxies, tmp_path, 6)
        losses = [record["validation_loss"] for record in history]
        assert min(losses) < losses[0]
        assert list((tmp_path / "events").glob("events*"))
        saved = make_vae()
        saved.load_weights(tmp_path / "best.weights.h5")
        for a, b in zip(vae.trainable_variables, saved.trainable_variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_early_stopping(self, tmp_path):
        flow = make_flow()
        flow.compile(optimizer=keras.optimizers.SGD(0.0))
        data = tf.data.Dataset.from_tensors(normal(8, DIM))
        assert len(train(flow, lambda epoch: data, data, tmp_path, epochs=50, patience=3)) == 4

    def test_recipe_from_galaxies_to_a_measured_model(self, galaxies, tmp_path):
        config = {
            "seed": 1,
            "observation": {"snr_range": [15.0, 50.0], "batch_size": 8},
            "encoder": {"latent_dim": 2, "stamp_size": SIDE, "filters": [4, 4], "hidden": 8},
            "decoder": {"latent_dim": 2, "stamp_size": SIDE, "filters": [4, 4, 4]},
            "vae": {"free_bits": 0.05, "warmup_steps": 2, "learning_rate": 1e-3, "epochs": 1, "patience": 1},
            "flow": {"latent_dim": 2, "stages": 2, "hidden": [4]},
            "flow_training": {"draws": 2, "batch_size": 16, "learning_rate": 1e-3, "epochs": 1, "patience": 1},
        }
        splits = {"train": galaxies[:12], "validation": galaxies[12:18], "test": galaxies[18:]}
        model, _ = train_galaxy_model(config, splits, tmp_path)
        figures = evaluate(config, model, splits, (15.0, 50.0))
        assert figures["galaxies"] == 6
        assert all(np.isfinite(value) for value in figures.values())
        assert list((tmp_path / "vae/events").glob("events*"))


def test_latents_are_found_by_optimisation(model):
    """Images drawn by the model itself, at high S/N: the fit reaches the noise, which u = 0 is far from."""
    psf = Convolution(hst_psf(0.2, 5), (SIDE, SIDE))
    truth = psf(model.generate(0.7 * normal(4, DIM, seed=8)))
    sigma = tf.sqrt(tf.reduce_sum(truth**2, (1, 2))) / 100
    image = truth + sigma[:, None, None] * normal(4, SIDE, SIDE, seed=9)
    fitted = psf(model.generate(fit_latents(model, image, sigma, psf, steps=200)))
    start = psf(model.generate(tf.zeros((4, DIM))))
    chi2 = reduced_chi2(image.numpy(), fitted.numpy(), sigma.numpy())
    assert np.all(chi2 < 1.3)
    assert np.all(reduced_chi2(image.numpy(), start.numpy(), sigma.numpy()) > 2)


class TestMetrics:
    def test_perfect_model(self, batch):
        signal, sigma = batch["signal"].numpy(), batch["sigma"].numpy()
        assert np.all(noiseless_residual(signal, signal, sigma) == 0)
        assert np.all(peak_error(signal, signal) == 0)

    def test_constant_offset_is_its_own_rms(self, batch):
        signal, sigma = batch["signal"].numpy(), batch["sigma"].numpy()
        np.testing.assert_allclose(
            noiseless_residual(signal, signal + 0.5 * sigma[:, None, None], sigma), 0.5, rtol=1e-4
        )


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

    def test_wrong_shapes_are_named(self, model):
        with pytest.raises(ParameterError, match="latent dimension 4"):
            model.generate(tf.zeros((2, 3)))
        with pytest.raises(ParameterError, match=r"\[\.\.\., 16, 16\]"):
            model.encode(tf.zeros((2, 16, 12)), tf.ones(2))
        with pytest.raises(ParameterError, match="one latent dimension"):
            GalaxyModel(make_encoder(), make_decoder(), InverseAutoregressiveFlow(3))


class TestShippedModel:
    def test_draws_galaxies(self):
        model = load_galaxy_model("galaxies", version=1)
        assert (model.stamp_size, model.pixel_scale) == (64, 0.05)
        images = model.sample_prior(16, seed=1).numpy()
        np.testing.assert_allclose(images.sum(axis=(1, 2)), 1, rtol=1e-4)
        # Centred, compact and of many shapes: most of the light in the inner quarter of the stamp, none alike.
        assert images[:, 16:48, 16:48].sum(axis=(1, 2)).min() > 0.5
        assert np.ptp(images.max(axis=(1, 2))) > 2e-3

    def test_exported_program_agrees_with_keras(self):
        model = load_galaxy_model("galaxies", version=1)
        directory = Path(__file__).resolve().parents[1] / "saved_models/galaxies/1"
        program = tf.saved_model.load(str(directory / "saved_model"))
        u = normal(2, model.latent_dim)
        np.testing.assert_allclose(program.generate(u), model.generate(u), rtol=1e-3, atol=1e-8)
