"""The benchmark's driver: protocol, comparison, statistics and tables, with stub workers."""

import importlib.util
import io
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
PEERS = SCRIPTS / "bench_peers"


@pytest.fixture(scope="module")
def modules():
    """The driver and the modules it shares with its workers, imported from the scripts' folders."""
    names = ("bench", "worker", "workloads", "report")
    path, before = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location("bench", SCRIPTS / "bench.py")
    bench = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = bench
    spec.loader.exec_module(bench)
    yield {name: sys.modules[name] for name in names}
    sys.path[:] = path
    for name in set(names) - before:
        sys.modules.pop(name, None)


@pytest.fixture
def bench(modules):
    return modules["bench"]


@pytest.fixture
def worker(modules):
    return modules["worker"]


@pytest.fixture
def workload(modules):
    workloads = modules["workloads"]
    return workloads.make("EPL", "Sersic", "gaussian", 2, workloads.gaussian_kernel())


def test_workload_comes_back_from_its_file(modules, workload, tmp_path):
    workload.save(tmp_path / "w.npz")
    read = modules["workloads"].Workload.load(tmp_path / "w.npz")
    assert (read.lens, read.source, read.psf, read.supersampling) == ("EPL", "Sersic", "gaussian", 2)
    np.testing.assert_array_equal(read.kernel, workload.kernel)
    np.testing.assert_array_equal(read.data, workload.data)
    assert read.kernel.sum() == pytest.approx(1.0, abs=1e-14)


def test_small_batches_are_the_beginning_of_large_ones(modules, workload):
    np.testing.assert_array_equal(workload.parameters(128)[:16], workload.parameters(16))
    assert workload.parameters(16).shape == (16, 15)
    assert workload.pixels(3) is None
    workloads = modules["workloads"]
    pixelated = workloads.make("SIE", "pixels", "gaussian", 1, workloads.gaussian_kernel())
    assert pixelated.names == tuple(n for n in workloads.MASS if n != "gamma")
    pixels = pixelated.pixels(16)
    assert pixels.shape == (16, 64, 64)
    assert pixels[:, :3].max() == pixels[:, :, -3:].max() == 0  # a dark rim: extrapolation cannot matter
    np.testing.assert_array_equal(pixelated.pixels(128)[:16], pixels)


def stub_worker(worker, calls):
    def make(workload, task, batch):
        if task == "gradient":
            raise worker.Unsupported("no gradients")

        def run(setting):
            calls.append(setting)
            for _ in range(20_000 if setting == "slow" else 1):
                pass
            return np.full((batch, 2, 3), float(workload))

        def broken():
            raise ValueError("no such convolution")

        return {
            "slow": lambda: worker.Job(lambda: run("slow")),
            "fast": lambda: worker.Job(lambda: run("fast")),
            "broken": broken,
        }

    return worker.Worker(make, lambda path: 7.0)


def ask(one, **request):
    answers = io.StringIO()
    one.serve(io.StringIO(json.dumps(request) + "\n"), answers)
    return json.loads(answers.getvalue())


def test_worker_takes_the_fastest_setting_and_says_what_failed(worker, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "TRIAL_SECONDS", 0.002)
    calls = []
    one = stub_worker(worker, calls)
    prepared = ask(one, do="prepare", job="j", workload="w", task="image", batch=4)
    assert prepared["setting"] == "fast"
    assert set(prepared["tried"]) == {"slow", "fast"}
    assert prepared["tried"]["fast"] > prepared["tried"]["slow"]
    assert prepared["failed"] == {"broken": "ValueError: no such convolution"}
    assert ask(one, do="result", job="j", path=str(tmp_path / "r.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "r.npy"), np.full((4, 2, 3), 7.0))
    calls.clear()
    ran = ask(one, do="run", job="j", seconds=0.001)
    assert ran["calls"] >= 1
    assert ran["seconds"] > 0
    assert calls == ["fast"] * (ran["calls"] + 1)  # one call to warm up


def test_worker_answers_with_reasons(worker):
    one = stub_worker(worker, [])
    assert ask(one, do="prepare", job="j", workload="w", task="gradient", batch=1) == {"unsupported": "no gradients"}
    assert "KeyError" in ask(one, do="run", job="never prepared", seconds=0.1)["error"]


def test_a_process_of_its_own_answers_and_its_death_is_told(bench, tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(
        "import json, os, sys\n"
        "print('chatter', file=sys.stderr)\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    if request['do'] == 'die':\n"
        "        sys.exit('out of memory')\n"
        "    print(json.dumps({'cores': sorted(os.sched_getaffinity(0)), 'omp': os.environ['OMP_NUM_THREADS']}))\n"
        "    sys.stdout.flush()\n"
    )
    monkeypatch.setattr(bench, "PEERS", tmp_path)
    core = min(os.sched_getaffinity(0))
    process = bench.Process(sys.executable, "stub", [core])
    try:
        assert process.ask(do="hello") == {"cores": [core], "omp": "1"}
        with pytest.raises(bench.BenchError, match="its process ended: out of memory"):
            process.ask(do="die")
    finally:
        process.close()


class StubProcess:
    """A package that computes a constant image; `speed` in images per second, `error` of its brightest pixel."""

    def __init__(self, speed, error=0.0, unsupported=None):
        self.speed, self.error, self.unsupported = speed, error, unsupported
        self.asked = []

    def ask(self, do, **request):
        self.asked.append(do)
        if do == "prepare":
            if self.unsupported:
                raise sys.modules["bench"].BenchError(self.unsupported)
            self.batch = request["batch"]
            return {"setting": "only", "first_call_seconds": 1.5, "tried": {"only": self.speed}}
        if do == "result":
            np.save(request["path"], np.full((self.batch, 2, 3), 1.0 + self.error))
        if do == "run":
            return {"calls": 10, "seconds": 10 * self.batch / self.speed}
        return {}


@pytest.fixture
def stubbed(bench, tmp_path):
    """A driver whose packages are stubs."""
    one = object.__new__(bench.Bench)
    one._cores, one._folder, one._random = [0], tmp_path, random.Random(0)
    one._processes = {
        "tflens": StubProcess(3000.0),
        "herculens": StubProcess(300.0, error=1e-3),
        "herculens_map": StubProcess(1000.0),
        "jaxtronomy": StubProcess(9000.0, error=0.1),
        "lenstronomy": StubProcess(1.0, unsupported="lenstronomy has no gradients"),
    }
    one.versions = {name: {"numpy": "2"} for name in one._processes}
    one._reference = StubProcess(1.0)
    return one


def test_driver_compares_before_it_times_and_takes_ratios_within_rounds(bench, stubbed):
    case = bench.Case("W1", "gaussian", "image", 16)
    records = stubbed.measure([case], rounds=5, seconds=0.1, memory=False)
    rates = {r["package"]: r for r in records if r["id"] == "rate"}
    assert set(rates) == {"tflens", "herculens", "herculens_map"}
    assert rates["herculens"]["value"] == pytest.approx(300.0)
    assert rates["herculens"]["difference"] == pytest.approx(1e-3)
    assert rates["herculens"]["n"] == 5
    skipped = {r["variant"].split(": ")[1]: r["reason"] for r in records if r["id"] == "skipped"}
    assert skipped == {
        "jaxtronomy": "its image differs by 1.0e-01 from ours, more than 3e-03",
        "lenstronomy": "lenstronomy has no gradients",
    }
    assert "run" not in stubbed._processes["jaxtronomy"].asked
    (ratio,) = (r for r in records if r["id"] == "ratio")
    assert (ratio["peer"], ratio["value"], ratio["reach"]) == ("herculens", pytest.approx(10.0), 3.5)
    (any_way,) = (r for r in records if r["id"] == "ratio_any_way")
    assert (any_way["peer"], any_way["value"], any_way["reach"]) == ("herculens_map", pytest.approx(3.0), None)


def test_hopeless_package_is_spared_larger_batches(bench, stubbed):
    stubbed._processes["gigalens_tf"], stubbed.versions["gigalens_tf"] = StubProcess(50.0), {"numpy": "2"}
    cases = [bench.Case("W1", "gaussian", "image", batch) for batch in (128, 1, 16)]
    records = stubbed.measure(cases, rounds=2, seconds=0.1, memory=False)
    timed = {(r["package"], r["batch"]) for r in records if r["id"] == "rate"}
    assert {("gigalens_tf", 1), ("gigalens_tf", 16), ("herculens", 128)} <= timed
    assert ("gigalens_tf", 128) not in timed
    skipped = {r["variant"]: r["reason"] for r in records if r["id"] == "skipped"}
    reason = "more than ten times slower than herculens_map in a smaller batch"
    assert skipped["W1, gaussian PSF, image, batch 128: gigalens_tf"] == reason


def test_package_that_dies_is_left_out_and_started_again(bench, stubbed, monkeypatch):
    class Dying(StubProcess):
        closed = False

        def ask(self, do, **request):
            if do in ("run", "forget"):
                raise bench.BenchError("its process ended: without a word")
            return super().ask(do, **request)

        def close(self):
            self.closed = True

    dead = stubbed._processes["herculens_map"] = Dying(1000.0)
    fresh = StubProcess(1000.0)
    monkeypatch.setattr(bench, "environment", lambda name: Path("python"))
    monkeypatch.setattr(bench, "Process", lambda python, name, cores: fresh)
    cases = [bench.Case("W1", "gaussian", "image", batch) for batch in (1, 16)]
    records = stubbed.measure(cases, rounds=2, seconds=0.1, memory=False)
    assert {r["package"] for r in records if r["id"] == "rate"} == {"tflens", "herculens"}
    reasons = [r["reason"] for r in records if r["id"] == "skipped" and "herculens_map" in r["variant"]]
    assert len(reasons) == 2
    assert all("timing W1, gaussian PSF, image" in r and "its process ended" in r for r in reasons)
    assert dead.closed
    assert stubbed._processes["herculens_map"] is fresh


def test_tables_show_every_ratio_beside_its_target(bench, modules, stubbed):
    case = bench.Case("W1", "gaussian", "image", 16)
    text = modules["report"].tables(stubbed.measure([case], rounds=3, seconds=0.1, memory=False))
    assert (
        "| W1 | gaussian | image | 16 | 10.00 (10.00-10.00) | 3.5 | herculens | 3.00 (3.00-3.00), herculens_map |"
        in text
    )
    assert "| W1 | gaussian | image | 16 | herculens | 300 (300-300) | 1.5 |  | 1e-03 | only |" in text
    assert "- W1, gaussian PSF, image, batch 16: lenstronomy: lenstronomy has no gradients" in text


def test_ratio_is_taken_round_by_round(bench):
    # The machine was half as fast in the second round, for both.
    peer, ratios = bench.ratio_over_fastest({"tflens": [100, 50, 100], "a": [10, 5, 10], "b": [50, 25, 50]})
    assert (peer, ratios) == ("b", [2, 2, 2])
    assert bench.summary([1.0, 2.0, 3.0]) == {"value": 2.0, "spread": pytest.approx([1.32, 2.68]), "n": 3}


def test_difference_of_images_and_of_gradients(bench):
    reference = np.array([[[1.0, 4.0]], [[2.0, 8.0]]])
    assert bench.largest_difference(reference[:1] + 0.4, reference) == pytest.approx(0.05)
    # Two parameters of very different units: each is compared with its own size.
    gradient = np.array([[1000.0, 1.0], [500.0, 2.0]])
    assert bench.largest_difference(gradient + np.array([0.0, 0.5]), gradient, 2) == pytest.approx(0.25)
    # Pixels share one size: a dark one's own would make much of nothing.
    assert bench.largest_difference(gradient + np.array([0.0, 0.5]), gradient, 0) == pytest.approx(0.0005)
    with pytest.raises(bench.BenchError, match="shape"):
        bench.largest_difference(reference[:, :, :1], reference)
    with pytest.raises(bench.BenchError, match="not finite"):
        bench.largest_difference(np.full_like(reference, np.nan), reference)


def test_hst_kernel_is_cut_out_and_normalised(bench, shared_data):
    kernel = bench.psf_kernel("hst")
    assert kernel.shape == (21, 21)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (10, 10)


def test_hst_kernel_is_skipped_with_a_reason(bench, stubbed, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "ROOT", tmp_path / "project")
    (record,) = stubbed.measure([bench.Case("W1", "hst", "image", 1)], rounds=1, seconds=0.1, memory=False)
    assert record["id"] == "skipped"
    assert record["reason"] == "the HST kernel needs ../shared/data/lenses/SLACSJ0252+0039.fits"


def test_environment_is_made_once_and_again_for_new_requirements(bench, monkeypatch, tmp_path):
    (tmp_path / "requirements-stub.txt").write_text("nothing==1.0\n")
    monkeypatch.setattr(bench, "PEERS", tmp_path)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    steps = []

    class Done:
        returncode, stderr = 0, ""

    def run(step, **_):
        steps.append(step[1:3])
        (tmp_path / ".bench/stub").mkdir(parents=True, exist_ok=True)
        return Done()

    monkeypatch.setattr(bench.subprocess, "run", run)
    for _ in range(2):
        assert bench.environment("stub") == tmp_path / ".bench/stub/bin/python"
    assert steps == [["-m", "venv"], ["-m", "pip"]]
    (tmp_path / "requirements-stub.txt").write_text("nothing==2.0\n")
    bench.environment("stub")
    assert len(steps) == 4
    Done.returncode, Done.stderr = 1, "warning\nERROR: no matching distribution"
    (tmp_path / "requirements-stub.txt").write_text("nothing==3.0\n")
    with pytest.raises(bench.BenchError, match=r"cannot be made.*no matching distribution"):
        bench.environment("stub")


def test_python_312_that_is_missing_is_a_reason(bench, monkeypatch, tmp_path):
    (tmp_path / "requirements-stub.txt").write_text("# Needs Python 3.12.\n")
    monkeypatch.setattr(bench, "PEERS", tmp_path)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.delenv("PYTHON312", raising=False)
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    with pytest.raises(bench.BenchError, match=r"Python 3\.12"):
        bench.environment("stub")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_what_a_call_takes(worker):
    def run():
        return np.ones(4 * 2**20 // 8 * 8).sum()  # 32 MB for a moment

    run()
    assert worker.peak_memory_mb(run) == pytest.approx(32, abs=2)


def test_every_target_belongs_to_a_workload(bench):
    for workload, psf, task in bench.REACH:
        assert workload in bench.WORKLOADS
        assert psf in ("gaussian", "hst")
        assert task in ("image", "gradient")
    for package in bench.PACKAGES:
        assert (PEERS / f"with_{package}.py").exists()
    for package in bench.PACKAGES.values():
        assert package.environment is None or (PEERS / f"requirements-{package.environment}.txt").exists()
