"""`tflens convert`, and the saved fit that it reads."""

import json
import shutil

import numpy as np
import pytest
from small_fit import BAD, small_fit
from typer.testing import CliRunner

from tflens.cli import app
from tflens.coolest import from_coolest
from tflens.errors import ParameterError
from tflens.inference.pipeline import default_model
from tflens.lenstronomy_io import from_lenstronomy, read_lenstronomy
from tflens.light import Exponential, RegularizedPixels, Sersic
from tflens.mass import EPL, EllipticalMass, GaussianMass, Shear
from tflens.model import LensModel
from tflens.psf_error import PSFError
from tflens.run import describe_model
from tflens.saved_fit import SavedFit, model_of_description
from tflens.scene import Scene


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def moved(tmp_path):
    """A copy of the small fit's folder."""
    return shutil.copytree(small_fit().folder, tmp_path / "fit")


def test_coolest(tmp_path):
    result = call("convert", small_fit().folder, "--to", "coolest", "--out", tmp_path / "lens.json", "--z-lens", 0.3)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 6
    assert all((tmp_path / line.rpartition("/")[2]).is_file() for line in result.stdout.splitlines())
    fit = small_fit().fit
    expected = Scene.of(fit)
    found = from_coolest(tmp_path / "lens.json")
    np.testing.assert_allclose(found.image(fit.observation), expected.image(fit.observation), rtol=1e-5, atol=1e-6)
    assert call("convert", small_fit().folder, "--to", "coolest", "-o", tmp_path / "lens.json").exit_code == 1
    again = call("convert", small_fit().folder, "--to", "coolest", "-o", tmp_path / "lens.json", "--overwrite")
    assert again.exit_code == 0


def test_lenstronomy(tmp_path):
    path = tmp_path / "lens.json"
    result = call("convert", small_fit().folder, "--to", "lenstronomy", "--out", path)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{path}\n", "")
    fit = small_fit().fit
    found = from_lenstronomy(read_lenstronomy(path))
    np.testing.assert_allclose(found.image(fit.observation), Scene.of(fit).image(fit.observation), rtol=1e-5, atol=1e-6)
    again = call("convert", small_fit().folder, "--to", "lenstronomy", "--out", tmp_path / "again.json", "--json")
    assert json.loads(again.stdout) == {"files": [str(tmp_path / "again.json")]}
    assert "exists" in call("convert", small_fit().folder, "--to", "lenstronomy", "--out", path).stderr


def test_what_is_no_fit_is_refused(tmp_path, moved):
    result = call("convert", tmp_path, "--to", "coolest", "-o", tmp_path / "a.json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "config.json is missing" in result.stderr
    for out, words in ((tmp_path / "a.txt", "must end in .json"), (tmp_path / "none" / "a.json", "does not exist")):
        assert words in call("convert", moved, "--to", "coolest", "-o", out).stderr


def test_a_moved_input_can_be_named(tmp_path, moved):
    config = json.loads((moved / "config.json").read_text())
    file = shutil.copy(config["input"]["file"], tmp_path / "moved.fits")
    config["input"]["file"] = str(tmp_path / "gone.fits")
    (moved / "config.json").write_text(json.dumps(config))
    out = tmp_path / "a.json"
    assert "gone.fits" in call("convert", moved, "--to", "lenstronomy", "-o", out).stderr
    assert call("convert", moved, "--to", "lenstronomy", "-o", out, "--file", file).exit_code == 0


def test_a_fit_without_its_best_point_gives_its_best_draw(tmp_path, moved):
    summary = json.loads((moved / "summary.json").read_text())
    del summary["best"]
    (moved / "summary.json").write_text(json.dumps(summary))
    result = call("convert", moved, "--to", "lenstronomy", "-o", tmp_path / "a.json")
    assert result.exit_code == 0
    assert "best of its draws" in result.stderr
    posterior = small_fit().fit.posterior
    best = posterior.data.sample_stats["lp"].to_numpy().argmax()
    assert SavedFit(moved).best.values["lens.theta_E"] == pytest.approx(posterior.draws("lens.theta_E")[best])


def test_a_saved_fit_is_the_fit():
    fit, saved = small_fit().fit, SavedFit(small_fit().folder)
    assert describe_model(saved.model)["components"] == describe_model(fit.model)["components"]
    assert saved.best.values == pytest.approx(Scene.of(fit).values, rel=1e-6)
    observation = saved.observation()
    used = np.zeros_like(observation.mask)
    used[fit.target.frame] = fit.mask
    np.testing.assert_array_equal(observation.mask, used)
    assert not observation.mask[BAD].any()


MODELS = {
    "default": default_model((0.1, 0.0), Sersic()),
    "of one's own": LensModel(
        [EPL(tolerance=1e-4), Shear(), EllipticalMass(GaussianMass())],
        [Sersic(), Exponential()],
        [RegularizedPixels(6), Sersic()],
        priors={
            "lens1.gamma": 2.0,
            "lens1.e1,e2": (0.1, 0.2),
            "light2.e1,e2": "light1.e1,e2",
            "light2.center_x": "light1.center_x",
        },
        psf_error=PSFError(),
        sky=False,
        dtype="float64",
    ),
    "neural": default_model(),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_from_its_description(name):
    description = json.loads(json.dumps(describe_model(MODELS[name])))
    model = model_of_description(description)
    for key in ("components", "fixed", "tied", "sky", "dtype"):
        found = json.loads(json.dumps(describe_model(model)))[key]
        if name == "neural" and key == "components":
            assert found["source"].pop("version") == description["galaxies"]["version"]
            description[key]["source"].pop("version")
        assert found == description[key]
    assert model.names == MODELS[name].names


def test_a_foreign_profile_is_refused():
    description = describe_model(default_model(source=Sersic()))
    description["components"]["lens"] = {"profile": "MyOwn"}
    with pytest.raises(ParameterError, match="'MyOwn', which is not one of tflens"):
        model_of_description(description)
