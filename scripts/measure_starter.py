"""Measure what the network's start is worth: searches from broad starts and from its guesses, on the same mocks.

    python scripts/measure_starter.py --n 8 --data cache/galaxies

Of each mock the best log posterior after search and polish, its error of theta_E, and the gradients of the search.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tflens.datasets.records import load_dataset
from tflens.inference.calibration import chosen_stamp, draw_mock
from tflens.inference.initial import glance, light_target
from tflens.inference.map import draw_starts, polish, search
from tflens.inference.mock_lenses import fitted_source, lens_model
from tflens.inference.starter import Starter
from tflens.light import Pixelated
from tflens.measured import Record, keep_records
from tflens.model import LensTarget
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
SURVIVORS, POLISH = 4, 16
SAME = 2.0  # of log posterior: the same optimum, as `tflens.inference.check` counts


class Effort(NamedTuple):
    """How a search is begun, and how long it is."""

    start: str
    starts: int
    steps: int

    def __str__(self) -> str:
        return f"{self.start}, {self.starts} starts x {self.steps} steps"


EFFORTS = (Effort("broad", 48, 240), Effort("broad", 16, 80), Effort("network", 16, 80))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a dataset (`tflens data`); its test split is lensed")
    parser.add_argument("--n", type=int, default=8, help="mocks (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=11, help="of the mocks (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=ROOT / "docs/results/starter.json")
    arguments = parser.parse_args()

    galaxies = load_dataset(arguments.data, "test")
    source = Pixelated(float(galaxies.manifest["pixel_scale"]))
    model, starter = lens_model(fitted_source("flow")), Starter.load()
    light = coarse = None
    reached, errors = np.zeros((2, len(EFFORTS), arguments.n))
    for index in range(arguments.n):
        mock = draw_mock(source, chosen_stamp(galaxies.images, arguments.seed, index), arguments.seed, index)
        light, coarse = light or light_target(mock.observation), coarse or LensTarget(model, mock.observation)
        look = glance(mock.observation, light)
        coarse.observe(mock.observation)
        coarse.use(look.mask)
        for i, effort in enumerate(EFFORTS):
            rng = np.random.default_rng([arguments.seed, index, i])
            guesses = None
            if effort.start == "network":
                guesses = starter.draw(mock.observation, look.center, effort.starts, rng)
            starts = draw_starts(model, look, effort.starts, rng, guesses)
            found = polish(coarse, search(coarse, starts, effort.steps, SURVIVORS), POLISH)
            reached[i, index] = found.log_prob[0]
            theta_E = float(model.physical(found.u[0])["lens.theta_E"])
            errors[i, index] = abs(theta_E / mock.parameters["lens.theta_E"] - 1)
        print(index, reached[:, index].round(1), errors[:, index].round(4), flush=True)
    command = shlex.join(["python", "scripts/measure_starter.py", *sys.argv[1:]])
    common = {"n": arguments.n, "seed": arguments.seed, "command": command, "commit": commit()}
    keep_records(arguments.records, [record | common for record in records_of(reached, errors)])


def records_of(reached: np.ndarray, errors: np.ndarray) -> list[Record]:
    """From log posteriors and errors of theta_E, `[efforts, mocks]`."""
    best = reached.max(0)
    figures = {
        "mocks within 2 of the best of all": (reached > best - SAME).mean(1),
        "log posterior below the best, worst mock": (best - reached).max(1),
        "theta_E at the optimum, median of abs(error)": np.median(errors, 1),
        "gradients of the search": [effort.starts * effort.steps for effort in EFFORTS],
    }
    return [
        {
            "id": "start",
            "variant": f"{figure}: {effort}",
            "figure": figure,
            "effort": str(effort),
            "value": float(value),
        }
        for figure, values in figures.items()
        for effort, value in zip(EFFORTS, values, strict=True)
    ]


if __name__ == "__main__":
    main()
