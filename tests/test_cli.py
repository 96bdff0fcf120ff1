"""The command line: what it refuses and how, what it writes, and that a run can be repeated from its config.json."""

import csv
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import tensorflow as tf
import typer
from astropy.io import fits
from matplotlib.image import imread
from scipy.integrate import quad
from small_fit import SETTINGS, observation, small_fit
from typer.testing import CliRunner

import tflens.run
from tflens import __version__
from tflens.cli import Sampler, app, fit
from tflens.config import Input, RunConfig
from tflens.errors import ObservationError, ParameterError
from tflens.inference.derived import source_fluxes
from tflens.inference.posterior import Posterior
from tflens.inference.progress import STAGES
from tflens.inference.samplers import SAMPLERS
from tflens.inference.settings import FitSettings
from tflens.light import CoreSersic, Sersic
from tflens.light.sersic import brightness
from tflens.model import LensModel
from tflens.model_file import model_of
from tflens.output import RESULTS, prepare_folder, write_results
from tflens.plotting import interval_decimals
from tflens.run import Job, execute, prepare

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def in_process(*arguments):
    """The command as a user runs it: TensorFlow's own settings are not those of these tests."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL", "CUDA_VISIBLE_DEVICES", "PYTHONWARNINGS"}
    environment = {key: value for key, value in os.environ.items() if key not in quiet} | {"COLUMNS": "100"}
    command = [sys.executable, "-c", "from tflens.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)


def refused(result, *parts):
    """Exit code 1 and one message on stderr that holds all parts, nothing on stdout."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    for part in parts:
        assert str(part) in result.stderr


@pytest.fixture
def good(tmp_path):
    observation().to_fits(tmp_path / "good.fits")
    return tmp_path / "good.fits"


def edited(path, change):
    """A copy of a file after `change(hdus)`."""
    copy = path.with_name("edited.fits")
    with fits.open(path) as hdus:
        change(hdus)
        hdus.writeto(copy)
    return copy


def set_pixel(extension, value, row=20, column=20):
    def change(hdus):
        hdus[extension].data = hdus[extension].data.astype(np.float64)
        hdus[extension].data[row, column] = value

    return change


def replace_data(extension, make):
    def change(hdus):
        hdus[extension].data = make(hdus[extension].data)

    return change


def delete_scale(hdus):
    del hdus[0].header["PIXSCALE"]


BAD_INPUT = {
    "NaN in the image": (set_pixel("SCI", np.nan), "[SCI]", "finite", "nan"),
    "NaN in the noise": (set_pixel("ERR", np.nan), "[ERR]", "finite", "nan"),
    "zero noise": (set_pixel("ERR", 0.0), "[ERR]", "positive", "has 0"),
    "negative noise": (set_pixel("ERR", -2.0), "[ERR]", "positive", "-2"),
    "even PSF": (replace_data("PSF", lambda psf: psf[:-1]), "[PSF]", "odd", "6 x 9"),
    "PSF without sum": (replace_data("PSF", np.zeros_like), "[PSF]", "sum", "0"),
    "other shape": (replace_data("ERR", lambda noise: noise[:-1]), "[ERR]", "39 x 46", "40 x 46"),
    "blank image": (replace_data("SCI", lambda image: np.full_like(image, 2.0)), "[SCI]", "blank", "2"),
    "everything masked": (replace_data("MASK", np.ones_like), "[MASK]", "discards all"),
    "no scale": (delete_scale, "[SCI]", "PIXSCALE", "missing"),
    "no noise map": (lambda hdus: hdus.pop("ERR"), "ERR", "missing", "SCI (40 x 46)"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused(case, good, tmp_path):
    change, *parts = BAD_INPUT[case]
    path = edited(good, change)
    refused(call("fit", path, "--out", tmp_path / "out"), path, *parts)
    assert not (tmp_path / "out").exists()


def test_a_wrong_model_is_refused_before_anything_is_made(good, tmp_path):
    path = tmp_path / "model.toml"
    path.write_text('source = { profile = "Sersik" }')
    refused(call("fit", good, "--out", tmp_path / "out", "--model", path), path, "source", "no profile 'Sersik'")
    refused(call("fit", good, "--out", tmp_path / "out", "--model", tmp_path / "none.toml"), "none.toml", "exist")
    assert not (tmp_path / "out").exists()


def test_a_model_of_a_file_is_repeated_from_the_configuration(tmp_path):
    tables = {"source": {"profile": "Sersic"}, "priors": {"lens.gamma": 2.0, "source.e1,e2": [0.0, 0.1]}}
    (tmp_path / "config.json").write_text(json.dumps(RunConfig(Input("a.fits"), tables=tables).as_dict()))
    config = RunConfig.load(tmp_path / "config.json")
    assert config.tables == tables
    model = tflens.run.build_model(observation(), config)
    assert tflens.run.describe_model(model) == tflens.run.describe_model(model_of(tables))


def test_missing_and_foreign_files_are_refused(tmp_path, good):
    refused(call("fit", tmp_path / "nothing.fits", "--out", tmp_path / "out"), "nothing.fits", "does not exist")
    (tmp_path / "text.fits").write_text("not a FITS file")
    refused(call("fit", tmp_path / "text.fits", "--out", tmp_path / "out"), "text.fits", "cannot be read as FITS")
    (tmp_path / "short.fits").write_bytes(good.read_bytes()[:9000])
    refused(call("fit", tmp_path / "short.fits", "--out", tmp_path / "out"), "short.fits", "truncated")
    refused(call("fit", good, "--out", tmp_path / "out", "--psf", "KERNEL"), good, "KERNEL", "missing")
    refused(call("fit", good, "--out", tmp_path / "out", "--pixel-scale", -1), "pixel scale", "-1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit"],
        ["fit", "a.fits"],
        ["fit", "--out", "x"],
        ["fit", "a.fits", "--out", "x", "--starts", "0"],
        ["fit", "a.fits", "--out", "x", "--draws", "many"],
        ["fit", "a.fits", "--out", "x", "--source", "nothing"],
        ["fit", "a.fits", "--out", "x", "--source", "sersic", "--model", "m.toml"],
        ["fit", "--out", "x", "--config", "c.json", "--model", "m.toml"],
        ["fit", "--out", "x", "--config", "c.json", "--seed", "3"],
        ["fit", "--out", "x", "--config", "c.json", "--source", "neural"],
        ["refit"],
    ],
)
def test_misuse_has_exit_code_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage:" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_refused_and_kept(good, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    refused(call("fit", good, "--out", out), out, "empty", "--overwrite")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert prepare_folder(out, overwrite=True) == out
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_file_or_an_impossible_place_is_refused(good, tmp_path):
    refused(call("fit", good, "--out", good), good, "is a file")
    refused(call("fit", good, "--out", good / "below"), good / "below", "writable")


def test_a_folder_that_is_not_writable_is_refused(good, tmp_path, monkeypatch):
    def forbidden(dir):  # a mode of 0o500 would not stop root
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tflens.disk.tempfile.TemporaryFile", forbidden)
    refused(call("fit", good, "--out", tmp_path / "out"), tmp_path / "out", "writable", "Permission denied")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "readable JSON"),
        ("[]", '"format": "tflens.fit"'),
        ('{"format": "tflens.fit", "format_version": 99}', '"format_version": 1'),
        ('{"format": "tflens.fit", "format_version": 1}', "does not describe a fit"),
    ],
)
def test_a_broken_configuration_is_refused(content, message, tmp_path):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    refused(call("fit", "--config", path, "--out", tmp_path / "out"), path, message)


def test_another_file_than_the_recorded_one_is_refused(tmp_path):
    other = edited(Path(small_fit().file), set_pixel("SCI", 1.0))
    try:
        config = small_fit().folder / "config.json"
        refused(call("fit", other, "--config", config, "--out", tmp_path / "out"), other, "SHA-256 differs")
    finally:
        other.unlink()


def test_a_run_of_another_model_is_refused(tmp_path):
    content = json.loads((small_fit().folder / "config.json").read_text())
    content["model"]["priors"]["lens.theta_E"]["scale"] = 0.123
    (tmp_path / "config.json").write_text(json.dumps(content))
    result = call("fit", "--config", tmp_path / "config.json", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "cannot be repeated" in result.stderr
    assert "different: priors" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_changed_versions_are_noted():
    heard = []
    here = {"model": {}, "versions": {"keras": "3"}}
    tflens.run._check_repeats({"model": {}, "versions": {"keras": "2"}}, here, heard.append)
    assert len(heard) == 1
    assert "keras 2 -> 3" in heard[0]


def test_unknown_settings_are_refused(good, tmp_path):
    config = RunConfig(Input(str(good)), "sersic", {"speed": 3})
    with pytest.raises(ParameterError, match="speed"):
        execute(prepare(config, tmp_path / "out"))
    with pytest.raises(ParameterError, match="source must be one of neural, sersic"):
        RunConfig(Input("a.fits"), "pixels")


def test_warnings_become_notes(good, tmp_path):
    path = edited(good, replace_data("PSF", lambda psf: 2 * psf))
    heard = []
    prepare(RunConfig(Input(str(path))), tmp_path / "out", note=heard.append)
    assert len(heard) == 1
    assert "sum of the PSF is 2" in heard[0]


def test_an_interrupt_ends_with_130(good, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(tflens.run, "execute", interrupted)
    result = call("fit", good, "--out", tmp_path / "out")
    assert result.exit_code == 130
    assert result.stdout == ""
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.stderr


def test_options_are_the_settings():
    parameters = inspect.signature(fit).parameters
    for setting in fields(FitSettings):
        option = parameters[setting.name]
        assert option.default == setting.default, setting.name
        if "least" in setting.metadata:
            assert option.annotation.__metadata__[0].min == setting.metadata["least"], setting.name
    assert [name.value for name in Sampler] == list(SAMPLERS)


def test_json_of_a_fit_is_its_summary(monkeypatch, tmp_path):
    fit = small_fit()
    monkeypatch.setattr(tflens.run, "prepare", lambda config, out, **_: Job(config, observation(), fit.folder))
    monkeypatch.setattr(tflens.run, "execute", lambda *_, **__: fit.fit)
    result = call("fit", fit.file, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads((fit.folder / "summary.json").read_text())
    assert json.loads(result.stdout) == {"folder": str(fit.folder), **summary}
    assert "wrote posterior.nc" in result.stderr


def test_json_of_the_versions():
    found = json.loads(call("info", "--json").stdout)
    assert found["versions"]["tflens"] == __version__
    assert found["galaxies"] == tflens.run.describe_galaxies()


def commands(command, path=()):
    """Paths of all commands under one, with their options."""
    if not hasattr(command, "commands"):
        yield path, {option for parameter in command.params for option in parameter.opts}
        return
    for name, inside in command.commands.items():
        yield from commands(inside, (*path, name))


def test_every_command_with_results_has_json():
    without = {path for path, options in commands(typer.main.get_command(app)) if "--json" not in options}
    assert without == {("serve",)}


def test_version_and_help():
    assert call("--version").stdout == f"tflens {__version__}\n"
    shown = call("--help").stdout
    assert "Fit a strong lens" in shown
    listed = [line.split()[1] for line in shown.splitlines() if re.match("│ [a-z]", line)]
    usual = "data train evaluate fit fit-many simulate calibrate export serve compare info"
    assert [name for name in listed if name not in ("report", "convert")] == usual.split()
    text = call("fit", "--help").stdout
    assert "non-zero = BAD" in text
    assert all(name in text for name in ("--config", "--overwrite", "--supersampling"))


def test_separate_files_are_one_observation(good, tmp_path):
    together = Input(str(good)).read()
    with fits.open(good) as hdus:
        for name in ("SCI", "ERR", "PSF", "MASK"):
            fits.PrimaryHDU(hdus[name].data).writeto(tmp_path / f"{name}.fits")
    given = Input(
        str(tmp_path / "SCI.fits"),
        noise_file=str(tmp_path / "ERR.fits"),
        psf_file=f"{good}[PSF]",
        mask_file=str(tmp_path / "MASK.fits"),
        pixel_scale=0.1,
    )
    for apart in (given.read(), Input(str(good), noise_file=str(tmp_path / "ERR.fits")).read()):
        for part in ("image", "noise", "psf", "mask", "pixel_scale"):
            np.testing.assert_array_equal(getattr(apart, part), getattr(together, part))
    recorded = given.with_digests()
    assert set(recorded.sha256) == {"file", "noise_file", "psf_file", "mask_file"}
    assert recorded.psf_file == f"{good.resolve()}[PSF]"
    assert recorded.read().pixel_scale == 0.1
    assert Input(str(good), mask=None).read().mask.all()
    (tmp_path / "ERR.fits").write_bytes(good.read_bytes())
    with pytest.raises(ObservationError, match="SHA-256 differs"):
        recorded.read()


# What a run leaves behind -------------------------------------------------------------------------------------------


def test_every_result_is_there_and_nothing_else():
    assert {path.name for path in small_fit().folder.iterdir()} == {*RESULTS, "tensorboard"}


def test_posterior_and_summary_and_table_agree():
    folder, result = small_fit().folder, small_fit().fit
    posterior = Posterior(az.from_netcdf(folder / "posterior.nc", engine="h5netcdf"))
    summary = json.loads((folder / "summary.json").read_text())
    with (folder / "table.csv").open() as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert set(summary["parameters"]) == set(table) == set(posterior.names)
    assert posterior.draws("lens.theta_E").size == SETTINGS["chains"] * SETTINGS["draws"]
    for name, row in summary["parameters"].items():
        expected = np.quantile(posterior.draws(name), [0.025, 0.16, 0.5, 0.84, 0.975])
        values = [row[key] for key in ("low95", "low", "median", "high", "high95")]
        np.testing.assert_array_equal(values, expected)
        assert float(table[name]["median"]) == row["median"]
        assert table[name]["unit"] == row["unit"]
    for key, value in posterior.diagnostics.items():
        assert summary["diagnostics"][key] == pytest.approx(value, rel=1e-6)  # a mean of float32
    assert summary["diagnostics"]["chi2"] == result.best.chi2
    assert {"r_hat_mass", "chi2_arcs", "whiteness"} <= {finding["name"] for finding in summary["check"]}


def test_derived_flux_and_magnification():
    result = small_fit().fit
    derived = json.loads((small_fit().folder / "summary.json").read_text())["derived"]
    draws = {name: result.posterior.draws(name) for name in result.posterior.names}
    assert derived["source.flux"]["median"] == pytest.approx(
        np.median(source_fluxes(result.model, draws)["source.flux"]), rel=1e-6
    )
    assert derived["source.flux"]["unit"] == "counts/s"
    magnification = derived["source.magnification"]["best"]
    assert 2 < magnification < 50
    flux = result.best.lensed_source.sum() / magnification
    assert derived["source.flux"]["low95"] < flux < derived["source.flux"]["high95"]


def test_flux_of_a_sersic_source_is_its_integral():
    n, radius, amp = 1.7, 0.3, 2.5

    def ring(r):
        zero = tf.constant(0.0, tf.float64)
        x = tf.constant([[r]], tf.float64)
        value = brightness(
            x, tf.zeros_like(x), *(tf.constant(v, tf.float64) for v in (radius, n)), zero, zero, zero, zero
        )
        return 2 * np.pi * r * amp * float(value[0, 0])

    total = quad(ring, 0, 10, points=[0.1, 0.3, 1, 3], limit=200)[0]
    values = {"source.amp": amp, "source.R_sersic": radius, "lens.e1": 0.1, "lens.e2": 0.0}
    given = {"source.n_sersic": n, "source.e1,e2": "lens.e1,e2", "source.center_x": 0.0, "source.center_y": 0.0}
    model = LensModel(source=Sersic(), priors=given)
    assert source_fluxes(model, values) == {"source.flux": pytest.approx(total, rel=1e-6)}


def test_flux_that_has_no_closed_form_is_not_made_up():
    model = LensModel(source=CoreSersic())
    values = dict.fromkeys(model.names, 1.0) | {"source.amp": 2.0}
    assert source_fluxes(model, values) is None


def test_model_images():
    result = small_fit().fit
    with fits.open(small_fit().folder / "best.fits") as hdus:
        names = ["MODEL", "LENS_LIGHT", "LENSED_SOURCE", "RESIDUAL", "SOURCE"]
        assert [hdu.name for hdu in hdus] == ["PRIMARY", *names]
        np.testing.assert_array_equal(hdus["MODEL"].data, result.best.image.astype(np.float32))
        np.testing.assert_array_equal(hdus["RESIDUAL"].data, result.best.residual.astype(np.float32))
        parts = hdus["LENS_LIGHT"].data + hdus["LENSED_SOURCE"].data
        np.testing.assert_allclose(parts, hdus["MODEL"].data, rtol=1e-5)
        header = hdus["MODEL"].header
        assert header["PIXSCALE"] == 0.1
        ny, nx = hdus["MODEL"].data.shape
        cut = result.observation.image[
            header["FRAME_Y0"] : header["FRAME_Y0"] + ny, header["FRAME_X0"] : header["FRAME_X0"] + nx
        ]
        np.testing.assert_array_equal(cut, result.target.image)


def test_pictures():
    for name in ("fit.png", "corner.png", "trace.png"):
        picture = imread(small_fit().folder / name)
        assert min(picture.shape[:2]) > 500
        assert picture[..., :3].std() > 0.05
    assert (small_fit().folder / "fit.pdf").read_bytes().startswith(b"%PDF")


def test_config_tells_everything():
    config = json.loads((small_fit().folder / "config.json").read_text())
    assert config["input"]["file"] == str(small_fit().file)
    assert len(config["input"]["sha256"]["file"]) == 64
    assert config["settings"] == asdict(small_fit().fit.settings)
    assert config["settings"]["seed"] == SETTINGS["seed"]
    assert set(config["versions"]) >= {"python", "tensorflow", "keras", "tensorflow-probability", "numpy", "tflens"}
    named = {name for names in config["model"]["priors"] for name in names.split(",")}
    assert named == set(small_fit().fit.model.names)
    assert config["model"]["components"]["source"]["profile"] == "Sersic"


def test_a_neural_model_is_described_with_its_weights():
    description = tflens.run.describe_model(tflens.run.build_model(observation(), RunConfig(Input("lens.fits"))))
    weights = json.loads(json.dumps(description))["galaxies"]["sha256"]
    assert set(weights) == {"encoder", "decoder", "flow", "psf"}
    assert all(len(digest) == 64 for digest in weights.values())


def test_overwriting_replaces_results_and_keeps_the_rest(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for name in RESULTS:
        (tmp_path / name).write_text("old")
    write_results(small_fit().fit, {"format": "x"}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*RESULTS, "notes.txt"}
    assert all((tmp_path / name).read_bytes() != b"old" for name in RESULTS)


def test_a_result_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tflens.output._write_table", full)
    with pytest.raises(ParameterError, match=r"table\.csv cannot be written \(No space left on device\)"):
        write_results(small_fit().fit, {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"posterior.nc", "config.json", "summary.json"}


@pytest.mark.slow
def test_repeat_from_config_in_another_process(tmp_path):
    """The whole command as a user meets it: the same draws, a table on stdout, a clean stderr."""
    out = tmp_path / "again"
    result = in_process("fit", "--config", small_fit().folder / "config.json", "--out", out, "--no-tensorboard")
    assert result.returncode == 0, result.stderr
    before, after = (az.from_netcdf(folder / "posterior.nc", engine="h5netcdf") for folder in (small_fit().folder, out))
    for name in before.posterior.data_vars:
        np.testing.assert_array_equal(before.posterior[name], after.posterior[name], err_msg=name)
    assert {path.name for path in out.iterdir()} == set(RESULTS)

    theta = json.loads((out / "summary.json").read_text())["parameters"]["lens.theta_E"]
    (line,) = [line for line in result.stdout.splitlines() if "lens.theta_E" in line and "arcsec" in line]
    decimals = interval_decimals(theta["low"], theta["median"], theta["high"])
    assert f" {theta['median']:.{decimals}f} " in line
    assert "chi^2 per pixel" in result.stdout
    findings = json.loads((out / "summary.json").read_text())["check"]
    printed = result.stdout.splitlines()
    for finding in findings:
        assert f"{finding['level']:<7}  {finding['words']}" in printed
    # 60 draws are too few, and are said to be.
    assert any(line.startswith(("this fit failed", "to be used with care")) for line in printed)
    stages = [line.split()[0] for line in result.stderr.splitlines() if " %" in line]
    assert list(dict.fromkeys(stages)) == list(STAGES)
    for noise in ("Traceback", "Warning", "oneDNN", "XLA", "cuda", "absl", "I0000", "E0000"):
        assert noise not in result.stderr + result.stdout


def test_bad_input_in_another_process_is_quiet_and_quick_to_say_so(good, tmp_path):
    path = edited(good, set_pixel("ERR", 0.0))
    result = in_process("fit", path, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {path}[ERR]: the noise must be positive")
    assert result.stderr.count("\n") == 1


def test_the_script_is_the_command(tmp_path):
    command = [sys.executable, ROOT / "scripts/fit_lens.py", tmp_path / "none.fits", "--out", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'none.fits'}: the FITS file does not exist")
