"""What rounds of sampling are worth on a density whose stiff directions turn: one long round, or three that grow.

y | x ~ N((x^2 - 1) / 2, 0.1^2), x ~ N(0, 1), in each of four planes (Haario et al. 1999, Comput. Stat. 14, 375): a
thin, bent sheet, as the posterior of a lens is along the latents of its galaxy.

python scripts/measure_rounds.py                # prints a line for each run; five minutes
"""

import argparse

import numpy as np
import tensorflow as tf

from tflens.inference import hmc
from tflens.inference.convergence import convergence_of

WIDTH = 0.1
RUNS = {"one round of 400": {"draws": 400}, "rounds of 200, 400, 800": {"draws": 200, "rounds": 3}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4], help="(default: %(default)s)")
    for seed in parser.parse_args().seeds:
        for name, effort in RUNS.items():
            chains = hmc.sample(
                hmc.Sampler(log_prob, 8, "float64"),
                np.repeat([0.0, -0.5], 4),
                fisher,
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


def log_prob(u: tf.Tensor) -> tf.Tensor:
    x, y = u[:, :4], u[:, 4:]
    return -0.5 * tf.reduce_sum(x**2 + ((y - (x**2 - 1) / 2) / WIDTH) ** 2, -1)


def fisher(points: np.ndarray) -> np.ndarray:
    """Curvatures `[n, 8, 8]` at points `[n, 8]`."""
    x = points[:, :4]
    result = np.zeros((len(points), 8, 8))
    for i in range(4):
        slope = np.stack([-x[:, i], np.ones(len(x))], -1) / WIDTH
        result[:, i::4, i::4] = slope[:, :, None] * slope[:, None, :]
        result[:, i, i] += 1
    return result


if __name__ == "__main__":
    main()
