"""Many fits on a Ray cluster of several nodes on this machine, some of which die. The fits are stubs."""

import json
import os
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tflens import many, ray_workers
from tflens.catalogue import read_catalogue
from tflens.cli import app
from tflens.errors import ParameterError, TflensError
from tflens.outcomes import PARQUET, SUMMARY
from tflens.ray_workers import connected, run_on_ray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from stub_fit import StubFit, posterior, write_catalogue  # noqa: E402

ray = pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and two nodes of one CPU."""
    from ray.cluster_utils import Cluster

    mine = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files open
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick})
        for _ in range(2):
            started.add_node(num_cpus=1)
        ray.init(address=started.address, log_to_driver=False, logging_level="ERROR")
        yield started
        ray.shutdown()
        started.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def stub(tmp_path):
    return StubFit(log=tmp_path / "log")


def fit_all(tmp_path, stub, count, **options):
    options = {"processes": 2, "share": False, "engine": run_on_ray, "parquet": True} | options
    entries = read_catalogue(write_catalogue(tmp_path / "in", count))
    return many.fit_many(entries, tmp_path / "out", "sersic", {}, start=stub, **options)


def assert_complete(out: Path, names: list[str]) -> None:
    """A posterior for each, its own; a row for each; and nothing else."""
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, SUMMARY, PARQUET])
    for name in names:
        assert (out / name / "posterior.nc").read_bytes() == posterior(name)
    rows = pq.read_table(out / PARQUET).to_pylist()
    assert [row["name"] for row in rows] == names
    assert {row["status"] for row in rows} <= {"fitted", "kept"}
    assert all(json.loads((out / row["name"] / "summary.json").read_text())["name"] == row["name"] for row in rows)


class Killer:
    """Kills the node of the lens that was begun last, every so many outcomes, and puts another in its place.

    Attributes:
        victims: lenses whose fits were cut off.
    """

    def __init__(self, cluster, stub: StubFit, out: Path, every: int, most: int) -> None:
        self.cluster, self.stub, self.out, self.every, self.most = cluster, stub, out, every, most
        self.done, self.victims = 0, []

    def __call__(self, outcome) -> None:
        self.done += 1
        if self.done % self.every or len(self.victims) == self.most:
            return
        time.sleep(0.3)  # the worker of this outcome is beginning its next
        at_work = [each for each in self.stub.attempts() if not (self.out / each["name"]).exists()]
        if not at_work:
            return
        process, name = at_work[-1]["process"], at_work[-1]["name"]
        os.kill(process, signal.SIGKILL)  # else it would go on for a while, without its node
        (node,) = [each for each in self.cluster.worker_nodes if each.node_id == at_work[-1]["node"]]
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(num_cpus=1, wait=False)
        if not (self.out / name).exists():  # else it had just finished
            self.victims.append(name)


def names(count: int) -> list[str]:
    return [f"lens-{i:06d}" for i in range(count)]


class TestDeathOfANode:
    def test_every_lens_has_one_posterior(self, cluster, stub, tmp_path):
        slow = StubFit(seconds=2.0, log=stub.log)
        killer = Killer(cluster, slow, tmp_path / "out", every=2, most=1)
        outcomes = fit_all(tmp_path, slow, 8, tell=killer, share=True)
        assert [each.status for each in outcomes] == ["fitted"] * 8
        assert_complete(tmp_path / "out", names(8))
        (victim,) = killer.victims
        attempted = [each["name"] for each in slow.attempts()]
        assert attempted.count(victim) == 2
        nodes = {each["node"] for each in slow.attempts() if each["name"] == victim}
        assert len(nodes) == 2  # the second attempt was on another node

    @pytest.mark.slow
    def test_again_and_again(self, cluster, stub, tmp_path):
        slow = StubFit(seconds=1.0, log=stub.log)
        killer = Killer(cluster, slow, tmp_path / "out", every=7, most=8)
        outcomes = fit_all(tmp_path, slow, 80, tell=killer, share=True, attempts=5)
        assert [each.status for each in outcomes] == ["fitted"] * 80
        assert len(killer.victims) >= 4
        attempted = [each["name"] for each in slow.attempts()]
        assert all(attempted.count(name) >= 2 for name in killer.victims)
        assert_complete(tmp_path / "out", names(80))


class TestDeathOfALens:
    def test_is_bounded_and_others_go_on_and_are_kept(self, cluster, stub, tmp_path):
        first, second, third, _ = names(4)
        bad = StubFit(log=stub.log, dying=((first, signal.SIGKILL),), failing=(second,), dying_once=(third,))
        outcomes = fit_all(tmp_path, bad, 4, attempts=3)
        assert [each.status for each in outcomes] == ["failed", "failed", "fitted", "fitted"]
        assert "(attempt 3 of 3)" in outcomes[0].words
        assert "ZeroDivisionError: in the middle" in outcomes[1].words
        attempted = [each["name"] for each in stub.attempts()]
        assert [attempted.count(name) for name in names(4)] == [3, 1, 2, 1]
        rows = pq.read_table(tmp_path / "out" / PARQUET).to_pylist()
        assert [row["status"] for row in rows] == ["failed", "failed", "fitted", "fitted"]
        assert rows[0]["lens.theta_E_median"] is None
        assert rows[3]["lens.theta_E_median"] == outcomes[3].summary["parameters"]["lens.theta_E"]["median"]
        again = fit_all(tmp_path, stub, 4, share=True)
        assert [each.status for each in again] == ["fitted", "fitted", "kept", "kept"]
        assert_complete(tmp_path / "out", names(4))

    def test_lenses_that_share_have_one_actor(self, cluster, stub, tmp_path):
        fit_all(tmp_path, stub, 6, share=True)
        processes = [each["process"] for each in stub.attempts()]
        assert sorted(map(processes.count, set(processes))) == [3, 3]

    def test_one_that_holds_too_much_is_replaced(self, cluster, stub, tmp_path):
        fit_all(tmp_path, stub, 3, share=True, processes=1, memory=0.0)
        assert len({each["process"] for each in stub.attempts()}) == 3

    def test_an_error_that_is_no_lens_s_ends_it_all(self, cluster, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such weights") as raised:
            fit_all(tmp_path, unable, 2)
        assert "in a worker" in raised.value.__notes__[0]


def unable(threads):
    raise FileNotFoundError("no such weights")


unable.__module__ = "__main__"  # pickled whole, for the nodes do not have this file


class TestCluster:
    def test_command(self, cluster, stub, tmp_path, monkeypatch):
        monkeypatch.setattr(many, "fit_many", partial(many.fit_many, start=stub))
        table = write_catalogue(tmp_path / "in", 3)
        options = ["--out", str(tmp_path / "out"), "--source", "sersic", "--engine", "ray", "--no-share"]
        outcome = CliRunner().invoke(app, ["fit-many", str(table), *options])
        assert outcome.exit_code == 0, outcome.output
        assert_complete(tmp_path / "out", names(3))
        assert {each["node"] for each in stub.attempts()} <= {node.node_id for node in cluster.worker_nodes}
        wide = CliRunner().invoke(app, ["fit-many", str(table), *options, "--threads", "1000"])
        assert wide.exit_code == 1
        assert "must not exceed the CPUs of the Ray cluster" in wide.stderr

    def test_without_room_it_ends_after_a_while(self, cluster, monkeypatch):
        monkeypatch.setattr(ray_workers, "PATIENCE", 0.5)
        monkeypatch.setattr(ray_workers, "_LOOK_EVERY", 0.5)
        with pytest.raises(TflensError, match="no node with 1000 CPUs"):
            list(run_on_ray(list, [[1]], cpus=1000))


class TestErrors:
    def test_without_ray(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(ParameterError, match=r"pip install 'tflens\[ray\]'"), connected():
            pass

    def test_without_pyarrow(self, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(ParameterError, match="Parquet need pyarrow"):
            fit_all(tmp_path, StubFit(), 1)

    def test_nobody_at_the_address(self, cluster):
        with pytest.raises(ParameterError, match=r"--address 127\.0\.0\.1:9: .*nobody answers"):
            ray_workers._check_listening("127.0.0.1:9")

    def test_address_of_another_engine(self, tmp_path):
        table = write_catalogue(tmp_path / "in", 1)
        outcome = CliRunner().invoke(app, ["fit-many", str(table), "-o", str(tmp_path / "out"), "--address", "a:1"])
        assert outcome.exit_code == 1
        assert "give --engine ray" in outcome.stderr
