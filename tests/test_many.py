"""Catalogues and many fits. The fits are played by copies of one small fit's results, in real child processes."""

import csv
import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from many_stub import Stub, unable_to_start
from small_fit import SETTINGS, observation, small_fit
from typer.testing import CliRunner

from tflens import many
from tflens.catalogue import Entry, read_catalogue
from tflens.cli import app
from tflens.config import Input, RunConfig
from tflens.errors import ObservationError, ParameterError
from tflens.inference.posterior import Posterior
from tflens.observation import Observation
from tflens.run import execute, prepare
from tflens.workers import resident_bytes, run_in_workers

KILL = signal.SIGKILL


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
def stub(tmp_path):
    return Stub(log=tmp_path / "log", results=small_fit().folder)


def lenses(folder: Path, names: str) -> Path:
    """A folder with a copy of the small lens for each letter."""
    folder.mkdir()
    for name in names:
        shutil.copy(small_fit().file, folder / f"{name}.fits")
    return folder


def fit_all(folder, out, stub, changes=None, **options):
    return many.fit_many(read_catalogue(folder), out, "sersic", SETTINGS | (changes or {}), start=stub, **options)


def table(out: Path) -> list[tuple[str, str]]:
    rows = csv.DictReader((out / many.SUMMARY).read_text().splitlines())
    return [(row["name"], row["status"]) for row in rows]


def attempted(stub: Stub) -> list[str]:
    return [each["name"] for each in stub.attempts()]


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
    def test_bad_input_is_reported_and_skipped(self, files, stub, tmp_path):
        outcomes = fit_all(files, tmp_path / "out", stub)
        assert [(each.name, each.status) for each in outcomes] == [("a", "fitted"), ("b", "refused"), ("c", "fitted")]
        assert "b.fits" in outcomes[1].words
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "summary.csv"]
        rows = list(csv.DictReader((tmp_path / "out/summary.csv").read_text().splitlines()))
        assert [row["status"] for row in rows] == ["fitted", "refused", "fitted"]
        summary = json.loads((small_fit().folder / "summary.json").read_text())
        assert float(rows[0]["lens.theta_E_median"]) == summary["parameters"]["lens.theta_E"]["median"]
        assert rows[1]["lens.theta_E_median"] == ""

    def test_finished_lenses_are_kept(self, files, stub, tmp_path):
        fit_all(files, tmp_path / "out", stub)
        again = fit_all(files, tmp_path / "out", stub)
        assert [each.status for each in again] == ["kept", "refused", "kept"]
        assert attempted(stub) == ["a", "c"]

    def test_an_error_of_one_fit_does_not_end_the_others(self, files, stub, tmp_path):
        outcomes = fit_all(files, tmp_path / "out", dataclasses.replace(stub, failing=("a",)))
        assert [each.status for each in outcomes] == ["failed", "refused", "fitted"]
        assert "ZeroDivisionError: in the middle" in outcomes[0].words
        assert "Traceback" in (tmp_path / "out/a.error.txt").read_text()
        assert attempted(stub) == ["a", "c"]  # what an error says, it says again
        assert [each.status for each in fit_all(files, tmp_path / "out", stub)] == ["fitted", "refused", "kept"]
        assert not (tmp_path / "out/a.error.txt").exists()

    def test_fits_of_other_settings_or_input_are_not_taken_for_these(self, files, stub, tmp_path):
        fit_all(files, tmp_path / "out", stub)
        with pytest.raises(ParameterError, match="holds a fit with a different seed"):
            fit_all(files, tmp_path / "out", stub, {"seed": 99})
        (files / "a.fits").write_bytes((files / "a.fits").read_bytes() + b"\0" * 2880)
        tables = {"source": {"profile": "Sersic"}}
        with pytest.raises(ParameterError, match="holds a fit with a different model"):
            fit_all(files, tmp_path / "out", stub, tables=tables)
        with pytest.raises(ParameterError, match="holds a fit with a different input"):
            fit_all(files, tmp_path / "out", stub)

    def test_observation_error_is_one_of_ours(self):
        assert issubclass(ObservationError, many.TflensError)

    def test_rows_stay_in_the_order_of_the_catalogue(self, stub, tmp_path):
        folder, told = lenses(tmp_path / "in", "abc"), []
        last = dataclasses.replace(stub, after=(("a", tmp_path / "both"),))

        def tell(outcome):
            told.append(outcome.name)
            rows.append(table(tmp_path / "out"))
            if len(told) == 2:
                (tmp_path / "both").touch()

        rows = []
        outcomes = fit_all(folder, tmp_path / "out", last, processes=2, share=False, tell=tell)
        assert told == ["b", "c", "a"]
        assert rows == [[(name, "fitted") for name in names] for names in ("b", "bc", "abc")]
        assert [each.name for each in outcomes] == ["a", "b", "c"]
        assert {each["threads"] for each in stub.attempts()} == {max(1, len(os.sched_getaffinity(0)) // 2)}


class TestDeath:
    def test_costs_one_lens_and_is_tried_once_more(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "abcd")
        dying = dataclasses.replace(stub, dying=(("b", KILL), ("d", signal.SIGSEGV)))
        outcomes = fit_all(folder, tmp_path / "out", dying)
        assert [each.status for each in outcomes] == ["fitted", "failed", "fitted", "failed"]
        assert "ended by SIGKILL, as the system does when memory runs out (attempt 2 of 2)" in outcomes[1].words
        assert "ended by SIGSEGV (attempt 2 of 2)" in outcomes[3].words
        assert attempted(stub) == ["a", "b", "b", "c", "d", "d"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "summary.csv"]
        assert [each.status for each in fit_all(folder, tmp_path / "out", stub)] == ["kept", "fitted"] * 2

    def test_the_second_attempt_counts(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "ab")
        outcomes = fit_all(folder, tmp_path / "out", dataclasses.replace(stub, dying_once=("a",)))
        assert [each.status for each in outcomes] == ["fitted", "fitted"]
        assert (tmp_path / "out/a/posterior.nc").read_bytes() == (small_fit().folder / "posterior.nc").read_bytes()
        first, second, after = stub.attempts()
        assert first["process"] != second["process"] == after["process"]

    def test_of_one_worker_leaves_the_other_alone(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "abc")
        mixed = dataclasses.replace(stub, dying=(("b", KILL),), slow=(("a", 4.0),))
        outcomes = fit_all(folder, tmp_path / "out", mixed, processes=2, share=False)
        assert [each.status for each in outcomes] == ["fitted", "failed", "fitted"]
        assert sorted(attempted(stub)) == ["a", "b", "b", "c"]

    def test_an_error_that_is_no_lens_s_ends_it_all(self, tmp_path):
        folder = lenses(tmp_path / "in", "ab")
        with pytest.raises(FileNotFoundError, match="no such weights") as raised:
            fit_all(folder, tmp_path / "out", unable_to_start, share=False)
        assert "in a worker" in raised.value.__notes__[0]
        assert not multiprocessing.active_children()


class TestInterrupt:
    def test_keeps_what_is_finished_and_leaves_no_process(self, stub, tmp_path):
        folder, out = lenses(tmp_path / "in", "abc"), tmp_path / "out"
        slow = dataclasses.replace(stub, slow=(("b", 300.0),))

        def interrupt():
            while "b" not in attempted(stub):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            fit_all(folder, out, slow)
        assert not multiprocessing.active_children()
        assert sorted(path.name for path in out.iterdir()) == ["a", "summary.csv"]
        assert table(out) == [("a", "fitted")]
        assert [each.status for each in fit_all(folder, out, stub)] == ["kept", "fitted", "fitted"]

    def test_a_killed_call_leaves_no_process_and_no_half_results(self, stub, tmp_path):
        folder, out = lenses(tmp_path / "in", "ab"), tmp_path / "out"
        slow = dataclasses.replace(stub, slow=(("b", 300.0),))
        script = (
            "import pathlib, test_many\nfrom many_stub import Stub\n"
            f"test_many.fit_all(pathlib.Path({str(folder)!r}), pathlib.Path({str(out)!r}), "
            f"Stub(log=pathlib.Path({str(slow.log)!r}), results=pathlib.Path({str(slow.results)!r}), "
            "slow=(('b', 300.0),)))"
        )
        call = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
        while "b" not in attempted(stub):
            assert call.poll() is None
            time.sleep(0.05)
        call.kill()
        call.wait()
        worker = stub.attempts()[-1]["process"]
        deadline = time.monotonic() + 30
        while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{worker}").exists()
        assert not (out / "b").exists()
        assert [each.status for each in fit_all(folder, out, stub)] == ["kept", "fitted"]


class TestSharing:
    def observed(self, folder: Path, **changed: dict) -> Path:
        """The small lens with changes, a file for each."""
        folder.mkdir()
        base = observation()
        for name, change in changed.items():
            parts = {"image": base.image, "noise": base.noise, "psf": base.psf, "pixel_scale": 0.1} | change
            Observation(**parts).to_fits(folder / f"{name}.fits")
        return folder

    def together(self, folder, out, stub, **options) -> tuple[set[str], dict[str, dict | None]]:
        """Names of the lenses of each process, and how each lens was to share."""
        fit_all(folder, out, stub, **options)
        found = {}
        for each in stub.attempts():
            found.setdefault(each["process"], []).append(each["name"])
        return {"".join(names) for names in found.values()}, {each["name"]: each["shared"] for each in stub.attempts()}

    def test_lenses_of_one_shape_scale_psf_and_centre_have_one_process(self, stub, tmp_path):
        base = observation()
        folder = self.observed(
            tmp_path / "in",
            a={},
            b={"image": base.image[:, 1:-1], "noise": base.noise[:, 1:-1]},
            c={"image": base.image + 0.001},
            d={"pixel_scale": 0.12},
            e={"psf": base.psf[:, ::-1].T},
            f={"image": np.roll(base.image, 1, 0)},  # its centre lies a pixel further up
        )
        processes, shared = self.together(folder, tmp_path / "out", stub)
        assert processes == {"ac", "b", "d", "e", "f"}
        assert shared["a"] == shared["c"]
        assert [shared[name] for name in "bdef"] == [None] * 4
        # The lens lies at the middle of the image, to within the noise.
        assert shared["a"]["center"] == pytest.approx([0.0, 0.0], abs=0.021)

    def test_with_a_model_of_ones_own_centres_do_not_matter(self, stub, tmp_path):
        folder = self.observed(tmp_path / "in", a={}, b={"image": np.roll(observation().image, 1, 0)})
        tables = {"source": {"profile": "Sersic"}}
        processes, shared = self.together(folder, tmp_path / "out", stub, tables=tables)
        assert processes == {"ab"}
        assert shared == {"a": {}, "b": {}}

    def test_may_be_declined(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "ab")
        assert self.together(folder, tmp_path / "out", stub, share=False) == ({"a", "b"}, {"a": None, "b": None})

    def test_lenses_are_divided_among_processes(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "abcdef")
        assert self.together(folder, tmp_path / "out", stub, processes=2)[0] == {"abc", "def"}


class TestMemory:
    def test_is_flat_over_two_hundred_lenses(self, stub, tmp_path):
        (tmp_path / "in").mkdir()
        for i in range(200):
            (tmp_path / f"in/{i:03d}.fits").symlink_to(small_fit().file)
        hoarding = dataclasses.replace(stub, names=("config.json", "summary.json"), hoarding=1_000_000)
        used = []
        outcomes = fit_all(tmp_path / "in", tmp_path / "out", hoarding, tell=lambda _: used.append(resident_bytes()))
        assert [each.status for each in outcomes] == ["fitted"] * 200
        assert [each["name"] for each in stub.attempts()] == [f"{i:03d}" for i in range(200)]
        processes = [each["process"] for each in stub.attempts()]
        assert all(processes.count(each) == many.LENSES_PER_WORKER for each in processes)
        # A hundred summaries, and nothing of the fits themselves.
        assert used[-1] - used[99] < 20e6

    def test_a_process_that_holds_too_much_is_replaced(self, stub, tmp_path):
        folder = lenses(tmp_path / "in", "abcd")
        # Two lenses' worth on top of what Python and its libraries take, which is less than half of that.
        hoarding = dataclasses.replace(stub, hoarding=1_000_000_000)
        fit_all(folder, tmp_path / "out", hoarding, memory=1.6)
        a, b, c, d = (each["process"] for each in stub.attempts())
        assert a == b != c == d


class TestRepeats:
    @pytest.mark.slow
    def test_a_lens_that_shared_is_repeated_by_its_configuration(self, tmp_path):
        """The second of two lenses, fitted with what was compiled for the first, and then by itself."""
        folder, out = tmp_path / "in", tmp_path / "out"
        folder.mkdir()
        base = observation()
        for name, change in (("a", 0.0), ("b", 0.001)):
            lens = Observation(base.image + change, base.noise, base.psf, 0.1)
            lens.to_fits(folder / f"{name}.fits")
        outcomes = many.fit_many(read_catalogue(folder), out, "sersic", SETTINGS)
        assert [each.status for each in outcomes] == ["fitted", "fitted"]
        config = RunConfig.load(out / "b/config.json")
        assert config.shared["refine"] is not None
        assert config.shared["center"] == pytest.approx([0.0, 0.0], abs=0.021)
        again = execute(prepare(config, tmp_path / "again"), tensorboard=False)
        found = Posterior.load(out / "b/posterior.nc")
        np.testing.assert_allclose(again.posterior.draws("lens.theta_E"), found.draws("lens.theta_E"), rtol=1e-4)


class TestWorkers:
    def test_results_come_as_they_are_finished(self):
        batches = [[3.0, 0.0], [0.1]]
        assert [result for _, result in run_in_workers(partial(partial, sleep_for), batches, processes=2)] == [
            0.1,
            3.0,
            0.0,
        ]

    def test_without_work_there_are_no_workers(self):
        assert list(run_in_workers(partial, [])) == []


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class TestCommand:
    @pytest.fixture
    def options(self, monkeypatch, stub, tmp_path):
        monkeypatch.setattr(many, "fit_many", partial(many.fit_many, start=stub))
        return ["--out", str(tmp_path / "out"), "--source", "sersic", "--warmup", "40", "--draws", "30"]

    def test_table_and_exit_code(self, files, options, tmp_path):
        outcome = CliRunner().invoke(app, ["fit-many", str(files), *options])
        assert outcome.exit_code == 1  # b has no fit
        assert "3 lenses" in outcome.stdout
        assert [word for word in outcome.stdout.split() if word in ("fitted", "refused")] == [
            "fitted",
            "refused",
            "fitted",
        ]
        lines = [line.split(":")[:2] for line in outcome.stderr.splitlines() if " of 3: " in line]
        assert lines == [["1 of 3", " b refused"], ["2 of 3", " a fitted"], ["3 of 3", " c fitted"]]
        as_json = CliRunner().invoke(app, ["fit-many", str(files), *options, "--json"])
        assert as_json.exit_code == 1
        lenses = {lens["name"]: lens for lens in json.loads(as_json.stdout)["lenses"]}
        assert {name: lens["status"] for name, lens in lenses.items()} == {"a": "kept", "b": "refused", "c": "kept"}
        assert lenses["b"]["summary"] is None
        assert lenses["a"]["summary"] == json.loads((tmp_path / "out/a/summary.json").read_text())
        (files / "b.fits").unlink()
        assert CliRunner().invoke(app, ["fit-many", str(files), *options]).exit_code == 0

    def test_interrupted_it_says_how_to_go_on(self, files, options, monkeypatch, tmp_path):
        def interrupted(entries, out, *arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(many, "fit_many", interrupted)
        outcome = CliRunner().invoke(app, ["fit-many", str(files), *options])
        assert outcome.exit_code == 130
        assert f"0 of 3 lenses are fitted and kept in {tmp_path / 'out'}: the same command goes on" in outcome.stderr
