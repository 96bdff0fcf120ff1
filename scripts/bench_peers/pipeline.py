"""One package from an image to a posterior, in a process of its own: `python pipeline.py METHOD PROBLEM SEED RESULT`.

The problem, and what a method hands back. NumPy only: this file is read in every package's environment. A method is a
module `pipeline_METHOD` with a function `run(problem, seed, clock) -> Result`; the mocks are made by `pipeline_mocks`.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from workloads import LIGHT, MASS

NAMES = MASS + LIGHT
# Mean and width of normal priors, all independent; of the logarithm where the parameter is one of `POSITIVE`. That of
# the amplitude is of the mocks and of the points where a search starts: see `log_amplitude_prior` for the inference.
PRIORS = {
    "theta_E": (np.log(1.2), 0.15),
    "gamma": (2.0, 0.15),
    "e1": (0.0, 0.1),
    "e2": (0.0, 0.1),
    "center_x": (0.0, 0.05),
    "center_y": (0.0, 0.05),
    "gamma1": (0.0, 0.05),
    "gamma2": (0.0, 0.05),
    "R_sersic": (np.log(0.25), 0.3),
    "n_sersic": (np.log(2.0), 0.25),
    "source_e1": (0.0, 0.1),
    "source_e2": (0.0, 0.1),
    "source_x": (0.0, 0.15),
    "source_y": (0.0, 0.15),
    "amp": (np.log(800.0), 0.3),
}
POSITIVE = ("theta_E", "R_sersic", "n_sersic", "amp")
START = 0.5  # widths of the prior within which a search starts, for those methods that choose their starts themselves


@dataclass(frozen=True)
class Problem:
    """One lens: an elliptical power law with shear, a Sersic source, one sample a pixel, known noise of 1.

    Attributes:
        image: `[100, 100]`, in units of its noise.
        kernel: the PSF `[21, 21]`, unit sum.
        truth: what the image was made from, in the order of `NAMES`.
    """

    image: np.ndarray
    kernel: np.ndarray
    truth: np.ndarray

    @property
    def scale(self) -> float:
        """Width of the half-normal prior on the signal-to-noise of the lensed source: that of the whole image."""
        return max(10.0, float(np.linalg.norm(self.image)))

    def save(self, path: Path) -> None:
        """Writes the problem where a method can read it."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Problem":
        """Reads a saved problem."""
        with np.load(path) as file:
            return cls(**file)


@dataclass(frozen=True)
class Result:
    """A posterior and what it took.

    Attributes:
        draws: physical parameters in the order of `NAMES`, `[chains, draws, 15]`.
        stages: seconds of each stage, in order.
        sampling: share of the last stage but one, "sample", that went into the draws that are kept.
        gradients: evaluations of the log density's gradient, all stages.
        jacobians: evaluations of the image's Jacobian.
        settings: in words.
    """

    draws: np.ndarray
    stages: dict[str, float]
    sampling: float
    gradients: int
    jacobians: int
    settings: str

    def save(self, path: Path) -> None:
        """Writes the draws, and the rest beside them."""
        rest = {key: value for key, value in vars(self).items() if key != "draws"}
        np.savez(path, draws=np.asarray(self.draws, np.float64), rest=json.dumps(rest))

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Reads a saved result."""
        with np.load(path) as file:
            return cls(draws=file["draws"], **json.loads(str(file["rest"])))


@dataclass
class Clock:
    """Wall time of the stages, one after the other."""

    last: float = field(default_factory=time.time)
    stages: dict[str, float] = field(default_factory=dict)

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        now = time.time()
        self.stages[stage] = now - self.last
        self.last = now


def physical(u: Any, log_amplitude: Any = None, exp: Any = np.exp) -> dict[str, Any]:
    """Parameters by name at base-space values u `[15, ...]`; the last one is replaced by a log amplitude if given."""
    values = {name: loc + scale * u[i] for i, (name, (loc, scale)) in enumerate(PRIORS.items()) if name != "amp"}
    loc, scale = PRIORS["amp"]
    values["amp"] = loc + scale * u[len(values)] if log_amplitude is None else log_amplitude
    return {name: exp(value) if name in POSITIVE else value for name, value in values.items()}


def log_amplitude_prior(signal_to_noise: Any, scale: float, log: Any = np.log) -> Any:
    """Density of the log amplitude, up to a constant, for the lensed source's signal-to-noise |image / noise|.

    The signal-to-noise is half-normal, whatever the shape of the source: the prior of this package, which marginalises
    the amplitude in closed form. So peers, which sample it, see the same posterior.
    """
    return log(signal_to_noise) - 0.5 * (signal_to_noise / scale) ** 2


def started() -> float:
    """When this process was started, seconds since the epoch; the interpreter's own start is part of a run."""
    return float(os.environ.get("BENCH_STARTED", time.time()))


def main() -> None:
    method, problem, seed, result = sys.argv[1:]
    clock = Clock(started())
    run = importlib.import_module(f"pipeline_{method}").run
    run(Problem.load(Path(problem)), int(seed), clock).save(Path(result))


if __name__ == "__main__":
    # As `pipeline`, so that there is one `Problem`.
    sys.modules["pipeline"] = sys.modules["__main__"]
    main()
