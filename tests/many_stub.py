"""A stand-in for the fit of a lens, which the processes of `tflens.many` can import, and which does as it is told."""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tflens.run import Job


@dataclass(frozen=True)
class Stub:
    """Copies results instead of fitting, and logs every attempt.

    Args:
        results: a folder with those of a fit; each of the files `names` is copied.
        log: a line for every attempt: name of the lens, process, whether it was to share, `center` of the model.
        dying: lens -> signal that its processes die of.
        dying_once: the same, but the second attempt succeeds.
        failing: lens -> message of an error.
        seconds: lens -> how long its fit takes.
        after: lens -> a file or folder that its fit waits for.
        hoarding: bytes that each lens leaves behind in its process.
    """

    results: Path
    log: Path
    names: tuple[str, ...] = ("config.json", "summary.json", "posterior.nc")
    dying: tuple[tuple[str, int], ...] = ()
    dying_once: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    after: tuple[tuple[str, Path], ...] = ()
    hoarding: int = 0

    def __call__(self, threads: int | None) -> "Fitted":
        return Fitted(self, threads)

    def attempts(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def unable_to_start(threads: int | None) -> None:
    """A start that fails before there is a lens."""
    raise FileNotFoundError("no such weights")


class Fitted:
    def __init__(self, stub: Stub, threads: int | None) -> None:
        self.stub, self.threads, self.hoard = stub, threads, []

    def __call__(self, job: Job) -> None:
        stub, name = self.stub, job.folder.name.removeprefix(".").rsplit(".", 2)[0]
        earlier = [each["name"] for each in stub.attempts()]
        with stub.log.open("a") as log:
            attempt = {"name": name, "process": os.getpid(), "shared": job.config.shared, "threads": self.threads}
            log.write(json.dumps(attempt) + "\n")
        self.hoard.append(bytearray(stub.hoarding))
        (job.folder / "posterior.nc").write_text("half")
        while name in dict(stub.after) and not dict(stub.after)[name].exists():
            time.sleep(0.05)
        time.sleep(dict(stub.seconds).get(name, 0))
        if name in dict(stub.dying):
            os.kill(os.getpid(), dict(stub.dying)[name])
        if name in stub.dying_once and name not in earlier:
            os.kill(os.getpid(), signal.SIGKILL)
        if name in stub.failing:
            raise ZeroDivisionError("in the middle")
        for file in stub.names:
            shutil.copy(stub.results / file, job.folder)
        config = json.loads((job.folder / "config.json").read_text())
        config |= {"input": job.config.as_dict()["input"], "settings": dict(job.config.settings)}
        (job.folder / "config.json").write_text(json.dumps(config))
