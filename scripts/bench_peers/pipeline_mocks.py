"""The lenses of the workload `pipeline`: `python pipeline_mocks.py FOLDER NUMBER`, drawn from the prior.

Images in double precision, one sample a pixel as all methods take, and noise of 1: what differs is the inference.
"""

import sys
from pathlib import Path

import numpy as np
from pipeline import NAMES, Problem, physical
from with_tflens_reference import settings
from workloads import PIXELS, Workload, gaussian_kernel


class Scenes(Workload):
    """Lenses with parameters drawn from the priors of `pipeline` in place of a benchmark's own."""

    def parameters(self, batch: int) -> np.ndarray:
        """Parameters `[batch, 15]`; the lenses of a small batch are the first ones of a large."""
        draws = [physical(np.random.default_rng([7, lens]).standard_normal(len(NAMES))) for lens in range(batch)]
        return np.array([[draw[name] for name in NAMES] for draw in draws])


def make(count: int) -> list[Problem]:
    """The first lenses of an endless list."""
    blank = np.ones((PIXELS, PIXELS))
    scenes = Scenes("EPL", "Sersic", "gaussian", 1, gaussian_kernel(), blank, blank)
    job = settings(scenes, "image", count)["float64"]()
    images = job.read(job.run())
    noise = [np.random.default_rng([8, lens]).standard_normal(blank.shape) for lens in range(count)]
    truths = scenes.parameters(count)
    return [Problem(image + n, scenes.kernel, truth) for image, n, truth in zip(images, noise, truths, strict=True)]


def main() -> None:
    folder, count = sys.argv[1:]
    for lens, problem in enumerate(make(int(count))):
        problem.save(Path(folder) / f"lens{lens}.npz")


if __name__ == "__main__":
    main()
