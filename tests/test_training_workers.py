"""Training by several processes of one `MultiWorkerMirroredStrategy`: the same as by one with the batch of all."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli_train import GALAXIES
from tiny_galaxies import blobs
from workers_training import noisy_line

from tflens.datasets.records import Record, write_dataset
from tflens.errors import ParameterError
from tflens.galaxies import load_galaxy_model
from tflens.galaxies.training import strategy_of_environment

# Keras 3 turns its variables into arrays, when it saves them, in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5  # sums of float32 in another order

SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from tflens.galaxies.training import strategy_of_environment
with strategy_of_environment().scope():
    import workers_training
    print(json.dumps(workers_training.{run}({directory!r}, {epochs})))
"""


def together(arguments: list[str], workers: int) -> list[str]:
    """The outputs of processes that are told of each other."""
    sockets = [socket.socket() for _ in range(workers)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    cluster = {"worker": ["{}:{}".format(*each.getsockname()) for each in sockets]}
    for each in sockets:
        each.close()
    processes = []
    for index in range(workers):
        config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = os.environ | ({"TF_CONFIG": config} if workers > 1 else {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([sys.executable, *arguments], env=environment, **pipes))
    try:
        outputs = [each.communicate(timeout=400) for each in processes]
    finally:
        for each in processes:
            each.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [output for output, _ in outputs]


def train_together(run: str, directory: Path, workers: int, epochs: int = 2) -> list[tuple[list[dict], list[float]]]:
    """History and weights of each worker."""
    code = SCRIPT.format(tests=str(ROOT / "tests"), run=run, directory=str(directory), epochs=epochs)
    return [json.loads(output.splitlines()[-1]) for output in together(["-c", code], workers)]


def assert_same(one: list[dict], two: list[dict]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for name in a.keys() - {"seconds", "data_wait"}:
            assert a[name] == pytest.approx(b[name], rel=TOLERANCE), name


def test_two_go_on_as_one_does(tmp_path):
    """From the checkpoint of one, also with a last batch that two cannot share evenly; the chief alone writes."""
    begun, _ = noisy_line(tmp_path / "two", 2)
    two = train_together("noisy_line", tmp_path / "two", 2, epochs=4)
    history, weights = noisy_line(tmp_path / "one", 4)
    assert history[-1]["loss"] < history[0]["loss"]
    for found, slopes in two:
        assert found[:2] == begun
        assert_same(history, found)
        np.testing.assert_allclose(slopes, weights, rtol=TOLERANCE)
    one, other = ({path.name for path in (tmp_path / name).rglob("*")} for name in ("one", "two"))
    assert one == other


@pytest.mark.slow
def test_of_an_autoencoder(tmp_path):
    """Clipping and free bits are no sums over workers: see `test_training.clipped_run`."""
    two = train_together("autoencoder", tmp_path / "two", 2)
    ((history, weights),) = train_together("autoencoder", tmp_path / "one", 1)
    for found, sums in two:
        assert_same(history, found)
        np.testing.assert_allclose(sums, weights, rtol=1e-4)


@pytest.mark.slow
def test_command(tmp_path):
    """All stages, and a model that can be loaded."""
    images = blobs(60)
    manifest = {"pixel_scale": 0.2, "resolution": 0.1}
    write_dataset(tmp_path / "data", manifest, range(60), lambda key: Record(images[key], key, {"label": 0.0}))
    (tmp_path / "tiny.toml").write_text(GALAXIES)
    command = ["-m", "tflens", "train", "galaxies", "--data", str(tmp_path / "data"), "--json"]
    command += ["--config", str(tmp_path / "tiny.toml"), "--run", str(tmp_path / "run")]
    chief, other = together(command, 2)
    assert other == ""
    trainings = json.loads(chief)["trainings"]
    assert load_galaxy_model(tmp_path / "run/model").latent_dim == 2
    together([*command[:-1], str(tmp_path / "alone")], 1)
    alone = json.loads((tmp_path / "alone/vae/history.json").read_text())
    assert_same(alone, json.loads((tmp_path / "run/vae/history.json").read_text()))
    assert len(trainings) == 2


@pytest.mark.parametrize(
    ("given", "why"),
    [("{", "JSONDecodeError"), ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "none of")],
)
def test_what_tf_config_must_be(monkeypatch, given, why):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(ParameterError, match=f"TF_CONFIG must be like .*{why}"):
        strategy_of_environment()
