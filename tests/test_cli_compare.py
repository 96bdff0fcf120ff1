"""`tflens compare`: the numbers are those of the runs, and what is no run is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from tflens.cli import app
from tflens.errors import ParameterError
from tflens.runs import find_runs, read_runs


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def summary(theta_E=1.2, level="ok", **more):
    row = {"median": theta_E, "low": theta_E - 0.012, "high": theta_E + 0.02}
    return {
        "name": "J1",
        "parameters": {"lens.theta_E": row, "lens.gamma": {k: v + 1 for k, v in row.items()}},
        "check": [
            {"name": "r_hat_mass", "level": level, "value": 1.0, "limit": 1.01, "words": "chains"},
            {"name": "ess", "level": "ok", "value": 500.0, "limit": 400.0, "words": "draws"},
        ],
        "diagnostics": {"chi2": 1.04, "chi2_arcs": None, "max_r_hat": 1.234, "min_ess": 321.0},
        "seconds": {"look": 1.5, "sample": 40.0},
        **more,
    }


HISTORY = [
    {"epoch": 1, "loss": 5.0, "validation_loss": 5.5, "validation_chi2": 1.5, "seconds": 10.0},
    {"epoch": 2, "loss": 4.0, "validation_loss": 4.25, "validation_chi2": 1.25, "seconds": 11.0},
    {"epoch": 3, "loss": 3.5, "validation_loss": 4.5, "validation_chi2": 1.125, "seconds": 12.0},
]


@pytest.fixture
def folder(tmp_path):
    for name, content in (("many/a", summary()), ("many/b", summary(0.8, "failure")), ("single", summary(1.0))):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "summary.json").write_text(json.dumps(content))
    (tmp_path / "training/flow").mkdir(parents=True)
    (tmp_path / "training/flow/history.json").write_text(json.dumps(HISTORY))
    return tmp_path


def test_numbers_are_those_of_the_runs(folder):
    fits, trainings = read_runs([folder / "many", folder / "training"], ["lens.theta_E", "lens.gamma"])
    assert [fit.run for fit in fits] == [str(folder / "many/a"), str(folder / "many/b")]
    assert fits[0].parameters["lens.theta_E"] == pytest.approx([1.2, 1.188, 1.22])
    assert fits[1].parameters["lens.gamma"][0] == pytest.approx(1.8)
    assert (fits[0].level, fits[1].level) == ("ok", "failure")
    assert "do not use it" in fits[1].verdict
    assert (fits[0].seconds, fits[0].max_r_hat, fits[0].min_ess, fits[0].chi2) == (41.5, 1.234, 321.0, 1.04)
    (training,) = trainings
    assert (training.epochs, training.best_epoch, training.validation_loss, training.loss) == (3, 2, 4.25, 3.5)
    assert (training.metrics, training.seconds) == ({"chi2": 1.25}, 33.0)


def test_the_table_has_a_row_for_each_run(folder):
    result = call("compare", folder / "many", folder / "single", folder / "training")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    rows = {
        line.split("│")[1].strip(): [part.strip() for part in line.split("│")[2:-1]] for line in lines if "│" in line
    }
    assert rows["many/a"] == ["1.200 (1.188 to 1.220)", "1.040", "-", "1.234", "321", "42", "ok"]
    assert rows["many/b"][-1] == "failure: r_hat_mass"
    assert rows["single"][0].startswith("1.000")
    assert [rows[key] for key in rows if "flow" in key] == [["3", "2", "4.25", "1.25", "33"]]


def test_json_holds_the_same(folder):
    result = call("compare", folder / "many", folder / "training", "--json", "-p", "lens.gamma")
    found = json.loads(result.stdout)
    fits, trainings = read_runs([folder / "many", folder / "training"], ["lens.gamma"])
    assert [fit["parameters"] for fit in found["fits"]] == [fit.parameters for fit in fits]
    assert found["trainings"][0]["validation_loss"] == trainings[0].validation_loss


def test_a_run_is_counted_once(folder):
    assert len(find_runs([folder / "many", folder / "many/a", folder / "many"])) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [("no JSON", "is not what a run"), ("{}", "is not what a run"), (json.dumps(summary(check=[{"a": 1}])), "run of")],
)
def test_foreign_files_are_refused(content, words, tmp_path):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ParameterError, match=words):
        read_runs([tmp_path])


def test_what_is_no_run_is_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "has no run")):
        result = call("compare", path)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
    assert "no fit has a parameter 'lens.q'" in call("compare", folder / "single", "-p", "lens.q").stderr


def test_a_real_fit_and_no_tensorflow(tmp_path):
    from small_fit import small_fit

    fit = small_fit()
    (run,), _ = read_runs([fit.folder])
    posterior = fit.fit.posterior
    assert run.parameters["lens.theta_E"][0] == pytest.approx(np.median(posterior.draws("lens.theta_E")))
    assert run.max_r_hat == pytest.approx(posterior.diagnostics["max_r_hat"])
    code = (
        f"import sys; from tflens.cli import main\ntry: main(['compare', {str(fit.folder)!r}])\n"
        "except SystemExit as end: assert not end.code\nassert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "theta_E" in done.stdout
