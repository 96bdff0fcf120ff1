"""Time the gradient of every profile, relative to the SIE's, and of a sum over many subhalos.

Of a mass profile it is the deflection's gradient, of a light profile the brightness's, by all parameters.

100 x 100 pixels, batches of 16, compiled by XLA in single precision; the profiles take turns in every round.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tflens.quiet import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]
BATCH, PIXELS, PIXEL_SCALE = 16, 100, 0.05
SUBHALOS = (1, 100, 1000)
SUBHALO_BATCH = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns of every profile (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/profiles.json", help="default: %(default)s")
    arguments = parser.parse_args()
    import_tensorflow_quietly()
    from tflens.files import write_atomically

    records = costs(arguments.rounds) + subhalos(arguments.rounds)
    # Other commands keep their records of the same profiles in the same file.
    ours = {record["id"] for record in records}
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    records = [record for record in kept if record["id"] not in ours] + records
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, lambda file: file.write_text(json.dumps(records, indent=1) + "\n"))
    for r in (r for r in records if r["id"] in ours):
        print(f"{r['variant']:<40} {r['value']:8.2f} {r['unit']:<14} first call {r['first_call_seconds']:.1f} s")


def costs(rounds: int) -> list[dict[str, Any]]:
    """Records "cost": the time of a profile's gradient over the SIE's, round by round."""
    import tensorflow as tf

    profiles = {type(profile).__name__: profile for profile in examples()}
    profiles |= {f"light.{type(profile).__name__}": profile for profile in light_examples()}
    jobs = {}
    for name, profile in profiles.items():
        values = {n: tf.constant(v) for n, v in parameters(profile, BATCH).items()}
        if name == "light.Pixelated":
            values["image"] = tf.ones([BATCH, 64, 64])
        jobs[name] = gradient_job(profile, values)
    first, taken = take_turns(jobs, rounds)
    sie = np.array(taken["SIE"])
    return [
        record("cost", name, np.array(times) / sie, "x SIE", first[name])
        | {"milliseconds": 1e3 * float(np.median(times))}
        for name, times in taken.items()
    ]


def subhalos(rounds: int) -> list[dict[str, Any]]:
    """Records "subhalos": milliseconds for the gradient of 1, 100, 1000 SIEs in one lens."""
    import tensorflow as tf

    from tflens.mass import SIE, Subhalos

    jobs: dict[str, Callable[[], object]] = {}
    rng = np.random.default_rng(0)
    for number in SUBHALOS:
        spread = {"theta_E": 0.01, "e1": 0.1, "e2": 0.1, "center_x": 2.0, "center_y": 2.0}
        draw = {n: s * rng.uniform(-1, 1, (SUBHALO_BATCH, number)).astype(np.float32) for n, s in spread.items()}
        values = {n: tf.constant(np.abs(v) if n == "theta_E" else v) for n, v in draw.items()}
        values["present"] = tf.ones([SUBHALO_BATCH, number])
        jobs[f"{number} SIE subhalos"] = gradient_job(Subhalos(SIE(), number), values)
    first, taken = take_turns(jobs, rounds)
    return [record("subhalos", name, 1e3 * np.array(times), "ms a call", first[name]) for name, times in taken.items()]


def examples() -> list[Any]:
    """Every profile of `tflens.mass` that is one of its own, as it is timed; what needs settings gets them here."""
    from tflens import mass

    rng = np.random.default_rng(0)
    image = rng.normal(0, 0.01, (64, 64))
    made = {
        "MultiGaussianMass": mass.MultiGaussianMass(np.geomspace(0.05, 3, 8).tolist()),
        "EllipticalMass": mass.EllipticalMass(mass.NFW()),
        "EllipticalPotential": mass.EllipticalPotential(mass.NFW()),
        "PixelatedConvergence": mass.PixelatedConvergence(0.1, image),
        "PixelatedPotential": mass.PixelatedPotential(0.1, image),
    }
    # Bases, and what is a sum of other profiles.
    left_out = {"MassProfile", "CircularMass", "MultiPlane", "Plane", "Subhalos"}
    for name in mass.__all__:
        kind = getattr(mass, name)
        if name not in made and name not in left_out and isinstance(kind, type):
            made[name] = kind()
    return [profile for _, profile in sorted(made.items())]


def light_examples() -> list[Any]:
    """Every profile of `tflens.light`, as it is timed; a uniform sky has no parameters."""
    from tflens import light

    made = {
        "MultiGaussian": light.MultiGaussian(np.geomspace(0.05, 3, 8).tolist()),
        "Pixelated": light.Pixelated(0.05),
        "Shapelets": light.Shapelets(8),
    }
    for name in light.__all__:
        kind = getattr(light, name)
        if name not in made and name not in {"LightProfile", "Uniform"} and isinstance(kind, type):
            made[name] = kind()
    return [profile for _, profile in sorted(made.items())]


def parameters(profile: Any, batch: int) -> dict[str, np.ndarray]:
    """Draws `[batch]` of every parameter, from the priors by way of the base space, close to their medians."""
    import tensorflow as tf

    from tflens.parameters import from_base

    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {}
    for parameter in profile.parameters:
        joint = len(parameter.names) > 1
        u = 0.3 * rng.standard_normal((batch, len(parameter.names)) if joint else batch).astype(np.float32)
        drawn = from_base(parameter.prior(tf.float32), tf.constant(u)).numpy()
        values |= dict(zip(parameter.names, drawn.T if joint else [drawn], strict=True))
    return values


def gradient_job(profile: Any, values: dict[str, Any]) -> Callable[[], object]:
    """A call of the compiled gradient of a scalar of the profile with respect to all parameters."""
    import tensorflow as tf

    from tflens.grid import PixelGrid

    x, y = (tf.constant(v, tf.float32) for v in PixelGrid((PIXELS, PIXELS), PIXEL_SCALE).coordinates())

    @tf.function(jit_compile=True, autograph=False)
    def gradient(values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(values)
            light = hasattr(profile, "brightness")
            fields = [profile.brightness(x, y, **values)] if light else profile.deflection(x, y, **values)
            total = tf.add_n([tf.reduce_sum(field**2) for field in fields])
        return tape.gradient(total, values)

    return lambda: tf.nest.map_structure(lambda tensor: tensor.numpy(), gradient(values))


def take_turns(jobs: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Seconds of each job's first call, and of a call in every round (the second of two: caches are another's)."""

    def seconds(job: Callable[[], object]) -> float:
        start = time.perf_counter()
        job()
        return time.perf_counter() - start

    first = {name: seconds(job) for name, job in jobs.items()}
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            job()
            taken[name].append(seconds(job))
    return first, taken


def record(id: str, variant: str, values: np.ndarray, unit: str, first: float) -> dict[str, Any]:
    """A record with median and spread of the values."""
    from tflens.run import commit, versions

    low, median, high = np.quantile(values, [0.16, 0.5, 0.84])
    return {
        "id": id,
        "variant": variant,
        "value": float(median),
        "spread": [float(low), float(high)],
        "null": None,
        "n": len(values),
        "seed": 0,
        "reach": None,
        "beat": None,
        "command": "python scripts/profile_costs.py",
        "commit": commit(),
        "unit": unit,
        "first_call_seconds": first,
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
