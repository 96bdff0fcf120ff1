"""`tflens calibrate`: many fits of mocks in child processes, played by results that are made up, and what is kept."""

import importlib
import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from calibrate_stub import Stub
from typer.testing import CliRunner

from tflens import calibrate
from tflens.calibrate import Plan, Sources, fit_mocks, keep, prior_sources, result_file, resume, same_mocks
from tflens.cli import app
from tflens.errors import ParameterError
from tflens.inference.calibration import chosen_stamp, figures

STAMPS = np.arange(1.0, 6.0)[:, None, None] * np.ones((5, 3, 4))
PLAN = Plan(Sources("real", {"sha256": "abc"}, 0.06, STAMPS), "sersic", seed=2)


@pytest.fixture
def stub(tmp_path):
    return Stub(tmp_path / "log")


def attempted(stub: Stub) -> list[int]:
    return [each["index"] for each in stub.attempts()]


def without_fit(results: list[dict]) -> list[int]:
    return [result["index"] for result in results if "no_fit" in result]


class TestFitMocks:
    def test_each_mock_has_its_stamp_and_its_file(self, stub, tmp_path):
        results = fit_mocks(PLAN, 3, tmp_path / "run", start=stub)
        assert [result["index"] for result in results] == [0, 1, 2]
        sums = [each["stamp"] for each in stub.attempts()]
        assert sums == [chosen_stamp(STAMPS, 2, index).sum() for index in range(3)]
        names = [f"real-sersic-2-{index:04d}.json" for index in range(3)]
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names
        assert json.loads((tmp_path / "run" / names[1]).read_text()) == results[1]
        assert results[0]["made_with"] == PLAN.made_with()

    def test_the_number_of_processes_changes_no_result(self, stub, tmp_path):
        one = fit_mocks(PLAN, 5, tmp_path / "one", start=stub)
        two = fit_mocks(PLAN, 5, tmp_path / "two", start=stub, processes=2)
        assert one == two
        alone, several = stub.attempts()[:5], stub.attempts()[5:]
        assert {each["threads"] for each in alone} == {None}
        assert {each["threads"] for each in several} == {1}
        assert len({each["process"] for each in several}) == 2

    def test_mocks_that_share_nothing_have_a_process_each(self, stub, tmp_path):
        fit_mocks(PLAN, 3, tmp_path / "run", start=stub, share=False)
        assert len({each["process"] for each in stub.attempts()}) == 3

    def test_a_larger_number_goes_on(self, stub, tmp_path):
        told = []
        first = fit_mocks(PLAN, 2, tmp_path / "run", start=stub)
        more = fit_mocks(
            PLAN, 4, tmp_path / "run", lambda result, kept: told.append((result["index"], kept)), start=stub
        )
        assert more[:2] == first
        assert attempted(stub) == [0, 1, 2, 3]
        assert told == [(0, True), (1, True), (2, False), (3, False)]

    def test_a_death_costs_a_second_attempt_and_then_counts_as_a_failure(self, stub, tmp_path):
        dying = replace(stub, dying=(1,), dying_once=(2,))
        results = fit_mocks(PLAN, 4, tmp_path / "run", start=dying)
        assert attempted(stub) == [0, 1, 1, 2, 2, 3]
        assert without_fit(results) == [1]
        assert results[1]["name"] == "mock 1 of seed 2"
        assert "SIGKILL" in results[1]["no_fit"]
        failures = next(record for record in figures(results) if record["figure"].startswith("failures"))
        assert (failures["value"], failures["fits"]) == (0.25, 3)
        assert without_fit(fit_mocks(PLAN, 4, tmp_path / "run", start=stub)) == []  # another call tries it again

    def test_an_error_counts_as_a_failure_and_is_told(self, stub, tmp_path):
        results = fit_mocks(PLAN, 2, tmp_path / "run", start=replace(stub, failing=(0,)))
        assert without_fit(results) == [0]
        assert "ZeroDivisionError: in the middle" in results[0]["no_fit"]
        report = tmp_path / "run/real-sersic-2-0000.error.txt"
        assert "Traceback" in report.read_text()
        fit_mocks(PLAN, 2, tmp_path / "run", start=stub)
        assert not report.exists()

    @pytest.mark.parametrize(
        "other",
        [
            replace(PLAN, settings={**PLAN.settings, "draws": 33}),
            replace(PLAN, sources=replace(PLAN.sources, identity={"sha256": "another"})),
        ],
        ids=["settings", "sources"],
    )
    def test_results_of_another_plan_are_not_taken_for_these(self, stub, tmp_path, other):
        fit_mocks(PLAN, 1, tmp_path / "run", start=stub)
        with pytest.raises(ParameterError, match="what they were made with differs in"):
            fit_mocks(other, 2, tmp_path / "run", start=stub)
        assert attempted(stub) == [0]

    def test_an_interrupt_keeps_what_is_finished_and_leaves_no_process(self, stub, tmp_path):
        def interrupt():
            while 1 not in attempted(stub):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            fit_mocks(PLAN, 3, tmp_path / "run", start=replace(stub, slow=(1,)))
        assert not multiprocessing.active_children()
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["real-sersic-2-0000.json"]
        assert [each["index"] for each in fit_mocks(PLAN, 3, tmp_path / "run", start=stub)] == [0, 1, 2]
        assert attempted(stub) == [0, 1, 1, 2]

    def test_lenstronomy_is_asked_for_before_anything_is_fitted(self, stub, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "lenstronomy", None)
        with pytest.raises(ParameterError, match="need that package, which is not installed: pip install lenstronomy"):
            fit_mocks(replace(PLAN, shot_by="lenstronomy"), 1, tmp_path / "run", start=stub)
        assert not attempted(stub)


class TestKeep:
    def test_a_kept_run_goes_on_elsewhere(self, stub, tmp_path):
        results = fit_mocks(PLAN, 3, tmp_path / "here", start=replace(stub, failing=(1,)))
        file = tmp_path / "kept/run.jsonl"
        keep(file, results)
        assert len(file.read_text().splitlines()) == 4
        assert resume(file, PLAN, tmp_path / "there") == 2  # the one without a fit gets another chance
        there = fit_mocks(PLAN, 4, tmp_path / "there", start=stub)
        assert attempted(stub) == [0, 1, 2, 1, 3]
        for before, after in zip(results, there, strict=False):
            if "no_fit" not in before:
                truth, found = (each["parameters"]["lens.e1"] for each in (before, after))
                np.testing.assert_allclose(found["median"], truth["median"], rtol=1e-6)
                assert after["made_with"] == before["made_with"]

    def test_what_is_in_the_folder_stays(self, stub, tmp_path):
        keep(tmp_path / "kept.jsonl", fit_mocks(PLAN, 2, tmp_path / "run", start=stub))
        before = result_file(tmp_path / "run", PLAN, 0).read_bytes()
        assert resume(tmp_path / "kept.jsonl", PLAN, tmp_path / "run") == 0
        assert result_file(tmp_path / "run", PLAN, 0).read_bytes() == before

    def test_results_of_another_plan_are_refused(self, stub, tmp_path):
        keep(tmp_path / "kept.jsonl", fit_mocks(PLAN, 1, tmp_path / "run", start=stub))
        with pytest.raises(ParameterError, match="differs in mocks"):
            resume(tmp_path / "kept.jsonl", replace(PLAN, seed=3), tmp_path / "other")
        assert not (tmp_path / "other").exists()

    @pytest.mark.parametrize("content", ["", "no JSON", "{}", '{"made_with": {}}\n{}', "[]"])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "kept.jsonl").write_text(content)
        with pytest.raises(ParameterError, match="cannot be read as kept results of tflens calibrate"):
            resume(tmp_path / "kept.jsonl", PLAN, tmp_path / "run")

    def test_fits_of_the_same_mocks_are_found(self, stub, tmp_path):
        flow = replace(PLAN, source="flow")
        fit_mocks(PLAN, 3, tmp_path, start=stub)
        fit_mocks(flow, 2, tmp_path, start=stub)
        found = same_mocks(PLAN, 2, tmp_path)
        assert {name: len(results) for name, results in found.items()} == {"flow": 2, "sersic": 2}
        assert set(same_mocks(PLAN, 3, tmp_path)) == {"sersic"}
        assert same_mocks(replace(PLAN, seed=3), 2, tmp_path) == {}


class TestPlan:
    def test_labels_and_words(self):
        plan = replace(PLAN, shot_by="lenstronomy", source="flow")
        assert plan.label == "real-lenstronomy-flow-2"
        assert plan.variant == "real sources shot by lenstronomy, fitted with the flow prior"

    def test_mocks_of_the_prior_know_their_galaxy_model(self):
        made = Plan(prior_sources(), "sersic").made_with()
        assert made["mocks"]["galaxies"]["sha256"]
        assert PLAN.made_with()["mocks"]["galaxies"] is None


class TestCommand:
    @pytest.fixture
    def told(self, stub, tmp_path, monkeypatch):
        """`tflens calibrate` of 6 mocks with a Sersic source: one is off, one kills its processes."""
        start = replace(stub, wrong=(3,), dying=(4,))
        monkeypatch.setattr(calibrate, "fit_mocks", partial(fit_mocks, start=start))
        arguments = ["calibrate", "--run", str(tmp_path / "run"), "--n", "6", "--source", "sersic", "--processes", "2"]
        return CliRunner().invoke(app, [*arguments, "--keep", str(tmp_path / "kept.jsonl")]), tmp_path / "run"

    def test_prints_every_figure_and_the_failures_by_name(self, told):
        outcome, _ = told
        assert outcome.exit_code == 0, outcome.output
        assert "6 mocks, 5 with fits: prior sources, fitted with a Sersic profile" in outcome.stdout
        assert "theta_E: median of abs(error)" in outcome.stdout
        failures = outcome.stdout[outcome.stdout.index("2 of 6 mocks failed") :]
        assert "mock 3 of seed 1" in failures
        assert "theta_E off by +20" in failures
        assert "mock 4 of seed 1" in failures
        assert "no fit: the process" in failures

    def test_writes_records_that_can_be_repeated(self, told):
        _, run = told
        for record in json.loads((run / "fits.json").read_text()):
            assert record["variant"] == "prior sources, fitted with a Sersic profile"
            assert (record["n"], record["fits"], record["seed"]) == (6, 5, 1)
            assert record["command"] == "tflens calibrate --n 6 --seed 1 --source sersic"
        assert (run / "prior-sersic-1.png").stat().st_size > 10_000
        assert len((run.parent / "kept.jsonl").read_text().splitlines()) == 7

    def test_counts_the_gain_where_all_have_fits(self, stub, tmp_path, monkeypatch):
        monkeypatch.setattr(calibrate, "fit_mocks", partial(fit_mocks, start=stub))
        for source in ("flow", "sersic"):
            arguments = ["calibrate", "--run", str(tmp_path / "run"), "--n", "2", "--draws", "33", "--source", source]
            outcome = CliRunner().invoke(app, arguments)
            assert outcome.exit_code == 0, outcome.output
        assert "gain of the flow prior, 2 lenses" in outcome.stdout
        found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
        kept = json.loads(Path(found["records"]).read_text())  # of both sources
        assert len(found["gains"]) == 2
        assert all(record in kept for record in found["figures"] + found["gains"])
        assert found["failures"] == {}
        gained = [each for each in json.loads((tmp_path / "run/fits.json").read_text()) if each["id"] == "F6"]
        assert {each["variant"] for each in gained} == {"prior sources, a Sersic profile over the flow prior"}
        assert {each["command"] for each in gained} == {"tflens calibrate --n 2 --seed 1 --source sersic --draws 33"}
        assert [each["value"] for each in gained] == [1.0, 1.0]  # what is made up does not depend on the source

    def test_two_kinds_of_sources_at_once_are_refused(self, tmp_path):
        both = ["calibrate", "--run", str(tmp_path), "--data", "a", "--real", "b"]
        outcome = CliRunner().invoke(app, both)
        assert outcome.exit_code == 2
        assert "not both" in outcome.output


class TestTable:
    def test_the_gain_stands_beside_what_it_is_of(self, monkeypatch):
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "scripts")
        tables = importlib.import_module("update_tables")
        common = {"n": 9, "seed": 2, "command": "", "commit": "abc", "reach": None}
        figure = "theta_E: median of abs(error)"
        found = {"the flow prior": 0.002, "N(0, I)": 0.003, "a Sersic profile": 0.008}
        records = [
            {"id": "F1", "figure": figure, "variant": f"real sources, fitted with {name}", "value": value} | common
            for name, value in found.items()
        ]
        variant = "real sources, a Sersic profile over the flow prior"
        records.append({"id": "F6", "figure": figure, "variant": variant, "value": 4.0, "spread": [3.0, 6.0]} | common)
        rows = tables.fits_gain(records).splitlines()
        assert rows[2] == (
            f"| real sources, 9 of seed 2 | {figure} | 0.002 | 0.003 | 0.008 | 1.50 | 4.00 (3.00-6.00) |"
        )
        assert len(rows) == 2 + len(tables._GAINS)
        assert "F6" not in tables.fits(records)
        assert len(tables.fits_gain(records[:1]).splitlines()) == 2  # alone there is nothing to compare


@pytest.mark.slow
def test_two_real_fits_by_a_real_worker(shared_data: Path, tmp_path: Path):
    """Real galaxies, shot by lenstronomy, fitted with a Sersic source and next to no effort."""
    sources = calibrate.real_sources(shared_data / "galaxies/cosmos_f814w/stamps64_0p05_gauss0p15.npz")
    settings = {
        "starts": 4,
        "search_steps": 24,
        "survivors": 2,
        "polish_steps": 8,
        "chains": 2,
        "warmup": 40,
        "draws": 30,
    }
    plan = Plan(sources, "sersic", shot_by="lenstronomy", settings=settings)
    results = fit_mocks(plan, 2, tmp_path)
    assert without_fit(results) == []
    assert max(abs(each["parameters"]["lens.theta_E"]["median"] - 1.28) for each in results) < 0.2
