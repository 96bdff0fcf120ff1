"""The training loop: resumable bit for bit, the same on one device and on two, in mixed precision, and measured."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_galaxies import SIDE, adam, blobs, make_decoder, make_encoder, normal

from tflens.datasets.pipeline import hst_psf, observed_galaxies
from tflens.datasets.records import Dataset
from tflens.errors import ParameterError
from tflens.galaxies.recipe import SHIPPED, Reports, check_config, read_config, train_galaxy_model
from tflens.galaxies.source import GalaxyModel
from tflens.galaxies.training import Trainable, batch_mean, seconds_of_training, train
from tflens.galaxies.vae import GalaxyVAE

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[1]
PSF = hst_psf(0.2, 5)


def make_vae(**options):
    keras.utils.set_random_seed(1)
    vae = GalaxyVAE(make_encoder(), make_decoder(), PSF, **options)
    vae.build()
    return vae


def training_data(epoch, count=19):
    return observed_galaxies(blobs(count), PSF, batch_size=8, epoch=epoch)


VALIDATION = observed_galaxies(blobs(7, seed=6), PSF, batch_size=4, seed=9, augment=False)


def run(directory, epochs, **options):
    vae = make_vae(warmup_steps=5)
    vae.compile(optimizer=adam())
    return vae, train(vae, training_data, VALIDATION, directory, epochs, **options)


class Line(Trainable):
    """Least squares in one weight, for which everything is known."""

    def __init__(self):
        super().__init__()
        self.slope = self.add_weight(shape=(), initializer="zeros", name="slope")
        self.built = True

    def training_terms(self, batch, step):
        return {"loss": batch_mean((self.slope * batch[:, 0] - batch[:, 1]) ** 2), "step": tf.cast(step, tf.float32)}

    def validation_terms(self, batch):
        return {"loss": batch_mean((self.slope * batch[:, 0] - batch[:, 1]) ** 2)}


def line(rate=0.0):
    model = Line()
    model.compile(optimizer=keras.optimizers.SGD(rate))
    return model


POINTS = tf.data.Dataset.from_tensor_slices(np.array([[1, 2], [2, 1], [3, 5]], np.float32))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 epochs: its directory, model and history."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, *run(directory, 4)


class TestTrain:
    def test_killed_run_goes_on_bit_for_bit(self, whole, tmp_path):
        """After epoch 2 of 4."""
        _, uninterrupted, history = whole
        _, begun = run(tmp_path, 2)
        parts, resumed = run(tmp_path, 4)
        for a, b in zip(history, resumed, strict=True):
            for name in a.keys() - {"seconds", "data_wait"}:
                assert a[name] == b[name], name
        for a, b in zip(uninterrupted.variables, parts.variables, strict=True):
            np.testing.assert_array_equal(a, b)
        # Its time is that of both calls.
        both = [record["seconds"] for record in (*begun, *resumed[2:])]
        assert seconds_of_training(tmp_path) == pytest.approx(sum(both))

    def test_killed_before_the_checkpoint_of_an_epoch(self, tmp_path, monkeypatch):
        """What was written since the checkpoint before is made again: the same history, the same best weights."""

        def points(epoch):
            return POINTS.shuffle(3, seed=epoch).batch(1)

        uninterrupted = line(1e-2)
        history = train(uninterrupted, points, POINTS.batch(3), tmp_path / "whole", 3)
        save, saved = tf.train.CheckpointManager.save, []

        def die_at_the_second(manager):
            saved.append(0)
            if len(saved) == 2:
                raise KeyboardInterrupt
            return save(manager)

        monkeypatch.setattr(tf.train.CheckpointManager, "save", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(line(1e-2), points, POINTS.batch(3), tmp_path / "parts", 3)
        model = line(1e-2)
        resumed = train(model, points, POINTS.batch(3), tmp_path / "parts", 3)
        assert [record["validation_loss"] for record in resumed] == [record["validation_loss"] for record in history]
        assert float(model.slope) == float(uninterrupted.slope)

    def test_learns_and_ends_with_the_best_weights(self, whole):
        directory, vae, history = whole
        losses = [record["validation_loss"] for record in history]
        assert min(losses) < losses[0]
        assert json.loads((directory / "history.json").read_text()) == history
        saved = make_vae()
        saved.load_weights(directory / "best.weights.h5")
        for a, b in zip(vae.trainable_variables, saved.trainable_variables, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_means_are_over_galaxies_not_batches(self, tmp_path):
        """The last batch is smaller: weighted by its size."""
        (record,) = train(line(), lambda epoch: POINTS.batch(2), POINTS.batch(2), tmp_path, 1)
        assert record["loss"] == record["validation_loss"] == pytest.approx((4 + 1 + 25) / 3)
        assert record["step"] == pytest.approx((2 * 0 + 1 * 1) / 3)

    def test_records_gradient_norm_learning_rate_and_waiting(self, tmp_path):
        model = line()
        model.compile(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(1e-9, 1, 0.5)))
        (record,) = train(model, lambda epoch: POINTS.batch(3), POINTS.batch(3), tmp_path, 1)
        assert record["gradient_norm"] == pytest.approx(2 * (2 + 2 + 15) / 3)  # of mean (s x - y)^2 at s = 0
        assert record["learning_rate"] == pytest.approx(0.5e-9)
        assert 0 <= record["data_wait"] <= 1

    def test_slow_data_show_in_the_time_of_waiting(self, tmp_path):
        def slow(row):
            tf.py_function(lambda: __import__("time").sleep(0.05), [], [])
            return row

        data = POINTS.repeat(4).batch(2).map(slow)
        (record,) = train(line(), lambda epoch: data, POINTS.batch(2), tmp_path, 1)
        assert record["data_wait"] > 0.5

    def test_early_stopping(self, tmp_path):
        assert len(train(line(), lambda epoch: POINTS.batch(3), POINTS.batch(3), tmp_path, 50, patience=3)) == 4

    def test_calls_are_surrounded(self, tmp_path):
        seen = []

        @contextlib.contextmanager
        def around(step):
            seen.append(step)
            yield

        data = POINTS.batch(1)
        train(line(), lambda epoch: data, data, tmp_path, 2, steps_per_call=2, around_call=around)
        assert seen == [0, 2, 3, 5]

    def test_errors(self, tmp_path):
        bad = POINTS.map(lambda row: row * np.nan).batch(1)
        unknown = POINTS.batch(1).filter(lambda row: True)
        with pytest.raises(ParameterError, match="one batch at least, of a known number"):
            train(line(), lambda epoch: unknown, POINTS.batch(1), tmp_path / "a", 1)
        with pytest.raises(ParameterError, match="validation loss must be finite, got nan after epoch 1"):
            train(line(), lambda epoch: POINTS.batch(1), bad, tmp_path / "b", 1)


def clipped_run(directory):
    """Free bits are no sum over galaxies, clipping no sum over devices: both must see the whole batch."""
    vae = make_vae(warmup_steps=3, free_bits=0.5)
    vae.compile(optimizer=adam(1e-3, global_clipnorm=1.0))
    history = train(vae, training_data, VALIDATION, directory, 2)
    return history, [np.abs(weight.numpy()).sum() for weight in vae.trainable_variables]


ON_TWO_DEVICES = """
import json, sys
import tensorflow as tf
sys.path.insert(0, {tests!r})
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_training import clipped_run
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    history, weights = clipped_run({directory!r})
print(json.dumps([history, [float(weight) for weight in weights]]))
"""


def test_two_devices_do_what_one_does(tmp_path):
    """Also with a last batch of 3 galaxies, which two devices cannot share evenly."""
    code = ON_TWO_DEVICES.format(tests=str(ROOT / "tests"), directory=str(tmp_path / "two"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    two, weights_two = json.loads(result.stdout.splitlines()[-1])
    one, weights_one = clipped_run(tmp_path / "one")
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "chi2", "kl", "gradient_norm", "validation_loss"):
            assert a[name] == pytest.approx(b[name], rel=1e-5), name
    np.testing.assert_allclose(weights_one, weights_two, rtol=1e-4)


class TestMixedPrecision:
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_computes_in_half_precision_and_agrees(self, policy):
        """Convolutions in half precision; weights, posterior and likelihood in float32."""
        exact = make_vae()
        batch = next(iter(training_data(0)))
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            vae = make_vae()
        finally:
            keras.config.set_dtype_policy(before)
        assert vae.encoder.convolutions[0].compute_dtype == policy.removeprefix("mixed_")
        for variable in vae.trainable_variables:
            assert variable.dtype == "float32"
        vae.set_weights(exact.get_weights())
        chi2, kl = vae.elbo_terms(batch, seed=[0, 0])
        assert chi2.dtype == kl.dtype == tf.float32
        expected_chi2, expected_kl = exact.elbo_terms(batch, seed=[0, 0])
        np.testing.assert_allclose(chi2, expected_chi2, rtol=0.02)
        np.testing.assert_allclose(tf.reduce_sum(kl, -1), tf.reduce_sum(expected_kl, -1), rtol=0.05)

    def test_loss_scaling_changes_neither_gradient_nor_its_norm(self):
        model, scaled = line(), line()
        model.compile(optimizer=keras.optimizers.SGD(0.1, global_clipnorm=3.0))
        scaled.compile(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, global_clipnorm=3.0)))
        scaled.optimizer.build(scaled.trainable_variables)
        batch = next(iter(POINTS.batch(3)))
        a, b = model.train_step(batch), scaled.train_step(batch)
        assert float(a["gradient_norm"]) == pytest.approx(float(b["gradient_norm"]), rel=1e-6)
        assert float(model.slope) == pytest.approx(float(scaled.slope), rel=1e-6)
        assert float(model.slope) == pytest.approx(0.3)


def dataset(images, **metadata):
    return Dataset(images, np.arange(len(images)), metadata, {"pixel_scale": 0.2, "resolution": 0.1})


@pytest.fixture
def config():
    return {
        "seed": 1,
        "data": {"psf": "none"},
        "observation": {"snr_range": [15.0, 50.0], "batch_size": 8},
        "encoder": {"latent_dim": 2, "stamp_size": SIDE, "filters": [4, 4], "hidden": 8},
        "decoder": {"latent_dim": 2, "stamp_size": SIDE, "filters": [4, 4, 4]},
        "vae": {"free_bits": 0.05, "warmup_steps": 2},
        "vae_training": {"epochs": 1, "learning_rate": 1e-3},
        "flow": {"latent_dim": 2, "stages": 2, "hidden": [4]},
        "flow_training": {"draws": 2, "batch_size": 16, "learning_rate": 1e-3, "epochs": 1},
    }


class TestRecipe:
    def test_from_galaxies_to_a_model_that_loads(self, config, tmp_path):
        """Three stages, conditional flow, watched; a second call does nothing more, and gives the same model."""
        config |= {
            "condition": {"logarithmic": ["size"], "classes": {"kind": 2}},
            "joint_training": {"epochs": 1, "learning_rate": 1e-3},
        }
        properties = {"size": np.linspace(1, 2, 24, dtype=np.float32), "kind": np.arange(24) % 2}
        images = blobs(24)
        splits = {
            name: dataset(images[part], **{key: value[part] for key, value in properties.items()})
            for name, part in (("train", slice(16)), ("validation", slice(16, 24)))
        }
        records = []
        model, seconds = train_galaxy_model(config, splits, tmp_path, Reports(records.append, profile=(0, 0)))
        assert [record["epoch"] for record in records] == [1, 1, 1, 1]
        assert list(seconds) == ["vae", "flow", "joint", "final_flow"]
        assert list(seconds.values()) == [record["seconds"] for record in records]
        for stage in ("vae", "flow", "joint"):
            assert list((tmp_path / stage / "events").glob("events*"))
            assert list((tmp_path / stage / "events/plugins/profile").rglob("*.xplane.pb"))
        for stage in ("vae", "joint"):
            assert (tmp_path / stage / "events/embedding/metadata.tsv").read_text().startswith("size\tkind\n")
        assert (model.pixel_scale, model.resolution, model.flow.condition_dim) == (0.2, 0.1, 3)

        with np.load(tmp_path / "flow/draws.npz") as kept:
            assert {name: len(values) for name, values in kept.items()} == {
                **{"train_0": 32, "train_1": 32},  # two draws a galaxy, and its condition
                **{"validation_0": 8, "validation_1": 8},
            }
        again, same_seconds = train_galaxy_model(config, splits, tmp_path, Reports(records.append, profile=(0, 0)))
        assert len(records) == 4
        assert same_seconds == seconds
        condition = model.condition({"size": [1.5], "kind": [1]})
        expected = model.sample_prior(3, 1, condition)
        np.testing.assert_array_equal(again.sample_prior(3, 1, condition), expected)
        model.save(tmp_path / "saved")
        loaded = GalaxyModel.load(tmp_path / "saved")
        assert loaded.condition == model.condition
        np.testing.assert_array_equal(loaded.sample_prior(3, 1, condition), expected)
        program = tf.saved_model.load(str(tmp_path / "saved/saved_model"))
        u = normal(3, 2)
        np.testing.assert_allclose(
            program.generate(u, tf.repeat(condition, 3, 0)), model.generate(u, condition), rtol=1e-4
        )

    def test_real_galaxies_with_their_noise(self, config, tmp_path):
        config |= {"flow": {**config["flow"], "kind": "coupling"}, "precision": "mixed_bfloat16"}
        images = 50 * blobs(24)
        noise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
        properties = {"flux": np.full(24, 50, np.float32), "sigma": np.full(24, 0.1, np.float32)}
        splits = dict.fromkeys(("train", "validation"), dataset(images + 0.1 * noise, **properties))
        model, _ = train_galaxy_model(config, splits, tmp_path, Reports(watch=False))
        assert not (tmp_path / "vae/events").exists()
        mean, scale = model.encode(images[:2] / 50, np.full(2, 0.002, np.float32))
        assert mean.dtype == scale.dtype == tf.float32
        assert np.isfinite(mean).all()

    def test_another_configuration_is_refused(self, config, tmp_path):
        splits = dict.fromkeys(("train", "validation"), dataset(blobs(8)))
        train_galaxy_model(config, splits, tmp_path, Reports(watch=False))
        config["vae"]["free_bits"] = 0.1
        with pytest.raises(ParameterError, match="holds a run of another configuration"):
            train_galaxy_model(config, splits, tmp_path, Reports(watch=False))


class TestConfig:
    def test_unknown_tables_and_keys_are_named(self, config):
        for table, key in (
            ("data", "count"),
            ("encoder", "latent"),
            ("vae", "seed"),
            ("vae_training", "draws"),
            ("observation", "psf"),
        ):
            with pytest.raises(ParameterError, match=rf"\[{table}\] knows no '{key}'; its keys: "):
                check_config({**config, table: {**config[table], key: 1}})
        with pytest.raises(ParameterError, match="unknown table or key 'decodre'"):
            check_config({**config, "decodre": {}})
        with pytest.raises(ParameterError, match=r"the table \[flow\] is missing"):
            check_config({name: table for name, table in config.items() if name != "flow"})
        with pytest.raises(ParameterError, match="flow: kind must be one of iaf, coupling, spline, got 'glow'"):
            check_config({**config, "flow": {"kind": "glow"}})
        with pytest.raises(ParameterError, match="precision must be one of float32"):
            check_config({**config, "precision": "float8"})

    def test_keys_of_a_kind_belong_to_it(self, config):
        check_config({**config, "flow": {"kind": "spline", "bins": 4}})
        with pytest.raises(ParameterError, match=r"\[flow\] knows no 'bins'"):
            check_config({**config, "flow": {"kind": "coupling", "bins": 4}})

    def test_files_extend_one_another(self, tmp_path):
        base = SHIPPED["galaxies"].read_text()
        (tmp_path / "base.toml").write_text(base)
        (tmp_path / "half.toml").write_text('extends = "base.toml"\n[vae]\nbeta = 0.5\n')
        config, changed = read_config(tmp_path / "base.toml"), read_config(tmp_path / "half.toml")
        assert changed["vae"].pop("beta") == 0.5
        assert config["vae"].pop("beta") == 1.0
        assert changed == config
        (tmp_path / "wrong.toml").write_text('extends = "base.toml"\n[vae]\nbetta = 0.5\n')
        with pytest.raises(ParameterError, match=r"wrong\.toml: \[vae\] knows no 'betta'"):
            read_config(tmp_path / "wrong.toml")
        (tmp_path / "broken.toml").write_text("[vae\n")
        with pytest.raises(ParameterError, match=r"broken\.toml: .* readable TOML"):
            read_config(tmp_path / "broken.toml")
        with pytest.raises(ParameterError, match=r"none\.toml: the configuration does not exist"):
            read_config(tmp_path / "none.toml")

    @pytest.mark.parametrize("path", sorted(ROOT.glob("scripts/ablation/*.toml")), ids=lambda path: path.stem)
    def test_every_row_of_the_ablation_can_be_read(self, path):
        config = read_config(path)
        assert config["encoder"]["latent_dim"] == config["decoder"]["latent_dim"] == config["flow"]["latent_dim"]
