"""Time model images and likelihood gradients side by side with the other lensing packages.

Every package works in a process of its own, from an environment of its own (`.bench/`, made here from
`scripts/bench_peers/requirements-*.txt`). All stay alive; only one computes at a time. First each shows that its
result equals ours within its own accuracy, then all take turns in every round, in a shuffled order, so that a busy
machine slows all of them alike. What counts is the ratio within a round, not the time.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "bench_peers"
sys.path.insert(0, str(PEERS))

import workloads  # noqa: E402
from report import tables  # noqa: E402
from worker import MEMORY_ENVIRONMENT  # noqa: E402

CHECKED = 16  # lenses whose results are compared
MEMORY_BATCH = 16  # lenses whose gradient is asked what memory it takes
FAIR_BATCH = 16  # lenses from which on a package's speed tells how it does with more
OURS = "tflens"


@dataclass(frozen=True)
class Package:
    """A package of the benchmark.

    Attributes:
        environment: its folder in `.bench` and the name of its requirements; None for the project's own.
        accuracy: largest difference of its images from ours that is its own error, relative to the brightest pixel.
        reason: where that error comes from.
        supersampled: the same where pixels are supersampled, if it does that in another way than we.
        documented: whether its documentation shows this way of use; only such count as the fastest peer.
    """

    environment: str | None
    accuracy: float
    reason: str
    supersampled: float | None = None
    documented: bool = True


_B_N = "softening of the source's cusp, b_n = 1.9992 n - 0.3271"
_CAUSTICS = "softening of the source's cusp, light from outside the frame"
PACKAGES = {
    OURS: Package(None, 1e-4, "float32"),
    "herculens": Package("herculens", 3e-3, _B_N),
    "herculens_map": Package("herculens", 3e-3, _B_N, documented=False),
    "jaxtronomy": Package("jaxtronomy", 3e-3, _B_N),
    # Gauss-Legendre points, and a kernel interpolated to the finer grid: as far from ours as ours from the truth.
    "caustics_jax": Package("caustics", 3e-3, _CAUSTICS, supersampled=6e-2),
    "caustics_torch": Package("caustics", 3e-3, _CAUSTICS, supersampled=6e-2),
    "gigalens_jax": Package("gigalens", 3e-3, _B_N, supersampled=3e-2),
    "gigalens_tf": Package("gigalens", 3e-3, _B_N, supersampled=3e-2),
    "lenstronomy": Package("lenstronomy", 3e-3, _B_N),
}
WORKLOADS = {
    "W1": {"lens": "EPL", "source": "Sersic", "supersampling": 1},
    "W1-x2": {"lens": "EPL", "source": "Sersic", "supersampling": 2},
    "W1-SIE": {"lens": "SIE", "source": "Sersic", "supersampling": 1},
    "W2": {"lens": "SIE", "source": "pixels", "supersampling": 1},
}
# What the ratio over the fastest peer is to reach: (workload, PSF, task) -> by batch.
REACH = {
    ("W1", "gaussian", "gradient"): {1: 3.5, 16: 10.0, 128: 12.0},
    ("W1", "hst", "gradient"): {1: 2.5, 16: 7.0, 128: 7.0},
    ("W1-x2", "gaussian", "gradient"): {16: 12.0},
    ("W1-x2", "hst", "gradient"): {16: 7.0},
    ("W1-SIE", "gaussian", "gradient"): {1: 1.7, 16: 2.0, 128: 3.5},
    ("W2", "gaussian", "gradient"): {1: 2.0, 16: 3.5},
    ("W1", "gaussian", "image"): {16: 3.5, 128: 6.0},
    ("W1-SIE", "gaussian", "image"): {1: 1.0},
    ("W2", "gaussian", "image"): {1: 1.0},
}


@dataclass(frozen=True)
class Case:
    """One thing to compute: a workload with a PSF, a task, a batch."""

    workload: str
    psf: str
    task: str
    batch: int

    @property
    def label(self) -> str:
        """As it stands in the tables."""
        return f"{self.workload}, {self.psf} PSF, {self.task}, batch {self.batch}"


@dataclass
class Timing:
    """What was measured of one package on one case."""

    setting: str
    first_call_seconds: float
    tried: dict[str, float]
    difference: float
    rates: list[float] = field(default_factory=list)
    memory_mb: float | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everyone = ",".join(name for name in PACKAGES if name != OURS)
    parser.add_argument("--peers", default=everyone, help="default: %(default)s; '' for none")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="default: %(default)s")
    parser.add_argument("--psfs", default="gaussian,hst", help="default: %(default)s")
    parser.add_argument("--tasks", default="image,gradient", help="default: %(default)s")
    parser.add_argument("--batches", default="1,16,128", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every package (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="processor cores for each (default: all that this process has)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.1 s: to see whether it works")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/bench.json", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 3, 0.1
    names = _chosen(parser, "--peers", arguments.peers, PACKAGES)
    chosen = _chosen(parser, "--workloads", arguments.workloads, WORKLOADS)
    psfs = _chosen(parser, "--psfs", arguments.psfs, ("gaussian", "hst"))
    tasks = _chosen(parser, "--tasks", arguments.tasks, ("image", "gradient"))
    batches = sorted(int(batch) for batch in arguments.batches.split(","))
    if not 1 <= batches[0] <= batches[-1] <= workloads.LARGEST_BATCH:
        parser.error(f"--batches must lie between 1 and {workloads.LARGEST_BATCH}, got {arguments.batches}")

    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench([OURS, *(name for name in names if name != OURS)], cores, Path(folder), arguments.seed)
        try:
            for name, reason in bench.missing.items():
                records.append(_skipped(name, reason))
            for workload in chosen:
                for psf in psfs:
                    cases = [Case(workload, psf, task, batch) for task in tasks for batch in batches]
                    records += bench.measure(cases, arguments.rounds, arguments.seconds, not arguments.no_memory)
                    _write(arguments.out, _completed(records, arguments, len(cores)))
        finally:
            bench.close()
    records = _completed(records, arguments, len(cores))
    print(tables(records))
    print(f"-> {arguments.out}")


class Bench:
    """The packages' processes and what is measured with them."""

    def __init__(self, names: list[str], cores: list[int], folder: Path, seed: int) -> None:
        self._cores, self._folder = cores, folder
        self._random = random.Random(seed)
        self._processes: dict[str, Process] = {}
        self.missing: dict[str, str] = {}
        self.versions: dict[str, dict[str, str]] = {}
        for name in names:
            try:
                python = environment(PACKAGES[name].environment)
                self._processes[name] = Process(python, name, cores)
                self.versions[name] = self._processes[name].ask(do="hello")["versions"]
            except (BenchError, KeyError) as error:
                self._processes.pop(name, None)
                self.missing[name] = str(error)
                _note(f"without {name}: {error}")
        if OURS in self.missing:
            raise SystemExit(f"{OURS} itself does not run: {self.missing[OURS]}")
        self._reference = Process(sys.executable, f"{OURS}_reference", cores)

    def measure(self, cases: list[Case], rounds: int, seconds: float, memory: bool) -> list[dict[str, Any]]:
        """Records of cases that share workload and PSF."""
        first = cases[0]
        try:
            kernel = psf_kernel(first.psf)
        except BenchError as error:
            return [
                {"id": "skipped", "variant": f"{first.workload}, {first.psf} PSF", "value": None, "reason": str(error)}
            ]
        path = self._folder / "workload.npz"
        workloads.make(psf=first.psf, kernel=kernel, **WORKLOADS[first.workload]).save(path)
        timings: dict[tuple[Case, str], Timing] = {}
        skipped: dict[tuple[Case, str], str] = {}
        outpaced: dict[tuple[str, str], str] = {}  # by task and package
        for case in sorted(cases, key=lambda case: case.batch):
            for name in self._processes:
                try:
                    if reason := outpaced.get((case.task, name)):
                        raise BenchError(reason)
                    timings[case, name] = self._prepare(case, name, path)
                except BenchError as error:
                    skipped[case, name] = str(error)
                    _note(f"{case.label}: without {name}: {error}")
            if case.batch < FAIR_BATCH:
                continue
            slow = _outpaced({name: t.tried[t.setting] for (at, name), t in timings.items() if at == case})
            outpaced |= {(case.task, name): reason for name, reason in slow.items()}
        for turn in range(rounds):
            _note(f"{first.workload}, {first.psf} PSF: round {turn + 1} of {rounds}")
            for case in self._random.sample(cases, len(cases)):
                runners = [name for name in self._processes if (case, name) in timings]
                for name in self._random.sample(runners, len(runners)):
                    try:
                        answer = self._processes[name].ask(do="run", job=case.label, seconds=seconds)
                        timings[case, name].rates.append(case.batch * answer["calls"] / answer["seconds"])
                    except BenchError as error:
                        # A process that ended (out of memory, say) has lost all that was prepared.
                        for lost in [at for at, who in timings if who == name]:
                            del timings[lost, name]
                            skipped[lost, name] = f"timing {case.label}: {error}"
                        _note(f"{case.label}: without {name}: {error}")
        for name, process in self._processes.items():
            try:
                process.ask(do="forget")
            except BenchError:
                process.close()
                self._processes[name] = Process(environment(PACKAGES[name].environment), name, self._cores)
        if memory:
            self._measure_memory(timings, path)
        return self._records(cases, timings, skipped)

    def close(self) -> None:
        """Ends the processes."""
        for process in (*self._processes.values(), self._reference):
            process.close()

    def _prepare(self, case: Case, name: str, path: Path) -> Timing:
        process = self._processes[name]
        answer = process.ask(do="prepare", job=case.label, workload=str(path), task=case.task, batch=case.batch)
        difference = self._difference(case, name, path)
        package = PACKAGES[name]
        allowed = package.accuracy
        if WORKLOADS[case.workload]["supersampling"] > 1 and package.supersampled:
            allowed = package.supersampled
        # A gradient magnifies the image's error; that it is the gradient of the same thing is what has to be shown.
        allowed *= 1 if case.task == "image" else 10
        if not difference <= allowed:
            raise BenchError(f"its {case.task} differs by {difference:.1e} from ours, more than {allowed:.0e}")
        _note(f"{case.label}: {name} ({answer['setting']}), {difference:.1e} from the reference")
        return Timing(answer["setting"], answer["first_call_seconds"], answer["tried"], difference)

    def _difference(self, case: Case, name: str, path: Path) -> float:
        """Largest difference from the reference, relative to the largest value (of each parameter's gradient)."""
        in_u = name == OURS and case.task == "gradient" and WORKLOADS[case.workload]["source"] == "Sersic"
        task = "log_prob" if in_u else case.task
        reference = self._folder / f"{case.workload}-{case.psf}-{task}.npy"
        if not reference.exists():
            batch = {"job": "reference", "workload": str(path), "task": task, "batch": CHECKED}
            self._reference.ask(do="prepare", **batch)
            self._reference.ask(do="result", job="reference", path=str(reference))
            self._reference.ask(do="forget")
        result = self._folder / "result.npy"
        self._processes[name].ask(do="result", job=case.label, path=str(result))
        parameters = len(workloads.Workload.load(path).names) if case.task == "gradient" else None
        return largest_difference(np.load(result), np.load(reference), parameters)

    def _measure_memory(self, timings: dict[tuple[Case, str], Timing], path: Path) -> None:
        """Peak memory of the gradients, each in a process that does nothing else."""
        for (case, name), timing in timings.items():
            if case.task != "gradient" or case.batch != MEMORY_BATCH:
                continue
            _note(f"{case.label}: memory of {name}")
            process = Process(environment(PACKAGES[name].environment), name, self._cores, MEMORY_ENVIRONMENT)
            try:
                request = {"workload": str(path), "task": case.task, "batch": case.batch, "setting": timing.setting}
                timing.memory_mb = process.ask(do="memory", **request)["memory_mb"]
            except BenchError as error:
                _note(f"{case.label}: no memory of {name}: {error}")
            finally:
                process.close()

    def _records(
        self,
        cases: list[Case],
        timings: dict[tuple[Case, str], Timing],
        skipped: dict[tuple[Case, str], str],
    ) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for case in cases:
            found = {name: timings[case, name] for name in self._processes if (case, name) in timings}
            common = {"workload": case.workload, "psf": case.psf, "task": case.task, "batch": case.batch}
            records += [
                {
                    "id": "rate",
                    "variant": f"{case.label}: {name}",
                    **summary(timing.rates),
                    "unit": "evaluations/s",
                    "package": name,
                    **common,
                    "setting": timing.setting,
                    "tried": timing.tried,
                    "first_call_seconds": timing.first_call_seconds,
                    "memory_mb_per_image": None if timing.memory_mb is None else timing.memory_mb / case.batch,
                    "difference": timing.difference,
                    "accuracy_limit": PACKAGES[name].reason,
                    "versions": self.versions[name],
                }
                for name, timing in found.items()
            ]
            records += [
                {
                    "id": "skipped",
                    "variant": f"{case.label}: {name}",
                    "value": None,
                    "reason": skipped[case, name],
                    **common,
                }
                for name in self._processes
                if (case, name) in skipped
            ]
            if OURS not in found:
                continue
            rates = {name: timing.rates for name, timing in found.items()}
            documented = {name: r for name, r in rates.items() if PACKAGES[name].documented}
            reach = REACH.get((case.workload, case.psf, case.task), {}).get(case.batch)
            for id, field_ in (("ratio", documented), ("ratio_any_way", rates)):
                if len(field_) > 1:
                    peer, ratios = ratio_over_fastest(field_)
                    target = reach if id == "ratio" else None
                    records.append(
                        {"id": id, "variant": case.label, **summary(ratios), "peer": peer, **common} | {"reach": target}
                    )
        return records


class BenchError(Exception):
    """Why a package takes no part in something."""


class Process:
    """A worker process that answers one request at a time."""

    def __init__(
        self, python: str | Path, name: str, cores: Iterable[int], environment: dict[str, str] | None = None
    ) -> None:
        cores = list(cores)
        threads = {f"{library}_NUM_THREADS": str(len(cores)) for library in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [str(python), str(PEERS / "worker.py"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | threads | (environment or {}),
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer.

        Raises:
            BenchError: the worker ended, cannot do it, or failed.
        """
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()
            raise BenchError(f"its process ended: {said[-1] if said else 'without a word'}")
        answer = json.loads(line)
        if reason := answer.get("unsupported") or answer.get("error"):
            raise BenchError(reason)
        return answer

    def close(self) -> None:
        """Ends the worker."""
        with suppress(BrokenPipeError):  # it ended by itself
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def environment(name: str | None) -> Path:
    """The Python of a package's environment, made now if it is not there or its requirements have changed.

    Raises:
        BenchError: it cannot be made.
    """
    if name is None:
        return Path(sys.executable)
    requirements = PEERS / f"requirements-{name}.txt"
    text = requirements.read_text()
    folder = ROOT / ".bench" / name
    ready, digest = folder / ".ready", hashlib.sha256(text.encode()).hexdigest()
    python = folder / "bin" / "python"
    if ready.exists() and ready.read_text() == digest:
        return python
    base = sys.executable
    if "Needs Python 3.12" in text:
        base = os.environ.get("PYTHON312") or shutil.which("python3.12")
        if base is None:
            raise BenchError("it needs Python 3.12: install it, or set PYTHON312 to its path")
    _note(f"making the environment {folder.relative_to(ROOT)}")
    steps = [
        [base, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise BenchError(f"its environment cannot be made ({' '.join(step[1:4])} ...): {said[-1]}")
    ready.write_text(digest)
    return python


def psf_kernel(name: str) -> np.ndarray:
    """The PSF `[21, 21]` of unit sum: Gaussian, or that of an HST image of the shared data.

    Raises:
        BenchError: the HST image is not there.
    """
    if name == "gaussian":
        return workloads.gaussian_kernel()
    from astropy.io import fits

    path = ROOT.parent / "shared/data/lenses/SLACSJ0252+0039.fits"
    if not path.exists():
        raise BenchError(f"the HST kernel needs ../{path.relative_to(ROOT.parent)}")
    with fits.open(path) as hdus:
        kernel = np.asarray(hdus["PSF"].data, np.float64)
    y, x = np.unravel_index(kernel.argmax(), kernel.shape)
    half = workloads.PSF_PIXELS // 2
    if min(y, x, kernel.shape[0] - 1 - y, kernel.shape[1] - 1 - x) < half:
        raise BenchError(f"the PSF of {path.name} is smaller than {workloads.PSF_PIXELS} pixels")
    kernel = kernel[y - half : y + half + 1, x - half : x + half + 1]
    return kernel / kernel.sum()


def largest_difference(result: np.ndarray, reference: np.ndarray, parameters: int | None = None) -> float:
    """Largest absolute difference over the rows that both have, relative to the reference's largest absolute value.

    Of gradients `[batch, n]`, whose units differ, the first `parameters` columns each against their own largest value;
    the pixels of a source, which come after them, against the largest of them all.
    """
    rows = min(len(result), len(reference))
    if result.shape[1:] != reference.shape[1:]:
        raise BenchError(f"its result has shape {result.shape[1:]}, ours {reference.shape[1:]}")
    error, size = np.abs(result[:rows] - reference[:rows]), np.abs(reference)
    if not np.isfinite(error).all():
        raise BenchError("its result is not finite")
    if parameters is None:
        return float(error.max() / size.max())
    scale = size.max(0)
    scale[parameters:] = scale[parameters:].max(initial=0)
    return float((error.max(0) / np.where(scale > 0, scale, 1)).max())


def summary(values: list[float]) -> dict[str, Any]:
    """Median, 16th and 84th percentile, and number."""
    low, median, high = np.quantile(values, [0.16, 0.5, 0.84])
    return {"value": float(median), "spread": [float(low), float(high)], "n": len(values)}


def ratio_over_fastest(rates: dict[str, list[float]]) -> tuple[str, list[float]]:
    """The peer with the highest median rate, and our rate over its, round by round."""
    peer = max((name for name in rates if name != OURS), key=lambda name: float(np.median(rates[name])))
    return peer, [ours / theirs for ours, theirs in zip(rates[OURS], rates[peer], strict=True)]


def _skipped(variant: str, reason: str) -> dict[str, Any]:
    return {"id": "skipped", "variant": variant, "value": None, "reason": reason}


def _outpaced(rates: dict[str, float]) -> dict[str, str]:
    """Peers of less than a tenth of the fastest peer's speed, with a reason not to wait for them in larger batches."""
    peers = {name: rate for name, rate in rates.items() if name != OURS}
    if not peers:
        return {}
    fastest = max(peers, key=peers.__getitem__)
    reason = f"more than ten times slower than {fastest} in a smaller batch"
    return {name: reason for name, rate in peers.items() if rate < peers[fastest] / 10}


def _completed(records: list[dict[str, Any]], arguments: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    from tflens.run import commit

    common = {"null": None, "n": None, "spread": None, "reach": None, "beat": None, "seed": arguments.seed}
    common |= {"command": "make bench", "commit": commit(), "threads": threads, "load": os.getloadavg()[1]}
    return [common | record for record in records]


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    from tflens.files import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(json.dumps(records, indent=1) + "\n"))


def _chosen(parser: argparse.ArgumentParser, option: str, text: str, known: Iterable[str]) -> list[str]:
    words = [word for word in text.split(",") if word]
    if unknown := set(words) - set(known):
        parser.error(f"{option}: unknown {sorted(unknown)}; known are {sorted(known)}")
    return words


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
