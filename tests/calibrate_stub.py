"""A stand-in for the fits of mocks: the processes of `tflens.calibrate` can import it, and it does as it is told."""

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tflens.calibrate import Plan, Result, Task

if TYPE_CHECKING:
    import numpy as np

DRAWS = 200


def made_up(rng: "np.random.Generator", width: float = 1.0, bias: float = 0.0) -> Result:
    """Of a fit whose posterior is Gaussian, `width` times as wide as its error, and biased by `bias` of that."""
    # Here, and called before there is a worker, so that workers need no TensorFlow.
    from scipy import stats

    from tflens.inference.calibration import MASS

    parameters = {}
    for name in MASS:
        truth, error = 1.0 if name == "lens.theta_E" else 0.1, 0.002
        median = truth + error * (bias + rng.standard_normal())
        rank = float(stats.norm.cdf((truth - median) / (width * error)))
        found = {"truth": truth, "median": median, "std": width * error, "rank": rank, "r_hat": 1.0, "ess": 200.0}
        parameters[name] = found | {"sbc": [int(rng.binomial(DRAWS, rank)), DRAWS]}
    source = {"error": 0.1, "flux": 0.05, "r50": -0.05}
    rest = {"chi2": 1.0, "chi2_arcs": 1.0, "max_r_hat": 1.02, "min_ess": 400.0, "latent_norm": 1.0, "peak_snr": 20.0}
    rest |= {"checks": {"r_hat_mass": "ok", "chi2_arcs": "warning"}, "seconds": 60.0, "gradients": 1000}
    return {"name": "made up", "parameters": parameters, "source": source, **rest}


def several() -> list[Result]:
    import numpy as np

    return [made_up(np.random.default_rng(index)) for index in range(6)]


@dataclass(frozen=True)
class Stub:
    """Makes results up instead of fitting, and logs every attempt.

    Args:
        log: a line for every attempt: index of the mock, process, threads, sum of the stamp.
        dying: mocks that their processes die of.
        dying_once: the same, but the second attempt succeeds.
        failing: mocks whose fit raises an error.
        slow: mocks whose fit takes five minutes.
        wrong: mocks whose theta_E is off.
        results: of the mocks.
    """

    log: Path
    dying: tuple[int, ...] = ()
    dying_once: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    slow: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    results: list[Result] = field(default_factory=several)

    def __call__(self, plan: Plan, threads: int | None) -> "Made":
        return Made(self, plan, threads)

    def attempts(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


class Made:
    def __init__(self, stub: Stub, plan: Plan, threads: int | None) -> None:
        assert plan.sources.stamps is None, "a worker needs no stamps but those of its tasks"
        self.stub, self.plan, self.threads = stub, plan, threads

    def __call__(self, task: Task) -> Result:
        stub, index = self.stub, task.index
        earlier = [each["index"] for each in stub.attempts()]
        stamp = None if task.stamp is None else float(task.stamp.sum())
        with stub.log.open("a") as log:
            attempt = {"index": index, "process": os.getpid(), "threads": self.threads, "stamp": stamp}
            log.write(json.dumps(attempt) + "\n")
        if index in stub.slow:
            time.sleep(300)
        if index in stub.dying or (index in stub.dying_once and index not in earlier):
            os.kill(os.getpid(), signal.SIGKILL)
        if index in stub.failing:
            raise ZeroDivisionError("in the middle")
        result = json.loads(json.dumps(stub.results[index]))
        if index in stub.wrong:
            result["parameters"]["lens.theta_E"]["median"] *= 1.2
        return result | {"name": f"mock {index} of seed {self.plan.seed}"}
