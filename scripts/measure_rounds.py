"""What rounds of sampling are worth on a density whose stiff directions turn: one long round, or three that grow.

The density is that of `tests/bent_sheet.py`.

python scripts/measure_rounds.py                # prints a line for each run; five minutes
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import bent_sheet

from tflens.inference import hmc
from tflens.inference.convergence import convergence_of

RUNS = {"one round of 400": {"draws": 400}, "rounds of 200, 400, 800": {"draws": 200, "rounds": 3}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4], help="(default: %(default)s)")
    for seed in parser.parse_args().seeds:
        for name, effort in RUNS.items():
            chains = hmc.sample(
                hmc.Sampler(bent_sheet.log_prob, 8, "float64"),
                bent_sheet.CENTER,
                bent_sheet.fisher,
                chains=6,
                warmup=150,
                enough=lambda u: False,
                seed=seed,
                **effort,
            )
            found = convergence_of(chains.u)
            print(
                f"seed {seed}  {name:24} R-hat {found.r_hat.max():.3f}  smallest ESS {found.ess.min():4.0f} of "
                f"{chains.log_prob.size}  {1000 * found.ess.min() / chains.gradients:.2f} for 1,000 gradients in all"
            )


if __name__ == "__main__":
    main()
