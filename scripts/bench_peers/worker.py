"""One package of the benchmark in a process of its own: `python worker.py PACKAGE`.

It reads requests from stdin and answers on stdout, one JSON object a line, and computes only when it is asked to:

    {"do": "hello"}                                         versions
    {"do": "prepare", "job", "workload", "task", "batch"}   compiles: the fastest setting, seconds of its first call
    {"do": "result", "job", "path"}                         writes the job's result for the comparison
    {"do": "run", "job", "seconds"}                         calls, for about so long, and the seconds they took
    {"do": "memory", "workload", "task", "batch", "setting"}   peak memory of a call, in a process that did nothing else
    {"do": "forget"}                                        drops all jobs

`task` is "image" (`[batch, ny, nx]`) or "gradient" (of the log likelihood, `[batch, parameters, then pixels]`).
"""

import ctypes
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

TRIAL_SECONDS = 0.15
# Makes glibc return memory to the system at once, and TensorFlow use glibc's; for measuring memory only: it costs time.
MEMORY_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "16384",
    "MALLOC_TRIM_THRESHOLD_": "16384",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


class Unsupported(Exception):
    """The package cannot do a task; the message says why."""


@dataclass(frozen=True)
class Job:
    """A compiled computation.

    Attributes:
        run: computes once and returns when the result is there.
        read: the result as NumPy array: images `[batch, ny, nx]`, or gradients `[batch, n]`.
    """

    run: Callable[[], Any]
    read: Callable[[Any], np.ndarray] = np.asarray


# A package offers its settings by name; the fastest is taken for each job.
Settings = dict[str, Callable[[], Job]]


class Worker:
    """Answers requests with the jobs that `make(workload, task, batch)` offers."""

    def __init__(self, make: Callable[[Any, str, int], Settings], load: Callable[[Path], Any]) -> None:
        self._make, self._load = make, load
        self._jobs: dict[str, Job] = {}
        self._seconds: dict[str, float] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks for; whatever goes wrong is part of the answer."""
        try:
            arguments = {key: value for key, value in request.items() if key != "do"}
            return getattr(self, f"_{request['do']}")(**arguments)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()}

    def serve(self, requests: TextIO, answers: TextIO) -> None:
        """Answers line by line until there are no more requests."""
        for line in requests:
            print(json.dumps(self.answer(json.loads(line))), file=answers, flush=True)

    def _hello(self) -> dict[str, Any]:
        return {"versions": versions(), "threads": len(os.sched_getaffinity(0))}

    def _prepare(self, job: str, workload: str, task: str, batch: int) -> dict[str, Any]:
        candidates: dict[str, Job] = {}
        first: dict[str, float] = {}
        failures: dict[str, str] = {}
        for setting, maker in self._make(self._load(Path(workload)), task, batch).items():
            try:
                start = time.perf_counter()
                candidate = maker()
                candidate.run()
                first[setting] = time.perf_counter() - start
                candidates[setting] = candidate
            except Exception as error:
                failures[setting] = f"{type(error).__name__}: {error}"[:200]
        if not candidates:
            raise RuntimeError(f"no setting works: {failures}")
        # In turns, and the best turn of each: what else runs on the machine can only add time.
        turns = [{n: seconds_a_call(c.run, TRIAL_SECONDS / 3) for n, c in candidates.items()} for _ in range(3)]
        seconds = {name: min(turn[name] for turn in turns) for name in candidates}
        setting = min(seconds, key=seconds.__getitem__)
        self._seconds[job], self._jobs[job] = seconds[setting], candidates[setting]
        rates = {name: batch / value for name, value in seconds.items()}
        return {"setting": setting, "first_call_seconds": first[setting], "tried": rates, "failed": failures}

    def _result(self, job: str, path: str) -> dict[str, Any]:
        one = self._jobs[job]
        np.save(path, np.asarray(one.read(one.run()), np.float64))
        return {"path": path}

    def _run(self, job: str, seconds: float) -> dict[str, Any]:
        run = self._jobs[job].run
        run()  # the caches are another worker's
        count = max(1, round(seconds / self._seconds[job]))
        start = time.perf_counter()
        for _ in range(count):
            run()
        taken = time.perf_counter() - start
        return {"calls": count, "seconds": taken}

    def _memory(self, workload: str, task: str, batch: int, setting: str) -> dict[str, Any]:
        run = self._make(self._load(Path(workload)), task, batch)[setting]().run
        run()
        return {"memory_mb": peak_memory_mb(run)}

    def _forget(self) -> dict[str, Any]:
        self._jobs.clear()
        gc.collect()
        return {}


def seconds_a_call(run: Callable[[], Any], seconds: float) -> float:
    """The median time of a call, from as many as fit into `seconds` (three at least)."""
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
        if taken[-1] > 10 * seconds:
            break
    return float(np.median(taken))


def peak_memory_mb(run: Callable[[], Any]) -> float | None:
    """By how much one call raises the process's memory at its peak, MB; None where the system does not tell.

    The process must have been started with `MEMORY_ENVIRONMENT`: otherwise glibc keeps what earlier calls freed.
    """
    try:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier calls left in the heap would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
        before = _status_mb("VmRSS")
        run()
        return _status_mb("VmHWM") - before
    except (OSError, AttributeError):
        return None


def versions() -> dict[str, str]:
    """Versions of what can matter to the speed."""
    import importlib.metadata as metadata

    names = (
        *("tflens", "herculens", "jaxtronomy", "caustics", "gigalens", "lenstronomy"),
        *("jax", "jaxlib", "torch", "tensorflow", "numba", "numpy"),
    )
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": sys.version.split()[0]}


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return float(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    # The answers keep the real stdout; whatever a package prints goes to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from workloads import Workload

    package = importlib.import_module(f"with_{sys.argv[1].replace('-', '_')}")
    Worker(package.settings, Workload.load).serve(sys.stdin, answers)


if __name__ == "__main__":
    # As `worker`, so that what the packages raise is what is caught here.
    sys.modules["worker"] = sys.modules["__main__"]
    main()
