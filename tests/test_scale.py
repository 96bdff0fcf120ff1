"""What must not grow with a catalogue, and the figures of docs/scale.md."""

import csv
import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import costs  # noqa: E402
from stub_fit import summary, write_catalogue  # noqa: E402

from tflens.catalogue import read_catalogue  # noqa: E402
from tflens.outcomes import PARQUET, SUMMARY, Outcome, Outcomes  # noqa: E402

pq = pytest.importorskip("pyarrow.parquet")

MANY = 10_000
EACH = json.loads(summary("one"))


def settled(folder: Path, count: int, parquet: bool = False) -> Outcomes:
    outcomes = Outcomes(folder, count, parquet)
    for i in reversed(range(count)):
        outcomes.settle(i, Outcome(f"lens-{i:06d}", "fitted", "well fitted", EACH))
    return outcomes


class TestOutcomes:
    @pytest.mark.slow
    def test_take_some_bytes_of_memory_each(self, tmp_path):
        """Also while the table is written."""
        settled(tmp_path, 10).write_tables()
        tracemalloc.start()
        try:
            settled(tmp_path, MANY).write_tables()
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 30 * MANY + 300_000
        with (tmp_path / SUMMARY).open(newline="") as table:
            names = [row["name"] for row in csv.DictReader(table)]
        assert names == [f"lens-{i:06d}" for i in range(MANY)]

    def test_tables_of_different_rows(self, tmp_path):
        outcomes = Outcomes(tmp_path, 4, parquet=True)
        outcomes.settle(3, Outcome("d", "refused", "no noise"))
        odd = EACH | {"diagnostics": {"chi2_arcs": None, "smooth": True, "sampler": "hmc", "steps": 3}}
        outcomes.settle(0, Outcome("a", "fitted", "well", odd))
        outcomes.settle(1, Outcome("b", "kept", "well", EACH))
        outcomes.write_tables()
        rows = pq.read_table(tmp_path / PARQUET).to_pylist()
        assert [(row["name"], row["status"]) for row in rows] == [("a", "fitted"), ("b", "kept"), ("d", "refused")]
        assert [row["chi2_arcs"] for row in rows] == [None, 1.0, None]
        assert [row["smooth"] for row in rows] == [True, None, None]
        assert [row["sampler"] for row in rows] == ["hmc", None, None]
        assert [row["steps"] for row in rows] == [3.0, None, None]
        assert [row["seconds"] for row in rows] == [3.0, 3.0, None]
        assert outcomes.counts == {"fitted": 1, "kept": 1, "refused": 1}
        assert [each.name for each in outcomes.without_fit()] == ["d"]
        with pytest.raises(IndexError, match="the lens at 2 has none yet"):
            outcomes[2]

    def test_long_tables_are_not_written_for_every_lens(self, tmp_path):
        outcomes, written = settled(tmp_path, 2_000), []
        outcomes.write_tables()
        for _ in range(50):
            before = (tmp_path / SUMMARY).stat().st_ino
            outcomes.write_tables_in_time()
            written.append((tmp_path / SUMMARY).stat().st_ino != before)
        assert sum(written) < 10
        short = settled(tmp_path, 20)
        before = (tmp_path / SUMMARY).stat().st_ino
        short.write_tables_in_time()
        assert (tmp_path / SUMMARY).stat().st_ino != before


def test_a_catalogue_takes_some_bytes_of_memory_each(tmp_path):
    read_catalogue(write_catalogue(tmp_path, 1))  # imports what it takes
    table = write_catalogue(tmp_path, MANY)
    tracemalloc.start()
    try:
        entries = read_catalogue(table)
        gc.collect()  # of astropy
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 50 * MANY + 100_000
    assert len(entries) == MANY
    assert entries[MANY - 1].name == f"lens-{MANY - 1:06d}"
    assert [entry.name for entry in entries[1:3]] == ["lens-000001", "lens-000002"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_memory_is_flat_over_two_thousand_lenses(engine):
    arguments = json.dumps([engine, 2_000, 2, 0.0, False])
    call = [sys.executable, str(ROOT / "scripts/scale.py"), "--one", arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    driver = json.loads(done.stdout.splitlines()[-1])["driver"]
    assert max(driver) - driver[0] < 20  # MB


class TestCosts:
    FIT = costs.Fit(cores=2, seconds=100.0, once=25.0, host=8.0)

    def test_cores(self):
        # 75 s, and 0.25 s of what 100 lenses share, on 2 of 4 cores.
        assert costs.hours_on_cores(self.FIT, 4, lenses=3600) == pytest.approx(75.25 / 2)

    def test_gpus(self):
        low, high = costs.hours_on_gpus(self.FIT, 1, lenses=3600)
        gain = 1555 / 20
        assert (low, high) == pytest.approx((67 / (gain * 0.5) + 1.25, 67 / (gain * 0.1) + 1.25))
        assert costs.hours_on_gpus(self.FIT, 10, lenses=3600) == pytest.approx((low / 10, high / 10))

    def test_of_the_measured_fits(self):
        for fit in costs.measured().values():
            assert 0 <= fit.once + fit.host < fit.seconds
