"""Catalogues and many fits. The fits themselves are played by a copy of one small fit's results."""

import csv
import json
import shutil

import pytest
from small_fit import SETTINGS, small_fit
from typer.testing import CliRunner

from tflens import many
from tflens.catalogue import Entry, read_catalogue
from tflens.cli import app
from tflens.config import Input
from tflens.errors import ObservationError, ParameterError


@pytest.fixture
def files(tmp_path):
    """A folder with three lenses: two that are good, and between them one that is no FITS file."""
    folder = tmp_path / "lenses"
    folder.mkdir()
    for name in ("a", "c"):
        shutil.copy(small_fit().file, folder / f"{name}.fits")
    (folder / "b.fits").write_text("not a FITS file")
    return folder


@pytest.fixture
def fitted(monkeypatch):
    """Names of the lenses that were fitted, in order; results are those of the small fit."""
    names = []

    def execute(job, **_):
        names.append(job.folder.name)
        shutil.copytree(small_fit().folder, job.folder, dirs_exist_ok=True)
        config = json.loads((job.folder / "config.json").read_text())
        config |= {"input": job.config.as_dict()["input"], "settings": dict(job.config.settings)}
        (job.folder / "config.json").write_text(json.dumps(config))

    monkeypatch.setattr(many, "execute", execute)
    return names


def fit_all(folder, out, **changes):
    return many.fit_many(read_catalogue(folder), out, "sersic", SETTINGS | changes)


class TestCatalogue:
    def test_folder(self, files):
        assert [entry.name for entry in read_catalogue(files)] == ["a", "b", "c"]

    def test_table_with_names_columns_and_defaults(self, tmp_path):
        table = tmp_path / "lenses.csv"
        table.write_text(
            "name,file,psf_file,pixel_scale,magnitude\n0252,x.fits,psf.fits[1],,19\n,sub/y.fits.gz,,0.05,20\n"
        )
        first, second = read_catalogue(table)
        assert first == Entry("0252", Input(str(tmp_path / "x.fits"), psf_file=str(tmp_path / "psf.fits[1]")))
        assert second == Entry("y", Input(str(tmp_path / "sub/y.fits.gz"), pixel_scale=0.05))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("name,image\nx,1\n", 'must have a column "file", it has name, image'),
            ("file\n", "table without rows"),
            ("name,file\nx,1.fits\nx,2.fits\n", "names must be unique, but 'x' occurs 2 times"),
            ("name,file\na/b,1.fits\n", "one that a folder can have, got 'a/b'"),
            ("name,file\n.hidden,1.fits\n", "one that a folder can have, got '.hidden'"),
            ("name,file\nsummary.csv,1.fits\n", "one that a folder can have, got 'summary.csv'"),
            ("", "must be a table that astropy can read"),
        ],
    )
    def test_what_cannot_be_right_is_refused(self, tmp_path, content, message):
        table = tmp_path / "lenses.csv"
        table.write_text(content)
        with pytest.raises(ParameterError, match=message):
            read_catalogue(table)

    def test_missing_or_empty(self, tmp_path):
        with pytest.raises(ParameterError, match="the catalogue does not exist"):
            read_catalogue(tmp_path / "nowhere")
        with pytest.raises(ParameterError, match="folder without FITS files"):
            read_catalogue(tmp_path)


class TestFitMany:
    def test_bad_input_is_reported_and_skipped(self, files, fitted, tmp_path):
        outcomes = fit_all(files, tmp_path / "out")
        assert [(each.name, each.status) for each in outcomes] == [("a", "fitted"), ("b", "refused"), ("c", "fitted")]
        assert "b.fits" in outcomes[1].words
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "summary.csv"]
        rows = list(csv.DictReader((tmp_path / "out/summary.csv").read_text().splitlines()))
        assert [row["status"] for row in rows] == ["fitted", "refused", "fitted"]
        summary = json.loads((small_fit().folder / "summary.json").read_text())
        assert float(rows[0]["lens.theta_E_median"]) == summary["parameters"]["lens.theta_E"]["median"]
        assert rows[1]["lens.theta_E_median"] == ""

    def test_finished_lenses_are_kept(self, files, fitted, tmp_path):
        fit_all(files, tmp_path / "out")
        again = fit_all(files, tmp_path / "out")
        assert [each.status for each in again] == ["kept", "refused", "kept"]
        assert fitted == [".a.in-work", ".c.in-work"]

    def test_a_kill_loses_the_lens_in_work_alone(self, files, fitted, tmp_path, monkeypatch):
        whole = many.execute

        def killed(job, **options):
            if "c" in job.folder.name:
                (job.folder / "posterior.nc").write_text("half")
                raise KeyboardInterrupt
            whole(job, **options)

        monkeypatch.setattr(many, "execute", killed)
        with pytest.raises(KeyboardInterrupt):
            fit_all(files, tmp_path / "out")
        assert not (tmp_path / "out/c").exists()
        monkeypatch.setattr(many, "execute", whole)
        assert [each.status for each in fit_all(files, tmp_path / "out")] == ["kept", "refused", "fitted"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "summary.csv"]
        assert (tmp_path / "out/c/posterior.nc").read_bytes() == (small_fit().folder / "posterior.nc").read_bytes()

    def test_an_error_of_one_fit_does_not_end_the_others(self, files, fitted, tmp_path, monkeypatch):
        whole = many.execute

        def broken(job, **options):
            if "a" in job.folder.name.split("."):
                raise ZeroDivisionError("in the middle")
            whole(job, **options)

        monkeypatch.setattr(many, "execute", broken)
        outcomes = fit_all(files, tmp_path / "out")
        assert [each.status for each in outcomes] == ["failed", "refused", "fitted"]
        assert "ZeroDivisionError: in the middle" in outcomes[0].words
        assert "Traceback" in (tmp_path / "out/a.error.txt").read_text()

    def test_fits_of_other_settings_or_input_are_not_taken_for_these(self, files, fitted, tmp_path):
        fit_all(files, tmp_path / "out")
        with pytest.raises(ParameterError, match="holds a fit of another seed"):
            fit_all(files, tmp_path / "out", seed=99)
        (files / "a.fits").write_bytes((files / "a.fits").read_bytes() + b"\0" * 2880)
        tables = {"source": {"profile": "Sersic"}}
        with pytest.raises(ParameterError, match="holds a fit of another model"):
            many.fit_many(read_catalogue(files), tmp_path / "out", "sersic", SETTINGS, tables=tables)
        with pytest.raises(ParameterError, match="holds a fit of another input"):
            fit_all(files, tmp_path / "out")

    def test_observation_error_is_one_of_ours(self):
        assert issubclass(ObservationError, many.TflensError)


class TestCommand:
    def test_table_and_exit_code(self, files, fitted, tmp_path):
        options = ["--out", str(tmp_path / "out"), "--source", "sersic", "--warmup", "40", "--draws", "30"]
        outcome = CliRunner().invoke(app, ["fit-many", str(files), *options])
        assert outcome.exit_code == 1  # b has no fit
        assert "3 lenses" in outcome.stdout
        assert [word for word in outcome.stdout.split() if word in ("fitted", "refused")] == [
            "fitted",
            "refused",
            "fitted",
        ]
        (files / "b.fits").unlink()
        assert CliRunner().invoke(app, ["fit-many", str(files), *options]).exit_code == 0
