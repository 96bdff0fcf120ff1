"""The amortised start: what it is trained on, what it is shown, and where a search then begins."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_lens

from tflens.errors import ParameterError, SavedModelError
from tflens.grid import PixelGrid
from tflens.inference.initial import Glance
from tflens.inference.map import draw_starts
from tflens.inference.mock_lenses import fitted_source, lens_model, survey
from tflens.inference.starter import Starter, StarterNetwork
from tflens.inference.starter_training import Examples, MockStream, measure, negative_log_likelihood
from tflens.light import Sersic
from tflens.observation import Observation

# Of Keras, when weights are saved.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@functools.cache
def untrained() -> Starter:
    tf.keras.utils.set_random_seed(3)
    return Starter(StarterNetwork(17, channels=(4, 4, 4, 4), width=8))


@functools.cache
def shipped() -> Starter:
    return Starter.load()


def lens_at(x: float, y: float, shape: tuple[int, int] = (70, 80), scale: float = 0.1) -> Observation:
    """A round blob at (x, y), arcsec, and weak noise."""
    across, up = PixelGrid(shape, scale).coordinates()
    image = 50 * np.exp(-((across - x) ** 2 + (up - y) ** 2) / 0.1)
    noise = np.full(shape, 0.5)
    return Observation(image + np.random.default_rng(0).normal(0, noise), noise, np.ones((1, 1)), scale, name="blob")


class TestMocks:
    def test_they_are_those_of_the_survey(self):
        """The brightest pixel of the arcs, and the flux of the lens over that of the arcs, lie where the survey has
        them; the truth is a draw of N(0, I)."""
        stream = MockStream(batch=16)
        first, other = stream.draw(1, 0), stream.draw(1, 1)
        assert first.images.shape == (16, *survey().grid.shape)
        assert first.truth.shape == (16, stream.model.physical_dim)
        np.testing.assert_array_equal(first.images, stream.draw(1, 0).images)
        assert (first.truth.numpy() != other.truth.numpy()).all()
        truth = np.concatenate([stream.draw(2, step).truth.numpy() for step in range(8)])
        assert abs(truth.mean()) < 5 / np.sqrt(truth.size)
        assert abs(truth.std() - 1) < 5 / np.sqrt(2 * truth.size)

    def test_an_image_is_that_of_its_truth(self):
        """The model at the true parameters and latents, amplitudes free, leaves noise: chi^2 of the pixels."""
        stream = MockStream(batch=4)
        seed = tf.constant([5, 0], tf.int32)
        u = tf.random.stateless_normal([4, stream.model.dim], tf.unstack(tf.random.split(seed, 3))[0])
        examples = stream.draw(5, 0)
        np.testing.assert_array_equal(examples.truth, u[:, : stream.model.physical_dim])
        signal = stream.noiseless(seed)[0].numpy()
        unit = stream.target.component_images(u, tf.ones([4, 3])).numpy()
        for i in range(4):
            design = np.reshape(unit[i, :2] / signal[i].std(), (2, -1))
            amplitudes = np.linalg.lstsq(design.T, np.ravel(signal[i] / signal[i].std()), rcond=None)[0]
            np.testing.assert_allclose(amplitudes @ design, np.ravel(signal[i] / signal[i].std()), atol=1e-3)
            assert (amplitudes > 0).all()
        image, noise = stream.noiseless(seed)
        left = examples.images - image / noise
        assert abs(float(tf.math.reduce_std(left)) - 1) < 5 / np.sqrt(2 * left.numpy().size)


class TestNetwork:
    def test_config_round_trip_and_shapes(self):
        network = StarterNetwork.from_config(untrained().network.get_config())
        network.build((None, 52, 54))
        mean, scale = network(tf.zeros([3, 52, 54]))
        assert mean.shape == scale.shape == (3, 17)
        assert (scale.numpy() > 0).all()

    def test_saved_and_loaded_it_says_the_same(self, tmp_path):
        untrained().save(tmp_path / "starter")
        again = Starter.load(tmp_path / "starter")
        images = np.random.default_rng(1).normal(size=(2, 52, 54))
        for mine, theirs in zip(untrained().guess(images), again.guess(images), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize("content", ["{}", "not json", '{"format": "tflens.starter", "version": 1}'])
    def test_what_is_no_starter_is_refused(self, tmp_path, content):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(SavedModelError, match="starter"):
            Starter.load(tmp_path)

    def test_null_of_the_loss(self):
        """A network that says N(0, 1) has the entropy of it."""

        def unit(images):
            return tf.zeros([len(images), 5]), tf.ones([len(images), 5])

        truth = tf.random.stateless_normal([4000, 5], [1, 2])
        found = float(negative_log_likelihood(unit, Examples(tf.zeros([4000, 3, 3]), truth)))
        assert found == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.02)


class TestFrame:
    @pytest.mark.parametrize("place", [(0.0, 0.0), (1.3, -0.85), (-3.0, 2.5)])
    def test_the_lens_comes_to_the_middle(self, place):
        framed, middle = untrained().frame(lens_at(*place), place)
        assert framed.shape == (52, 54)
        row, column = np.unravel_index(np.argmax(framed), framed.shape)
        assert abs(row - 25.5) <= 1
        assert abs(column - 26.5) <= 1
        assert middle == pytest.approx(place, abs=0.0501)
        x, y = PixelGrid((52, 54), 0.1).coordinates()
        weight = np.where(framed > 20, framed, 0)
        found = [np.sum(weight * axis) / weight.sum() + offset for axis, offset in zip((x, y), middle, strict=True)]
        assert found == pytest.approx(place, abs=0.03)

    def test_small_pixels_are_binned(self):
        framed, middle = untrained().frame(lens_at(0.4, 0.3, (140, 150), 0.05), (0.4, 0.3))
        coarse, _ = untrained().frame(lens_at(0.4, 0.3), (0.4, 0.3))
        assert middle == pytest.approx((0.4, 0.3), abs=0.06)
        # Four pixels of the same brightness have half the noise of one.
        assert framed.max() == pytest.approx(2 * coarse.max(), rel=0.1)
        assert np.std(framed[:10]) == pytest.approx(1, abs=0.1)

    def test_pixels_that_cannot_be_binned_are_refused(self):
        with pytest.raises(ParameterError, match=r"'blob' has pixels of 0\.16 arcsec.*take the start 'broad'"):
            untrained().frame(lens_at(0, 0, scale=0.16), (0, 0))


class TestStarts:
    LOOK = Glance(
        center=(0.0, 0.0),
        radii=np.array([0.8]),
        weights=np.array([1.0]),
        mask=np.ones(tiny_lens.SHAPE, bool),
        frame=(slice(None), slice(None)),
        light={"light.R_sersic": 0.4},
        excess=np.zeros(tiny_lens.SHAPE),
    )

    def test_three_of_four_take_the_guesses(self):
        model = lens_model(Sersic())
        guesses = {name: np.full(8, 0.1) for name in model.names if name.startswith(("lens.e", "shear"))}
        guesses |= {"lens.theta_E": np.full(8, 1.7), "lens.gamma": np.full(8, 2.1), "light.R_sersic": np.full(8, 9.0)}
        u = draw_starts(model, self.LOOK, 8, np.random.default_rng(0), guesses)
        theta_E = model.physical(tf.constant(u))["lens.theta_E"].numpy()
        guessed = np.arange(8) % 4 != 0
        assert np.abs(theta_E[guessed] / 1.7 - 1).max() < 0.05
        assert np.abs(theta_E[~guessed] / 0.8 - 1).max() < 0.6
        # The first look knows the light of the lens better.
        radius = model.physical(tf.constant(u))["light.R_sersic"].numpy()
        np.testing.assert_allclose(radius, 0.4, rtol=0.1)

    def test_a_guess_beyond_a_prior_stays_finite(self):
        model = lens_model(Sersic())
        u = draw_starts(model, self.LOOK, 4, np.random.default_rng(0), {"lens.theta_E": np.full(4, 1e9)})
        assert np.isfinite(u).all()
        assert np.abs(u).max() < 10


class TestShipped:
    def test_guesses_are_good_and_honest(self):
        rows = {row["name"]: row for row in measure(shipped(), batches=2, seed=77)}
        assert rows["lens.theta_E"]["error"] < 0.06
        for name in ("lens.theta_E", "light.center_x", "light.center_y"):
            assert rows[name]["explained"] > 0.5
        for row in rows.values():
            assert 0.7 < row["z_std"] < 1.4

    def test_draws_have_the_names_of_the_model_and_lie_around_the_lens(self):
        model = lens_model(fitted_source("normal"))
        drawn = shipped().draw(lens_at(1.0, -0.5), (1.0, -0.5), 50, np.random.default_rng(0))
        assert set(drawn) == set(model.names)
        assert np.mean(drawn["light.center_x"]) == pytest.approx(1.0, abs=0.15)
        assert np.mean(drawn["light.center_y"]) == pytest.approx(-0.5, abs=0.15)
