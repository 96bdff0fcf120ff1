"""The commands that make datasets: what they write, what they print, and how they refuse."""

import json

import numpy as np
import pytest
import typer
from matplotlib.image import imread
from rich.console import Console
from test_cosmos import STAMP, write_catalogue
from typer.testing import CliRunner

import tflens.datasets.contact_sheet
from tflens.cli_data import data_app
from tflens.datasets.contact_sheet import stretched, write_contact_sheet
from tflens.datasets.records import Record, load_dataset, summarize_dataset, write_dataset
from tflens.errors import ParameterError
from tflens.terminal import showing_count


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("catalogue"), range(8))


def call(*arguments):
    app = typer.Typer()
    app.add_typer(data_app, name="data")
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def refused(result, *parts):
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("error: ")
    for part in parts:
        assert str(part) in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.output


class TestCosmos:
    def test_dataset_table_and_picture(self, catalogue, tmp_path):
        command = ("cosmos", catalogue, "--out", tmp_path, "--stamp", STAMP, "--snr", "15,99", "--processes", 1)
        result = call(*command)
        assert result.exit_code == 0, result.output
        summary = summarize_dataset(tmp_path)
        assert sum(summary.kept.values()) + sum(map(len, summary.rejected.values())) == 8
        printed = dict(line.split()[:2] for line in result.stdout.splitlines() if not line.startswith("rejected"))
        assert {name: int(number) for name, number in printed.items()} == summary.kept
        assert "8 galaxies of real_galaxy_catalog.fits pass the quality cuts 'none'" in result.stderr
        assert "8 of 8 done" in result.stderr
        assert imread(tmp_path / "contact_sheet.png").std() > 0.05

        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"}
        assert call(*command).exit_code == 0
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".png"} == before
        refused(
            call(*command[:-4], "--snr", "15,98"), "holds another dataset", "its snr is [15.0, 99.0], not [15.0, 98.0]"
        )

    def test_every_option_arrives(self, catalogue, tmp_path):
        options = {
            "stamp": 24,
            "pixel-scale": 0.06,
            "psf": "own",
            "snr": "1,500",
            "noise": "correlated",
            "exclusion": "none",
            "seed": 5,
            "shard-size": 3,
            "processes": 1,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        assert call("cosmos", catalogue / "real_galaxy_catalog.fits", "--out", tmp_path, *given).exit_code == 0
        content = json.loads((tmp_path / "dataset.json").read_text())
        manifest = content["manifest"]
        assert manifest["psf"] is None
        assert {name: manifest[name] for name in ("stamp", "pixel_scale", "psf_name", "snr", "noise", "seed")} == {
            "stamp": 24,
            "pixel_scale": 0.06,
            "psf_name": "own",
            "snr": [1.0, 500.0],
            "noise": "correlated",
            "seed": 5,
        }
        assert content["shard_size"] == 3

    def test_refusals_are_one_message(self, catalogue, tmp_path):
        refused(call("cosmos", tmp_path / "none.fits", "--out", tmp_path), "there is no catalogue", "none.fits")
        out = ("--out", tmp_path, "--processes", 1, "--stamp", STAMP)
        refused(call("cosmos", catalogue, *out, "--snr", "15"), "--snr must be two numbers", "'15'")
        refused(call("cosmos", catalogue, *out, "--snr", "50,15"), "snr must be two increasing numbers")
        refused(call("cosmos", catalogue, *out, "--psf", "moffat"), "psf must be gaussian:FWHM", "'moffat'")
        assert call("cosmos", catalogue, *out, "--noise", "white").exit_code == 2
        nothing = call("cosmos", catalogue, *out, "--snr", "900,1000")
        refused(nothing, "none of the 8 galaxies was kept")
        assert "S/N below 900: 0, 1, 2, 3, 4, 5, ... (all in dataset.json)" in nothing.stdout


def test_simulated_galaxies(tmp_path):
    options = ("--seed", 3, "--stamp", 24, "--pixel-scale", 0.1, "--processes", 1)
    result = call("simulate", "--out", tmp_path, "--count", 6, *options, "--json")
    assert result.exit_code == 0, result.output
    summary = summarize_dataset(tmp_path)
    assert json.loads(result.stdout) == {"folder": str(tmp_path), "kept": summary.kept, "rejected": {}}
    assert summary.count == 6
    assert summary.manifest["seed"] == 3
    dataset = load_dataset(tmp_path, "train")
    assert dataset.images.shape[1:] == (24, 24)
    assert (tmp_path / "contact_sheet.png").stat().st_size > 0


def test_digits(tmp_path):
    assert call("mnist", "--out", tmp_path).exit_code == 0
    summary = summarize_dataset(tmp_path)
    assert summary.count == 5000
    assert (tmp_path / "contact_sheet.png").stat().st_size > 0
    assert call("mnist", "--out", tmp_path, "--source", "elsewhere").exit_code == 2


class TestContactSheet:
    def test_stretch_is_monotonic_and_keeps_the_noise_dark(self):
        noise = np.random.default_rng(1).normal(size=(30, 40)).astype(np.float32)
        noise[15, 20] = 1000
        shown = stretched(noise, sigma=1.0)
        order = np.argsort(noise.ravel())
        assert np.all(np.diff(shown.ravel()[order]) >= 0)
        assert shown.max() == 1
        assert np.median(shown) < 0.2
        assert np.all(stretched(np.zeros((4, 4), np.float32)) == 0)

    def test_galaxies_of_the_split_are_shown(self, tmp_path, monkeypatch):
        drawn = []

        def note(image, sigma=None):
            drawn.append(image)
            return stretched(image, sigma)

        monkeypatch.setattr(tflens.datasets.contact_sheet, "stretched", note)
        write_dataset(tmp_path, {}, range(30), lambda key: Record(np.full((4, 4), key + 1, np.float32), key))
        assert write_contact_sheet(tmp_path, "train", count=7, columns=3) == tmp_path / "contact_sheet.png"
        np.testing.assert_array_equal(drawn, load_dataset(tmp_path, "train").images[:7])
        with pytest.raises(ParameterError, match="no galaxy in its split nothing"):
            write_contact_sheet(tmp_path, "nothing")


def test_progress_on_a_terminal():
    console = Console(force_terminal=True, width=100, record=True, legacy_windows=False)
    with showing_count(console, 20) as progress:
        progress(12, 7)
    assert "12/20" in console.export_text()
