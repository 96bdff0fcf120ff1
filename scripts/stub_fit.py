"""A stand-in for the fit of a lens: files as a fit writes them, the same for a name wherever and whenever it is made.

For what is about many fits and not about fitting: `scripts/scale.py`, `scripts/soak.py` and their tests.
"""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tflens.files import write_atomically
from tflens.observation import Observation
from tflens.run import Job

PARAMETERS = ("lens.theta_E", "lens.gamma", "lens.e1", "lens.e2", "source.R_sersic")


@dataclass(frozen=True)
class StubFit:
    """Writes files instead of fitting, and logs every attempt if it is to.

    Args:
        seconds: how long a fit takes, in sleep: half of it between two files.
        log: gets a line for every attempt: name, process, Ray's node, whether the lens was to share, threads.
        dying: pairs of a lens and the signal that its processes die of.
        dying_once: names of lenses whose processes are killed at the first attempt.
        failing: names of lenses that raise an error.
    """

    seconds: float = 0.0
    log: Path | None = None
    dying: tuple[tuple[str, int], ...] = ()
    dying_once: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()

    def __call__(self, threads: int | None) -> Callable[[Job], None]:
        return partial(self.fit, threads=threads)

    def attempts(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def fit(self, job: Job, threads: int | None = None) -> None:
        name = job.folder.name.removeprefix(".").rsplit(".", 2)[0]
        first = self._is_first(name, job, threads)
        self.begin(name, job)
        if name in dict(self.dying):
            os.kill(os.getpid(), dict(self.dying)[name])
        if name in self.dying_once and first:
            os.kill(os.getpid(), signal.SIGKILL)
        if name in self.failing:
            raise ZeroDivisionError("in the middle")
        self.write(name, job)

    def begin(self, name: str, job: Job) -> None:
        """What a fit does before it can die."""

    def write(self, name: str, job: Job) -> None:
        """What a fit that has lived writes."""
        for file, content in {"posterior.nc": posterior(name), "summary.json": summary(name)}.items():
            write_atomically(job.folder / file, lambda path, content=content: path.write_bytes(content))
            time.sleep(self.seconds / 2)
        config = json.dumps(job.config.as_dict())
        write_atomically(job.folder / "config.json", lambda path: path.write_text(config))

    def _is_first(self, name: str, job: Job, threads: int | None) -> bool:
        """Whether this is the first attempt, as far as the log knows; it is logged."""
        if self.log is None:
            return True
        earlier = [each["name"] for each in self.attempts()]
        attempt = {"name": name, "process": os.getpid(), "node": _node()}
        with self.log.open("a") as log:
            log.write(json.dumps(attempt | {"shared": job.config.shared, "threads": threads}) + "\n")
        return name not in earlier


def posterior(name: str) -> bytes:
    """Content of the file of a lens: of that lens alone, so that a wrong or a mixed one shows."""
    return b"".join(hashlib.sha256(f"{name} {i}".encode()).digest() for i in range(64))


def summary(name: str) -> bytes:
    middle = hashlib.sha256(name.encode()).digest()[0] / 256
    rows = {parameter: {"median": middle, "low": middle - 0.1, "high": middle + 0.1} for parameter in PARAMETERS}
    content = {"name": name, "parameters": rows, "check": [], "seconds": {"search": 1.0, "sample": 2.0}}
    return json.dumps(content | {"diagnostics": {"chi2_arcs": 1.0, "max_r_hat": 1.01, "min_ess": 500.0}}).encode()


def write_lens(path: Path, seed: int = 1) -> Path:
    """A small image with something in its middle."""
    y, x = np.mgrid[-3:4, -3:4]
    psf = np.exp(-(x**2 + y**2) / 2)
    y, x = np.mgrid[-10:10, -12:12] + 0.5
    image = 5 * np.exp(-(x**2 + y**2) / 20) + np.random.default_rng(seed).normal(0, 0.03, y.shape)
    Observation(image, np.full(y.shape, 0.03), psf / psf.sum(), 0.1, name="stub").to_fits(path)
    return path


def write_catalogue(folder: Path, count: int) -> Path:
    """A table of so many lenses, all of them the same file under names of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "lens.fits").exists():
        write_lens(folder / "lens.fits")
    path = folder / "lenses.csv"
    with path.open("w") as table:
        table.write("name,file\n")
        table.writelines(f"lens-{i:06d},lens.fits\n" for i in range(count))
    return path


def _node() -> str | None:
    try:
        import ray
    except ImportError:
        return None
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
