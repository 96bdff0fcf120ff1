"""From an image to a posterior, side by side: seconds to a converged posterior, by package.

One lens of 100 x 100 pixels, elliptical power law + shear + Sersic source, 15 parameters, the same posterior for all.
Every run is a process of its own, its start, imports and compilation included; methods take turns.

python scripts/bench_pipeline.py --lenses 5 --seeds 5
python scripts/bench_pipeline.py --methods tflens,herculens --lenses 1
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import bench
import numpy as np
from rich.progress import track

sys.path.insert(0, str(bench.PEERS))

from pipeline import NAMES, Problem, Result

from tflens.run import commit

METHODS = {"tflens": None, "herculens": "herculens", "herculens_recipe": "herculens"}
"""What is compared, and its environment: a module `pipeline_METHOD` of `scripts/bench_peers` each."""

TIME_LIMIT = 1800  # seconds of a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="default: %(default)s")
    parser.add_argument("--lenses", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="of each lens (default: %(default)s)")
    parser.add_argument("--peer-lenses", type=int, default=1, help="for all others than tflens (default: %(default)s)")
    parser.add_argument("--peer-seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=bench.ROOT / "docs/results/pipeline.json")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",")
    for method in methods:
        if method not in METHODS:
            parser.error(f"--methods must be of {', '.join(METHODS)}, got {method!r}")
    pythons = {method: bench.environment(METHODS[method]) for method in methods}
    runs = [
        (lens, seed, method)
        for lens in range(arguments.lenses)
        for seed in range(arguments.seeds)
        for method in methods
        if method == "tflens" or (lens < arguments.peer_lenses and seed < arguments.peer_seeds)
    ]
    records = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mocks = [sys.executable, str(bench.PEERS / "pipeline_mocks.py"), name, str(arguments.lenses)]
        subprocess.run(mocks, check=True, capture_output=True)
        for lens, seed, method in track(runs, "runs", disable=not sys.stderr.isatty()):
            record = run(pythons[method], method, folder / f"lens{lens}.npz", seed, folder / "result.npz")
            records.append({"lens": lens, "seed": seed, **record})
            print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    command = f"python scripts/bench_pipeline.py {' '.join(sys.argv[1:])}".strip()
    about = {"command": command, "commit": commit(), "cores": len(os.sched_getaffinity(0))}
    arguments.out.write_text(json.dumps([record | about for record in records], indent=1) + "\n")
    print(f"-> {arguments.out}")


def run(python: Path, method: str, problem: Path, seed: int, result: Path) -> dict[str, Any]:
    """One run, and what came of it."""
    begun = time.time()
    settings = {"BENCH_STARTED": str(begun), "TF_CPP_MIN_LOG_LEVEL": "2"}
    try:
        done = subprocess.run(
            [str(python), str(bench.PEERS / "pipeline.py"), method, str(problem), str(seed), str(result)],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"method": method, "error": f"not ready after {TIME_LIMIT} s"}
    seconds = time.time() - begun
    if done.returncode:
        return {"method": method, "error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found = Result.load(result)
    return {"method": method, "seconds": seconds, **judge(found, Problem.load(problem))}


def judge(result: Result, problem: Problem) -> dict[str, Any]:
    """Convergence of a posterior, and where it lies."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")
        import arviz as az
    draws = result.draws
    ess = [float(az.ess(draws[..., i])) for i in range(len(NAMES))]
    deviation = draws.std((0, 1))
    return {
        "r_hat": max(float(az.rhat(draws[..., i])) for i in range(len(NAMES))),
        "ess": min(ess),
        "gradients": result.gradients,
        "jacobians": result.jacobians,
        "stages": result.stages,
        "settings": result.settings,
        "median": np.median(draws, (0, 1)).tolist(),
        "deviation": deviation.tolist(),
        "largest_z": float(np.max(np.abs((np.median(draws, (0, 1)) - problem.truth) / deviation))),
    }


if __name__ == "__main__":
    main()
