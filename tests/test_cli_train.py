"""`tflens train`: what it writes and prints, that it goes on where it stopped, and what it refuses."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console
from tiny_galaxies import SIDE, blobs
from typer.testing import CliRunner

from tflens.cli import app
from tflens.datasets.records import Record, summarize_dataset, write_dataset
from tflens.galaxies import GalaxyModel
from tflens.galaxies.digit_reader import load_digit_reader
from tflens.galaxies.digit_recipe import read_digit_config
from tflens.galaxies.recipe import SHIPPED, read_config
from tflens.runs import read_runs
from tflens.terminal import showing_training

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

TINY = f"""
[encoder]
latent_dim = 2
stamp_size = {SIDE}
filters = [4, 4]
hidden = 8
[decoder]
latent_dim = 2
stamp_size = {SIDE}
filters = [4, 4, 4]
[observation]
batch_size = 16
[vae_training]
epochs = 2
[flow]
latent_dim = 2
stages = 2
hidden = [4]
[flow_training]
epochs = 1
draws = 1
"""
GALAXIES = (
    'extends = "galaxies"\n[data]\npsf = "none"\n[joint_training]\nepochs = 0\n'
    "[vae]\nnewton_steps = 0\nnewton_in_training = 0\nnewton_after = 0\n" + TINY
)
MNIST = (
    f'extends = "mnist"\n[reader]\nstamp_size = {SIDE}\nfilters = [4]\nhidden = 8\n[reader_training]\nepochs = 2\n'
    + TINY
)


def call(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    images = blobs(60)
    manifest = {"pixel_scale": 0.2, "resolution": 0.1}
    write_dataset(folder, manifest, range(60), lambda key: Record(images[key], key, {"label": float(key % 10)}))
    return folder


@pytest.fixture
def config(tmp_path):
    (tmp_path / "tiny.toml").write_text(GALAXIES)
    return tmp_path / "tiny.toml"


def test_galaxies_and_once_more(data, config, tmp_path):
    command = ("galaxies", "--data", data, "--config", config, "--run", tmp_path / "run")
    first = call(*command)
    assert first.exit_code == 0, first.output
    assert "vae" in first.stdout
    assert "flow" in first.stdout
    assert f"tensorboard --logdir {tmp_path / 'run'}" in first.stderr
    assert re.search(r"vae +50%  epoch 1: loss .* of validation data .*; \d+:\d\d:\d\d left at most", first.stderr)
    assert list((tmp_path / "run/vae/events").glob("events*"))
    model = GalaxyModel.load(tmp_path / "run/model")
    assert (model.pixel_scale, model.latent_dim) == (0.2, 2)
    noted = json.loads((tmp_path / "run/model/training.json").read_text())
    assert noted["config"] == read_config(config)
    assert noted["dataset"] == {"pixel_scale": 0.2, "resolution": 0.1}

    again = call(*command, "--json")
    assert again.exit_code == 0, again.output
    assert "epoch" not in again.stderr  # nothing was left to be trained
    found = json.loads(again.stdout)
    assert found["model"] == str(tmp_path / "run/model")
    _, trainings = read_runs([tmp_path / "run/vae", tmp_path / "run/flow"])
    assert [stage["validation_loss"] for stage in found["trainings"]] == [stage.validation_loss for stage in trainings]
    assert [stage["epochs"] for stage in found["trainings"]] == [2, 1]
    np.testing.assert_array_equal(GalaxyModel.load(tmp_path / "run/model").sample_prior(3, 1), model.sample_prior(3, 1))


@pytest.mark.slow
def test_digits_are_trained_read_and_measured(data, tmp_path):
    (tmp_path / "tiny.toml").write_text(MNIST)
    result = call("mnist", "--data", data, "--config", tmp_path / "tiny.toml", "--run", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [stage["run"].rpartition("/")[2] for stage in found["trainings"]] == ["vae", "flow", "reader"]
    assert 0 <= found["trainings"][-1]["metrics"]["accuracy"] <= 1
    assert [figures["snr_low"] for figures in found["held_out"]] == [20, 100]
    assert found["held_out"][0]["digits"] == found["reader"]["digits"] == summarize_dataset(data).kept["test"]
    reader = load_digit_reader(tmp_path / "run/model")
    assert reader.read(blobs(2)).shape == (2, 10)
    assert (tmp_path / "run/model/digits.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[vae]\nbetta = 0.5\n", ["[vae] knows no 'betta'; its keys: ", "beta", "free_bits"]),
        ("[decodre]\n", ["unknown table or key 'decodre'; known: seed, precision, data, "]),
        ("vae = 3\n", ["vae must be a table", "got 3"]),
        ("[reader]\n", ["unknown table or key 'reader'"]),
        ("[decoder]\nstamp_size = 32\n[encoder]\nstamp_size = 32\n", ["stamp_size must be", "16 x 16 pixels, got 32"]),
    ],
)
def test_wrong_configurations_are_refused(text, parts, data, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('extends = "galaxies"\n' + text)
    result = call("galaxies", "--data", data, "--config", path, "--run", tmp_path / "run", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    for part in parts if "stamp_size" in text else (str(path), *parts):
        assert part in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run/model").exists()


def test_a_dataset_without_labels_and_a_foreign_model_are_refused(data, config, tmp_path):
    images = blobs(60)
    write_dataset(tmp_path / "plain", {}, range(60), lambda key: Record(images[key], key))
    (tmp_path / "mnist.toml").write_text(MNIST)
    of_digits = ("mnist", "--config", tmp_path / "mnist.toml", "--run", tmp_path / "run")
    assert "tflens data mnist" in call(*of_digits, "--data", tmp_path / "plain").stderr
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text("{}")
    of_galaxies = ("galaxies", "--config", config, "--run", tmp_path / "run", "--data", data)
    result = call(*of_galaxies, "--out", tmp_path / "theirs")
    assert result.exit_code == 1
    assert f"--out {tmp_path / 'theirs'}: must be no folder of another model" in result.stderr
    assert (tmp_path / "theirs/config.json").read_text() == "{}"


def test_an_interrupted_training_says_how_to_go_on(data, config, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tflens.galaxies.recipe.train_galaxy_model", interrupted)
    result = call("galaxies", "--data", data, "--config", config, "--run", tmp_path / "run")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "the same command goes on from there" in result.stderr


def test_shipped_configurations_can_be_read():
    assert list(SHIPPED) == ["galaxies", "mnist"]
    assert read_config(SHIPPED["galaxies"])["joint_training"]["epochs"] > 0
    assert read_digit_config(SHIPPED["mnist"])["observation"]["symmetries"] is False


def test_time_left_follows_from_what_this_call_has_trained(monkeypatch):
    """Preparation does not count, nor what an earlier call did."""
    clock = iter([0.0, 100.0, 110.0, 130.0])
    monkeypatch.setattr("tflens.terminal.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=120)
    with showing_training(console) as progress:
        progress("flow", 0.5, {})
        progress("flow", 0.5, {})
        for epoch, fraction in ((6, 0.6), (7, 0.7)):
            progress("flow", fraction, {"epoch": float(epoch), "loss": 1.5, "validation_loss": 2.5})
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["flow", "50%", "done"]
    assert [line.partition("; ")[2] for line in lines[1:]] == ["0:00:40 left at most", "0:00:45 left at most"]


def test_bars_on_a_terminal():
    console = Console(force_terminal=True, width=120, record=True, legacy_windows=False)
    with showing_training(console) as progress:
        progress("vae", 0.5, {})
        progress("vae", 0.75, {"epoch": 3.0, "loss": 1.5, "validation_loss": 2.5})
    text = console.export_text()
    assert "75%" in text
    assert "epoch 3: loss 1.5, of validation data 2.5" in text
