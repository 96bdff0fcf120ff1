"""Disks that fill up, or cannot be written to, in the middle of the jobs of `scripts/soak_jobs.py`."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soak_jobs import JOBS

from tflens.errors import StorageError

SIZES = {"data simulate": 60, "train": 28, "fit-many": 120}  # kB, of which each job needs more


class NoDiskError(Exception):
    """One must be root to make a small disk."""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk in memory at a folder, of so many kB.

    Raises:
        NoDiskError: it may not be made here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        for _ in range(50):  # a worker may be ending
            if subprocess.run(["umount", str(folder)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)


def changed(disk: Path, options: str) -> None:
    """Gives the disk another size, or makes it read-only."""
    _call("mount", "-o", f"remount,{options}", str(disk))


def fill(name: str, folder: Path, inputs: Path, wanted: dict) -> list[str]:
    """Lets a job fill its disk, then gives it room, and has it go on; differences to what is wanted, in words."""
    from soak import differing

    job, found = JOBS[name], []
    with small_disk(folder, SIZES[name]) as disk:
        place = disk / "out"
        try:
            job.work(place, inputs)
            found.append("the disk was large enough")
        except StorageError as error:
            if "cannot be written" not in str(error):
                found.append(f"the error does not say what it is: {error}")
        job.check(place)
        changed(disk, "size=100m")
        job.work(place, inputs)
        return found + differing(wanted, job.content(place))


def refuse(name: str, folder: Path, inputs: Path) -> list[str]:
    """Gives a job a disk that cannot be written to; what is wrong with its answer."""
    with small_disk(folder, 1000) as disk:
        (disk / "out").mkdir()
        changed(disk, "ro")
        try:
            JOBS[name].work(disk / "out", inputs)
        except StorageError as error:
            return [] if "must be writable" in str(error) else [f"the error does not say what it is: {error}"]
        return ["nothing was said"]


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDiskError(done.stderr.strip())
