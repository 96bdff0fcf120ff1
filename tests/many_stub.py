"""A stand-in for the fit of a lens, which the processes of `tflens.many` can import, and which does as it is told."""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from stub_fit import StubFit

from tflens.run import Job


@dataclass(frozen=True)
class Stub(StubFit):
    """Copies results instead of making them up.

    Args:
        results: a folder with those of a fit; each of the files `names` is copied.
        slow: pairs of a lens and the seconds that its fit takes.
        after: pairs of a lens and a file or folder that its fit waits for.
        hoarding: bytes that each lens leaves behind in its process.
    """

    results: Path = Path()
    names: tuple[str, ...] = ("config.json", "summary.json", "posterior.nc")
    slow: tuple[tuple[str, float], ...] = ()
    after: tuple[tuple[str, Path], ...] = ()
    hoarding: int = 0

    def begin(self, name: str, job: Job) -> None:
        _hoard.append(bytearray(self.hoarding))
        (job.folder / "posterior.nc").write_text("half")
        while name in dict(self.after) and not dict(self.after)[name].exists():
            time.sleep(0.05)
        time.sleep(dict(self.slow).get(name, 0))

    def write(self, name: str, job: Job) -> None:
        for file in self.names:
            shutil.copy(self.results / file, job.folder)
        config = json.loads((job.folder / "config.json").read_text())
        config |= {"input": job.config.as_dict()["input"], "settings": dict(job.config.settings)}
        (job.folder / "config.json").write_text(json.dumps(config))


def unable_to_start(threads: int | None) -> None:
    """A start that fails before there is a lens."""
    raise FileNotFoundError("no such weights")


_hoard: list[bytearray] = []
