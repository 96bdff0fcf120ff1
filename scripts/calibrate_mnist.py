"""Fit many lensed digits, each blind, and count: how well lens and digit are found, and how honest the errors are.

    python scripts/calibrate_mnist.py --n 100

Every system counts, failures included. Systems that are finished in `--run` (with the same model of digits) are not
fitted again, so a run that was killed goes on where it stopped. The figures go to `docs/results/mnist.json`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tflens.files import write_atomically
from tflens.quiet import import_tensorflow_quietly
from tflens.wilson import wilson

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="number of systems (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the systems (default: %(default)s)")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="systems fitted at a time, each by one thread if there are several (default: %(default)s)",
    )
    parser.add_argument("--run", type=Path, default=ROOT / "runs/mnist_lenses", help="a file for each finished system")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/results/mnist.json")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)
    jobs = [(arguments.seed, index, arguments.run) for index in range(arguments.n)]
    systems = []
    for system in track(fitted(jobs, arguments.processes), "systems", total=len(jobs), console=Console(stderr=True)):
        systems.append(system)
        console.print(line(system), highlight=False, soft_wrap=True)
    command = f"python scripts/calibrate_mnist.py --n {arguments.n} --seed {arguments.seed}"
    common = {"n": arguments.n, "seed": arguments.seed, "command": command, "commit": commits(systems)}
    records = [record | common for record in figures(systems)]
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.results, lambda file: file.write_text(json.dumps(records, indent=1) + "\n"))
    table = Table(title=f"{arguments.n} lensed digits", title_justify="left")
    for heading in ("id", "figure", "value", "68 %", "null", "reach", "beat"):
        table.add_column(heading, justify="left" if heading in ("id", "figure") else "right")
    for record in records:
        spread = record["spread"] and f"{record['spread'][0]:.4g} to {record['spread'][1]:.4g}"
        numbers = [f"{record[name]:.4g}" if record[name] is not None else "" for name in ("null", "reach", "beat")]
        table.add_row(record["id"], record["variant"], f"{record['value']:.4g}", spread or "", *numbers)
    console.print(table)


def fitted(jobs: list[tuple[int, int, Path]], processes: int) -> Iterator[dict[str, Any]]:
    """The systems in order, each in a process of its own, which takes its compiled programs with it when it ends."""
    # TensorFlow's threads do not survive a fork.
    with get_context("spawn").Pool(processes, _start, (processes == 1,), maxtasksperchild=1) as pool:
        yield from pool.imap(fit_one, jobs)


def fit_one(job: tuple[int, int, Path]) -> dict[str, Any]:
    """Truth and fit of one system in plain values, from its file if it has one."""
    from lensed_digits import SETTINGS, compare, draw_system, fit_blind, read

    from tflens.galaxies.digit_reader import load_digit_reader
    from tflens.run import commit, describe_galaxies

    seed, index, folder = job
    path = folder / f"{seed}-{index:04d}.json"
    made_with = {"digits": describe_galaxies("mnist"), "settings": asdict(SETTINGS)}
    if path.exists() and (found := json.loads(path.read_text()))["made_with"] == made_with:
        return found
    system = draw_system(seed, index)
    result, notes = fit_blind(system, seed=index)
    reader = load_digit_reader("mnist")
    unlensed = int(reader.read(system.stamp).numpy().argmax())
    compared = compare(system, result, read(result, reader))
    record = {
        "index": index,
        **compared,
        "read_unlensed": unlensed,
        "notes": notes,
        "made_with": made_with,
        "commit": commit(),
    }
    write_atomically(path, lambda file: file.write_text(json.dumps(record, indent=1) + "\n"))
    return record


def figures(systems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Section 4 of the measures, and what belongs to it; shares have the 68 % interval of Wilson's score."""

    def of(name: str) -> np.ndarray:
        return np.array([np.nan if system[name] is None else system[name] for system in systems], float)

    def median(values: np.ndarray) -> dict[str, Any]:
        # A fit that found no arcs at all has no chi^2 in them.
        low, middle, high = np.nanquantile(values, [0.16, 0.5, 0.84])
        return {"value": float(middle), "spread": [float(low), float(high)]}

    def share(inside: np.ndarray) -> dict[str, Any]:
        return {"value": float(np.mean(inside)), "spread": wilson(int(np.sum(inside)), len(inside))}

    error, z = np.abs(of("theta_E_error")), of("theta_E_z")
    right = of("read") == of("label")
    failed = (error > 0.05) | ~(of("r_hat") <= 1.05)
    rows: list[tuple[str, str, dict[str, Any], float | None, float | None, float | None]] = [
        ("M1", "theta_E: median of abs(error)", median(error), None, 0.01, 0.003),
        ("M1", "theta_E: 95th percentile of abs(error)", plain(np.quantile(error, 0.95)), None, None, None),
        ("M1", "theta_E: share within 1 %", share(error < 0.01), None, None, None),
        ("M1", "theta_E: share within 0.3 %", share(error < 0.003), None, None, None),
        ("M2", "digit read right", share(right), 0.1, 0.9, 0.97),
        ("M2", "the same digits read right without a lens", share(of("read_unlensed") == of("label")), 0.1, None, None),
        ("M2", "probability given to the true digit", median(of("probability_of_truth")), 0.1, None, None),
        ("F2", "theta_E: mean of z", plain(z.mean()), 0.0, 0.3, 0.2),
        ("F2", "theta_E: standard deviation of z", plain(z.std()), 1.0, None, None),
        ("F2", "theta_E: truth in the 68 % interval", share(of("inside_68") > 0), 0.68, None, None),
        ("F2", "theta_E: truth in the 95 % interval", share(of("inside_95") > 0), 0.95, None, None),
        ("F3", "chi^2 in the arcs", median(of("chi2_arcs")), 1.0, None, None),
        ("F5", "failures: theta_E off by 5 %, or its R-hat above 1.05", share(failed), None, 0.05, 0.01),
        ("L5", "mean of u^2 of the latents", median(of("latent_norm")), 1.0, None, None),
        ("F7", "seconds a system", median(of("seconds")), None, None, None),
    ]
    return [
        {"id": key, "variant": variant, **value, "null": null, "reach": reach, "beat": beat}
        for key, variant, value, null, reach, beat in rows
    ]


def plain(value: float) -> dict[str, Any]:
    return {"value": float(value), "spread": None}


def commits(systems: list[dict[str, Any]]) -> str:
    """The commit, or all of them if the systems were fitted at several."""
    return ", ".join(sorted({str(system["commit"]) for system in systems}))


def line(system: dict[str, Any]) -> str:
    right = "" if system["read"] == system["label"] else "  WRONG"
    return (
        f"{system['index']:3d}  theta_E {system['theta_E_truth']:.4f}, fit {system['theta_E']:.4f} "
        f"({system['theta_E_error']:+.2%})  digit {system['label']}, read {system['read']} "
        f"({system['probability']:.3f})  chi^2 {system['chi2']:.2f}  R-hat {system['r_hat']:.3f}  "
        f"{system['seconds']:.0f} s{right}"
    )


def _start(alone: bool) -> None:
    import_tensorflow_quietly()
    import tensorflow as tf

    if not alone:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


if __name__ == "__main__":
    main()
