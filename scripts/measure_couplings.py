"""What smooth pixels and learned coordinates are worth to the sampler: one round of draws of the same mocks with each.

    python scripts/measure_couplings.py --data cache/galaxies            # some ten minutes a mock

Without learned coordinates trajectories are a quarter of a period long, with them a half (`tflens.inference.hmc`).
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

from tflens.calibrate import SETTINGS, simulated_sources
from tflens.galaxies import NeuralSource
from tflens.inference import hmc
from tflens.inference.calibration import MASS, chosen_stamp, draw_mock
from tflens.inference.convergence import convergence_of
from tflens.inference.mock_lenses import lens_model
from tflens.inference.pipeline import Fit, Fitter
from tflens.inference.settings import FitSettings
from tflens.light import Pixelated
from tflens.measured import Record, keep_records
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
NEVER = 99  # windows of the warm-up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a dataset (`tflens data`); its test split is lensed")
    parser.add_argument("--mocks", type=int, nargs="+", default=[0, 6], help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the mocks (default: %(default)s)")
    parser.add_argument(
        "--pixels",
        nargs="+",
        default=["bilinear", "quadratic"],
        help="of the fitted source: see NeuralSource.interpolation (default: %(default)s)",
    )
    parser.add_argument("--records", type=Path, default=ROOT / "docs/results/couplings.json")
    arguments = parser.parse_args()

    sources = simulated_sources(arguments.data)
    settings = FitSettings(**SETTINGS, rounds=1)
    command = shlex.join(["python", "scripts/measure_couplings.py", *sys.argv[1:]])
    after = {"no": NEVER, "yes": hmc.STRAIGHTEN_AFTER}
    for pixels in arguments.pixels:
        fitter = Fitter(lens_model(NeuralSource(interpolation=pixels)), settings, crop=False)
        for index in arguments.mocks:
            stamp = chosen_stamp(sources.stamps, arguments.seed, index)
            mock = draw_mock(Pixelated(sources.pixel_scale), stamp, arguments.seed, index)
            for learned, windows in after.items():
                hmc.STRAIGHTEN_AFTER = windows
                record = record_of(fitter.fit(mock.observation, seed=index))
                record |= {"variant": f"mock {index}", "pixels": pixels, "learned": learned, "seed": arguments.seed}
                print(record, flush=True)
                by = ("id", "variant", "pixels", "learned")
                keep_records(arguments.records, [record | {"command": command, "commit": commit()}], by)


def record_of(fit: Fit) -> Record:
    """How well the chains of a fit have mixed, and what that has cost."""
    posterior = fit.posterior.data
    found = convergence_of(posterior.posterior["u"].to_numpy())
    mass = [fit.model.names.index(name) for name in MASS]
    return {
        "id": "couplings",
        "value": float(found.ess.min()),
        "median": float(np.median(found.ess)),
        "mass": float(found.ess[mass].min()),
        "r_hat": float(found.r_hat.max()),
        "r_hat_mass": float(found.r_hat[mass].max()),
        "leapfrog_steps": float(posterior.sample_stats.attrs["leapfrog_steps"]),
        "gradients": int(posterior.sample_stats.attrs["gradients"]),
        "n": posterior.posterior["u"][..., 0].size,
    }


if __name__ == "__main__":
    main()
