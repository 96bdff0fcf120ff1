"""Mock surveys: drawn from the prior of a model, repeatable, and readable by the commands that fit."""

import json

import numpy as np
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from tflens.catalogue import read_catalogue
from tflens.cli import app
from tflens.errors import ParameterError
from tflens.galaxies import NeuralSource
from tflens.grid import PixelGrid
from tflens.inference.mocks import Survey, gaussian_psf
from tflens.light import Pixelated, Sersic
from tflens.mass import SIE
from tflens.model import LensModel
from tflens.model_file import write_model
from tflens.observation import Observation
from tflens.parameters import normal

SURVEY = Survey(PixelGrid((22, 26), 0.2), gaussian_psf(0.3, 0.2), peak_snr=(20.0, 30.0))


def model(source=None) -> LensModel:
    return LensModel(lens_light=[Sersic()], source=source or Sersic(), priors={"lens.theta_E": normal(1.2, 0.05)})


def test_a_lens_depends_on_its_number_alone():
    two, three = SURVEY.sample(model(), 2, seed=5), SURVEY.sample(model(), 3, seed=5)
    for a, b in zip(two, three, strict=False):
        assert a.parameters == b.parameters
        np.testing.assert_array_equal(a.observation.image, b.observation.image)
    assert two[0].parameters != two[1].parameters
    assert SURVEY.sample(model(), 1, seed=6)[0].parameters != two[0].parameters


def test_flux_and_magnification_are_those_of_the_arcs():
    for source in (Sersic(), NeuralSource()):
        (mock,) = SURVEY.sample(model(source), 1, seed=2)
        assert mock.flux * mock.magnification == pytest.approx(mock.arcs.sum(), rel=1e-6)
        assert mock.magnification > 1
        snr = (mock.arcs / np.sqrt(SURVEY.sky)).max()
        assert 20 / np.sqrt(SURVEY.sky) <= snr * 1.0001 <= 30.01 / np.sqrt(SURVEY.sky)
    assert mock.stamp.shape == (64, 64)


def test_a_lens_that_is_no_power_law_of_free_slope_stays_what_it_is():
    (mock,) = SURVEY.sample(LensModel([SIE(max_ellipticity=0.4)], [Sersic()], Sersic()), 1)
    assert "lens.gamma" not in mock.parameters
    assert mock.arcs.max() > 0


def test_fixed_values_hold():
    bound = LensModel(
        lens_light=[Sersic()], source=Sersic(), priors={"lens.gamma": 2.0, "light.center_x": "lens.center_x"}
    )
    (mock,) = SURVEY.sample(bound, 1)
    assert mock.parameters["lens.gamma"] == 2.0
    assert mock.parameters["light.center_x"] == mock.parameters["lens.center_x"]


@pytest.mark.parametrize(
    ("wrong", "stamp", "message"),
    [
        (LensModel(lens_light=[Sersic()]), None, "a mock needs a model with a source and with lens light"),
        (LensModel(lens_light=[], source=Sersic()), None, "a mock needs a model with a source and with lens light"),
        (LensModel(source=Pixelated(0.1)), None, "needs the galaxy's stamp"),
        (LensModel(source=Sersic()), np.ones((4, 4)), "draws its own galaxy and takes no stamp"),
    ],
)
def test_models_that_cannot_be_drawn_are_refused(wrong, stamp, message):
    with pytest.raises(ParameterError, match=message):
        SURVEY.draw(wrong, stamp)


def test_psf_has_its_width():
    psf = gaussian_psf(0.5, 0.1)
    middle = psf[psf.shape[0] // 2]
    x = 0.1 * (np.arange(len(middle)) - len(middle) // 2)
    assert np.interp(0.25, x, middle) == pytest.approx(middle.max() / 2, rel=0.02)
    assert psf.sum() == pytest.approx(1)
    with pytest.raises(ParameterError, match=r"fwhm and pixel_scale must be positive, got 0\.0 and 0\.1"):
        gaussian_psf(0.0, 0.1)


def test_command_writes_what_the_other_commands_read(tmp_path):
    (tmp_path / "model.toml").write_text(write_model(model()))
    out = tmp_path / "survey"
    arguments = ["simulate", "-o", out, "--model", tmp_path / "model.toml", "--n", 2, "--seed", 3, "--shape", "22,26"]
    arguments += ["--pixel-scale", 0.2, "--fwhm", 0.3, "--peak-snr", "20,30", "--json"]
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"lenses": 2, "truth": str(out / "truth.csv")}
    mocks, truth = SURVEY.sample(model(), 2, seed=3), Table.read(out / "truth.csv")
    entries = read_catalogue(out / "truth.csv")
    assert [entry.name for entry in entries] == ["mock-0000", "mock-0001"]
    for mock, row, entry in zip(mocks, truth, entries, strict=True):
        observation = entry.input.read()
        assert isinstance(observation, Observation)
        np.testing.assert_allclose(observation.image, mock.observation.image, rtol=1e-6)
        assert row["lens.theta_E"] == pytest.approx(mock.parameters["lens.theta_E"])
    again = CliRunner().invoke(app, [str(each) for each in arguments])
    assert again.exit_code == 1
    assert "must be empty" in again.stderr
