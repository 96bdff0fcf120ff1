"""Kills jobs at random moments, again and again, and compares what comes out with what comes out undisturbed.

python scripts/soak.py                     # 54 kills, disks that are full or read-only; writes docs/results/soak.json
python scripts/soak.py --kills 2           # of each job, nothing written
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from soak_jobs import JOBS, JobKind, make_inputs  # noqa: E402

from tflens.measured import keep_records  # noqa: E402
from tflens.quiet import import_tensorflow_quietly  # noqa: E402
from tflens.run import commit  # noqa: E402

RESULTS = ROOT / "docs/results/soak.json"
KILLS = {"data simulate": 14, "train": 12, "fit": 12, "fit-many": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="of each job; nothing is written then")
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-disks", action="store_true", help="kills alone")
    options = parser.parse_args()
    import_tensorflow_quietly()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder) / "inputs")
        for name in options.jobs:
            records.append(soak(name, options.kills or KILLS[name], options.seed, Path(folder) / name, inputs))
            print(f"{name}: {records[-1]['n']} kills, {records[-1]['value']} differences", flush=True)
        # The last: what TensorFlow starts here would not be there in the copies of this process.
        records += [] if options.no_disks else disks(Path(folder), inputs, options.jobs)
    if options.kills is None:
        about = {"command": f"python scripts/soak.py --seed {options.seed}", "commit": commit()}
        keep_records(RESULTS, [record | about for record in records], by=["id"])
    sys.exit(any(record["value"] for record in records))


def soak(name: str, kills: int, seed: int, folder: Path, inputs: Path) -> dict:
    """Kills a job so many times, at moments of its working time, and lets it end; the record of it.

    A job that ends before its next kill is begun anew, in a folder of its own, and its result is compared as well.
    """
    job, draw, times, differences, ended = JOBS[name], random.Random(f"{name} {seed}"), [], [], 0
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    _join(_begin(job, folder / "undisturbed", inputs))
    duration = time.monotonic() - began
    wanted = job.content(folder / "undisturbed")
    place = folder / "killed-0"
    while len(times) < kills:
        child, began = _begin(job, place, inputs), time.monotonic()
        moment = draw.uniform(0, duration)
        if _ended_within(child, moment):
            ended += 1
            differences += differing(wanted, job.content(place))
            place = folder / f"killed-{ended}"
            continue
        # Half of the kills leave it to the workers of the job to find out.
        (os.killpg if draw.random() < 0.5 else os.kill)(child, signal.SIGKILL)
        os.waitpid(child, 0)
        times.append(time.monotonic() - began)
        try:
            job.check(place)
        except AssertionError as error:
            differences.append(f"after kill {len(times)}: {error}")
    _wait_for_group(child)
    _join(_begin(job, place, inputs))
    differences += differing(wanted, job.content(place))
    for difference in differences:
        print(f"{name}: {difference}", file=sys.stderr)
    return {
        "id": f"kill {name}",
        "variant": f"{name}, killed at random moments of its {duration:.1f} s, and given again",
        "value": len(differences),
        "spread": [min(times), max(times)],
        "n": kills,
        "runs": ended + 1,
        "seed": seed,
    }


def disks(folder: Path, inputs: Path, jobs: list[str]) -> list[dict]:
    """Records of disks that fill up, and of those that are read-only."""
    from soak_disks import SIZES, NoDiskError, fill, refuse

    found = []
    for name in (name for name in jobs if name in SIZES):
        wanted = JOBS[name].content(folder / name / "undisturbed")
        try:
            full = fill(name, folder / f"{name} disk", inputs, wanted)
            barred = refuse(name, folder / f"{name} barred", inputs)
        except NoDiskError as error:
            print(f"no small disk can be made here: {error}", file=sys.stderr)
            return []
        for what, differences in (("full", full), ("read-only", barred)):
            print(f"{name}, {what} disk: {differences or 'as it should be'}", flush=True)
            variant = f"{name}, {what} disk" + (
                ", then room, and given again" if what == "full" else ": refused at once"
            )
            record = {"id": f"disk {what} {name}", "variant": variant, "value": len(differences), "spread": None}
            found.append(record | {"n": 1, "seed": None})
    return found


def differing(wanted: dict, found: dict) -> list[str]:
    """What was lost, is too much, or differs, in words."""
    lost = [f"{name} is lost" for name in wanted if name not in found]
    more = [f"{name} is too much" for name in found if name not in wanted]
    return lost + more + [f"{name} differs" for name in wanted if name in found and found[name] != wanted[name]]


def _begin(job: JobKind, folder: Path, inputs: Path) -> int:
    """The process of a job, a copy of this one: what takes long to import is there, and no time for kills."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        job.work(folder, inputs)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _join(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"a job failed that nobody had killed (status {status})")


def _ended_within(child: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"a job failed that was given again after a kill (status {status})")
            return True
        time.sleep(0.005)
    return False


def _wait_for_group(group: int, seconds: float = 30) -> None:
    """Until the workers of a killed job have ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise SystemExit("workers of a job that was killed have not ended")


if __name__ == "__main__":
    main()
