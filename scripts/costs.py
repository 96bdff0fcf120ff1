"""What many fits cost on machines that were not there to be measured: an estimate from figures that were.

From docs/results/pipeline.json and fits.json to docs/results/costs.json; `scripts/update_tables.py` makes the table.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tflens.many import LENSES_PER_WORKER
from tflens.measured import keep_records
from tflens.run import commit

ROOT = Path(__file__).resolve().parents[1]
LENSES = 100_000


@dataclass(frozen=True)
class Fit:
    """A fit as it was measured: `seconds` on so many `cores`, of them `once` for what lenses share, `host` for what no
    GPU helps with (files, figures)."""

    cores: int
    seconds: float
    once: float
    host: float


@dataclass(frozen=True)
class Machine:
    """A kind of processor: peak of float32, flop/s, memory bandwidth, byte/s, and the shares of them, least and most,
    that a fit is taken to get out of it."""

    flops: float
    bandwidth: float
    shares: tuple[float, float]


CORE = Machine(64e9, 10e9, (1.0, 1.0))  # 2 GHz x 32 flop, and its part of a server's memory
GPU = Machine(19.5e12, 1555e9, (0.1, 0.5))  # of a data centre, 40 GB, as its data sheet has it


def hours_on_cores(fit: Fit, cores: int, lenses: int = LENSES) -> float:
    """Hours on so many cores like those of the measurement, each lens on as many of them as it was there.

    Args:
        fit: as measured.
        cores: of the cluster.
        lenses: of the catalogue.
    """
    each = fit.seconds - fit.once + fit.once / LENSES_PER_WORKER
    return lenses * each * fit.cores / cores / 3600


def hours_on_gpus(fit: Fit, gpus: int, lenses: int = LENSES) -> tuple[float, float]:
    """Least and most hours on so many GPUs, which are kept busy by lenses enough at a time.

    The work is taken to be bound by memory or by arithmetic, whichever gains less; a GPU gets a share of its peak.
    """
    gain = min(GPU.bandwidth / CORE.bandwidth, GPU.flops / CORE.flops) / fit.cores
    device = fit.seconds - fit.once - fit.host
    hours = [
        lenses * (device / (gain * share) + fit.host / _HOST_WORKERS + fit.once / LENSES_PER_WORKER) / gpus / 3600
        for share in GPU.shares
    ]
    return min(hours), max(hours)


_HOST_WORKERS = 8  # processes beside each GPU that write files while it works


def measured() -> dict[str, Fit]:
    """Of a Sersic source, from the benchmark, on two cores; of the neural source, from calibration, on one."""
    runs = [r for r in _read("pipeline") if r["method"] == "tflens" and "error" not in r]
    stages = {name: median(r["stages"][name] for r in runs) for name in runs[0]["stages"]}
    compiling = max(0.0, median(r["seconds"] for r in runs) - sum(stages.values()))
    sersic = Fit(2, median(r["seconds"] for r in runs), stages["import"] + compiling, stages["finish"])
    (flow,) = [r for r in _read("fits") if r.get("figure") == "seconds a lens" and "flow prior" in r["variant"]]
    # Its mocks share what is compiled already.
    return {"Sersic source": sersic, "neural source, flow prior": Fit(1, flow["value"], 0.0, stages["finish"])}


def records() -> list[dict]:
    """A record for each fit and machine."""
    found = []
    for name, fit in measured().items():
        about = {"variant": name, "n": LENSES, "seed": None, "seconds": fit.seconds}
        for cores in (2, 1_000):
            hours = hours_on_cores(fit, cores)
            found.append({"id": "cost", "machine": f"{cores:,} cores", "value": hours, "spread": None, **about})
        for gpus in (1, 10):
            low, high = hours_on_gpus(fit, gpus)
            label = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
            found.append({"id": "cost", "machine": label, "value": (low * high) ** 0.5, "spread": [low, high], **about})
    return found


def _read(name: str) -> list[dict]:
    return json.loads((ROOT / f"docs/results/{name}.json").read_text())


if __name__ == "__main__":
    about = {"command": "python scripts/costs.py", "commit": commit()}
    keep_records(ROOT / "docs/results/costs.json", [record | about for record in records()], by=["id"])
