"""Time what a fit spends its time on: model images, and the log posterior with its gradient.

All variants take turns in every round, so that a busy machine slows all of them alike; compilation is timed apart.
Absolute times hold for one machine only: they compare variants of one run, and are no target.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from tflens.quiet import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="turns of every variant (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=100, help="side of the image (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/bench.json", help="default: %(default)s")
    arguments = parser.parse_args()
    import_tensorflow_quietly()
    records = measure(arguments.pixels, arguments.rounds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(records, indent=2) + "\n")
    print(f"{'variant':<54} {'median ms':>10} {'16-84 %':>14} {'compile s':>10}")
    for record in records:
        low, high = record["spread"]
        print(
            f"{record['variant']:<54} {record['value']:10.2f} {low:6.2f}-{high:<7.2f} {record['compile_seconds']:10.1f}"
        )
    print(f"{records[0]['threads']} threads, commit {records[0]['commit']} -> {arguments.out}")


def measure(pixels: int, rounds: int) -> list[dict]:
    """One record for each variant; value and spread (16th and 84th percentile) in milliseconds a call."""
    import numpy as np
    import tensorflow as tf

    from tflens.run import commit, versions

    jobs: dict[str, Callable[[], object]] = {}
    for kind in ("sersic", "neural"):
        target = make_target(kind, pixels)
        image = tf.function(target.design, autograph=False)
        gradient = tf.function(lambda u, target=target: value_and_gradient(target, u), autograph=False)
        for batch in (1, 16):
            u = tf.constant(0.3 * np.random.default_rng(0).standard_normal((batch, target.model.dim)), tf.float32)
            jobs[f"model image, {kind} source, batch {batch}"] = lambda image=image, u=u: image(u).numpy()
            jobs[f"log posterior and gradient, {kind} source, batch {batch}"] = lambda f=gradient, u=u: f(u)[1].numpy()

    def seconds(job: Callable[[], object]) -> float:
        start = time.perf_counter()
        job()
        return time.perf_counter() - start

    first = {name: seconds(job) for name, job in jobs.items()}
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            taken[name].append(1e3 * seconds(job))
    shared = {
        "null": None,
        "n": rounds,
        "seed": 0,
        "reach": None,
        "beat": None,
        "command": "make bench",
        "commit": commit(),
        "unit": "ms a call",
        "pixels": pixels,
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0)),
        "versions": versions(),
    }
    return [
        {
            "id": "speed",
            "variant": name,
            "value": float(np.median(times)),
            "spread": [float(edge) for edge in np.quantile(times, [0.16, 0.84])],
            "compile_seconds": first[name],
            **shared,
        }
        for name, times in taken.items()
    ]


def make_target(kind: str, pixels: int):
    """The default model of a fit on an image of noise: what it costs does not depend on what is in it."""
    import numpy as np

    from tflens.model import LensTarget
    from tflens.observation import Observation
    from tflens.run import build_model

    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.2**2))
    image = np.random.default_rng(0).normal(size=(pixels, pixels))
    observation = Observation(image, np.ones_like(image), psf / psf.sum(), pixel_scale=0.05)
    return LensTarget(build_model(observation, kind), observation)


def value_and_gradient(target, u):
    """Log posterior `[batch]` and its gradient `[batch, dim]`."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(u)
        value = target.log_prob(u)
    return value, tape.gradient(value, u)


if __name__ == "__main__":
    main()
