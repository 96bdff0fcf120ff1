"""How many fits grow: lenses a second against workers, and memory against lenses. The fits are stubs that sleep.

python scripts/scale.py                            # all of it; writes docs/results/scale.json
python scripts/scale.py --quick                    # a short form, nothing written
python scripts/scale.py --only memory --engine ray # a part
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from stub_fit import StubFit, write_catalogue  # noqa: E402

from tflens import many  # noqa: E402
from tflens.catalogue import read_catalogue  # noqa: E402
from tflens.measured import keep_records  # noqa: E402
from tflens.output import prepare_folder  # noqa: E402
from tflens.quiet import import_tensorflow_quietly  # noqa: E402
from tflens.run import Job, commit  # noqa: E402

RESULTS = ROOT / "docs/results/scale.json"
WORKERS = (1, 2, 4)
ROWS = (10, 1_000, 100_000)
SLEEP = 1.0  # seconds of a stubbed fit


@dataclass(frozen=True)
class UnreadFit(StubFit):
    """The stub for very many lenses: images are not read either, for that takes ten times what the rest takes."""

    def __call__(self, threads: int | None) -> object:
        many.prepare = lambda config, folder, note: Job(config, None, prepare_folder(folder))
        return super().__call__(threads)


@dataclass
class Watch:
    """What is told of every lens: memory on the way.

    Attributes:
        driver, workers: largest resident memory, MB, in each tenth of the lenses.
    """

    count: int
    driver: list[float] = field(default_factory=lambda: [0.0] * 10)
    workers: list[float] = field(default_factory=lambda: [0.0] * 10)
    done: int = 0

    def __call__(self, outcome: many.Outcome) -> None:
        tenth = 10 * self.done // self.count
        if self.done % max(1, self.count // 200) == 0 or self.done == self.count - 1:
            self.driver[tenth] = max(self.driver[tenth], resident(os.getpid()))
            self.workers[tenth] = max([self.workers[tenth], *map(resident, workers())])
        self.done += 1


def run(engine: str, rows: int, processes: int, sleep: float, read: bool) -> dict:
    """One call of `fit_many`, in this process."""
    import_tensorflow_quietly()
    options = {"processes": processes, "parquet": True, "start": StubFit(sleep)}
    if not read:
        many.LENSES_PER_WORKER, options["start"] = 1_000, UnreadFit(sleep)
        many._likeness = lambda config: ("one", "shape", None)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if engine == "ray":
            os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
            from tflens.ray_workers import connected, run_on_ray

            stack.enter_context(connected(None, processes))
            options["engine"] = run_on_ray
        entries = read_catalogue(write_catalogue(Path(folder) / "in", rows))
        watch, before, began = Watch(rows), resident(os.getpid()), time.monotonic()
        outcomes = many.fit_many(entries, Path(folder) / "out", "sersic", {}, watch, **options)
        took = time.monotonic() - began
        if outcomes.counts != {"fitted": rows}:
            raise SystemExit(f"not all of {rows} stubs are fitted: {dict(outcomes.counts)}")
        # As the workers have it: the driver may be late with the first ones, while it imports.
        times = [(Path(folder) / "out" / entry.name / "config.json").stat().st_mtime for entry in entries]
        # The first outcomes of all workers come at the same time: theirs is the time before.
        rate = (rows - processes) / (max(times) - min(times)) if rows > processes else None
        return {"seconds": took, "rate": rate, "before": before, "driver": watch.driver, "workers": watch.workers}


def apart(engine: str, rows: int, processes: int, sleep: float = 0.0, read: bool = True) -> dict:
    """The same in a process of its own, whose memory has no history."""
    arguments = json.dumps([engine, rows, processes, sleep, read])
    call = [sys.executable, __file__, "--one", arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def throughput(engine: str, lenses_each: int) -> list[dict]:
    """Lenses a second, once every worker is at work."""
    records = []
    for processes in WORKERS:
        found = apart(engine, lenses_each * processes, processes, SLEEP)
        records.append(
            {
                "id": f"scale throughput {engine} {processes}",
                "variant": f"{engine}, fits that sleep {SLEEP:g} s",
                "workers": processes,
                "value": found["rate"],
                "spread": None,
                "n": lenses_each * processes,
                "seconds": found["seconds"],
            }
        )
        print(f"{engine}, {processes} workers: {found['rate']:.2f} lenses/s", flush=True)
    return records


def memory(engine: str, rows: tuple[int, ...]) -> list[dict]:
    """Resident memory of driver and workers."""
    records = []
    for count in rows:
        read = count <= 1_000
        found = apart(engine, count, 2, read=read)
        driver = [value for value in found["driver"] if value]
        records.append(
            {
                "id": f"scale memory {engine} {count}",
                "variant": f"{engine}, 2 workers" + ("" if read else ", images not read"),
                "value": max(driver),
                "spread": [min(driver), max(driver)],
                "n": count,
                "growth": max(driver[1:] or driver) - driver[0],
                "workers": max(found["workers"]),
                "seconds": found["seconds"],
            }
        )
        print(f"{engine}, {count} lenses: {records[-1]}", flush=True)
    return records


def resident(process: int) -> float:
    """MB; 0 of a process that is not there any more."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def workers() -> list[int]:
    """Processes that fit, of this one's."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes()
            parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if words.startswith(b"ray::Performer") or (b"spawn_main" in words and parent == str(os.getpid())):
            found.append(int(process))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("throughput", "memory"))
    parser.add_argument("--engine", choices=("local", "ray"), nargs="*", default=["local", "ray"])
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--quick", action="store_true", help="few lenses, nothing written")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(*json.loads(options.one))))
        return
    rows = (10, 200) if options.quick else tuple(options.rows)
    parts = {
        "throughput": partial(throughput, lenses_each=3 if options.quick else 20),
        "memory": partial(memory, rows=rows),
    }
    for engine in options.engine:
        for name in [options.only] if options.only else parts:
            about = {"seed": None, "command": "python scripts/scale.py", "commit": commit()}
            records = [record | about for record in parts[name](engine)]
            if not options.quick:
                keep_records(RESULTS, records, by=["id"])


if __name__ == "__main__":
    main()
