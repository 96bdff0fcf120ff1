"""Write the tables of README.md and docs/ from `docs/results/*.json`, so that no figure in it is typed by hand.

python scripts/update_tables.py          # rewrites what stands between the markers `<!-- NAME -->`, `<!-- end -->`
"""

import json
import re
import sys
from pathlib import Path
from statistics import median

from tflens.files import write_atomically
from tflens.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

from tflens.galaxies.targets import NAMES, Target, target_of  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts/bench_peers"))

import report  # noqa: E402


def real_lenses(records: list[dict]) -> str:
    rows = [
        "| lens | theta_E, 68 % | published | error | chi^2 in the arcs (pixels) | starts agreeing | draws a chain "
        "| R-hat of theta_E, worst of all | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in records:
        low, high = r["spread"]
        arcs = f"{r['chi2_arcs']:.2f} ({r['arc_pixels']})" if r["chi2_arcs"] is not None else "none found"
        rows.append(
            f"| {r['variant']} | {r['value']:.3f} ({low:.3f}-{high:.3f}) | {r['published']:.3f} | {r['error']:+.1%} "
            f"| {arcs} | {r['starts_agreeing']} | {r['draws']} | {r['r_hat']:.2f}, {r['max_r_hat']:.2f} "
            f"| {r['seconds'] / 60:.0f} min |"
        )
    return "\n".join([*rows, "", _source(records)])


def demo(records: list[dict]) -> str:
    rows = ["| parameter | truth | median | 95 % interval | R-hat |", "|---|---|---|---|---|"]
    for r in records:
        low, high = r["spread"]
        rows.append(
            f"| {r['variant']} | {r['truth']:.4f} | {r['value']:.4f} | {low:.4f} to {high:.4f} | {r['r_hat']:.2f} |"
        )
    return "\n".join([*rows, "", _source(records)])


def _source(records: list[dict]) -> str:
    seeds = ", ".join(sorted({str(r["seed"]) for r in records if r["seed"] is not None}))
    seeded = f" seed {seeds}," if seeds else ""
    commits: dict[str, set[str]] = {}
    for r in records:
        commits.setdefault(r["command"], set()).add(str(r["commit"])[:9])
    made = (f"`{command}`,{seeded} commit {', '.join(sorted(at))}" for command, at in commits.items())
    return f"From {'; '.join(made)}."


def bench(records: list[dict]) -> str:
    measured = next(r for r in records if r["id"] == "rate")
    run = f"{measured['threads']} threads, load of the machine up to {max(r['load'] for r in records):.1f}."
    return "\n".join([report.tables(records), "", f"{_source(records)} {run}"])


def pipeline(records: list[dict]) -> str:
    """A row for each method: the median over its runs, and their range where there are several."""
    rows = [
        "| method | runs | seconds in all | R-hat | smallest ESS | ESS/s | R-hat < 1.01 and ESS > 1,000 | gradients "
        "| farthest from the truth |",
        "|---" * 9 + "|",
    ]
    good = [r for r in records if "error" not in r]
    for method in dict.fromkeys(r["method"] for r in records):
        runs = [r for r in good if r["method"] == method]
        failed = [r for r in records if r["method"] == method and "error" in r]
        if runs:
            reached = sum(r["r_hat"] < 1.01 and r["ess"] > 1000 for r in runs)
            rates = [r["ess"] / r["seconds"] for r in runs]
            gradients = [r["gradients"] for r in runs]
            rows.append(
                f"| {_METHODS[method]} | {len(runs)} | {_range([r['seconds'] for r in runs], '.0f')} "
                f"| {_range([r['r_hat'] for r in runs], '.3f')} | {_range([r['ess'] for r in runs], ',.0f')} "
                f"| {_range(rates, '.1f')} | {reached} of {len(runs)} | {_range(gradients, ',.0f')} "
                f"| {_range([r['largest_z'] for r in runs], '.1f')} sigma |"
            )
        rows += [f"| {_METHODS[method]}, lens {r['lens']} | 1 | {r['error']} |" + " |" * 6 for r in failed]
    lines = [
        f"- {_METHODS[m]}: {next(r for r in good if r['method'] == m)['settings']}."
        for m in _METHODS
        if any(r["method"] == m for r in good)
    ]
    return "\n".join([*rows, "", *lines, "", _source(records)])


_METHODS = {
    "tflens": "tflens",
    "herculens": "herculens, NUTS",
    "herculens_recipe": "herculens, the recipe of tflens",
}


def _range(values: list[float], form: str) -> str:
    middle = f"{median(values):{form}}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def fits(records: list[dict]) -> str:
    """A row for each figure of calibration, a column for what was fitted with what."""
    records = [r for r in records if r["id"] != "F6"]
    variants = list(dict.fromkeys(r["variant"] for r in records))
    named = [f"{v} ({_mocks(next(r for r in records if r['variant'] == v))})" for v in variants]
    rows = [f"| id | figure | {' | '.join(named)} | reach |", "|---" * (len(variants) + 3) + "|"]
    for id, figure in dict.fromkeys((r["id"], r["figure"]) for r in records):
        found = {r["variant"]: r for r in records if (r["id"], r["figure"]) == (id, figure)}
        reach = next(iter(found.values()))["reach"]
        aim = "" if reach is None else f"{reach[0]:g}-{reach[1]:g}" if isinstance(reach, list) else f"{reach:g}"
        cells = [f"{found[v]['value']:.3g}" if v in found else "" for v in variants]
        rows.append(f"| {id} | {figure} | {' | '.join(cells)} | {aim} |")
    sources = [_source([r for r in records if r["variant"] == v]) for v in variants]
    return "\n".join([*rows, "", *sources])


def _mocks(record: dict) -> str:
    fits = record.get("fits", record["n"])
    return f"{record['n']} mocks" + (f", {fits} with fits" if fits != record["n"] else "")


def fits_gain(records: list[dict]) -> str:
    """What the flow prior is worth: for each set of mocks that was fitted with several sources, its figures side by
    side, and those of the others over those of the flow (F6)."""
    rows = [
        f"| mocks | figure | {' | '.join(_FITTED.values())} | "
        + " | ".join(f"{name} / flow" for name in list(_FITTED.values())[1:])
        + " |",
        "|---" * (2 * len(_FITTED) + 1) + "|",
    ]
    plain = [r for r in records if r["id"] != "F6"]
    for mocks, n, seed in dict.fromkeys((r["variant"].split(", fitted with ")[0], r["n"], r["seed"]) for r in plain):
        same = [r for r in plain if (r["n"], r["seed"]) == (n, seed)]
        if len({r["variant"] for r in same if r["variant"].startswith(f"{mocks}, fitted with ")}) < 2:
            continue
        for figure in _GAINS:
            found = [_of(same, figure, f"{mocks}, fitted with {name}") for name in _FITTED]
            cells = [f"{r['value']:.3g}" if r else "" for r in found]
            for name, other in zip(list(_FITTED)[1:], found[1:], strict=True):
                gained = _of(records, figure, f"{mocks}, {name} over the flow prior")
                cells.append(_gain(found[0], other, gained) if (found[0] and other and figure in _RATIOS) else "")
            rows.append(f"| {mocks}, {n} of seed {seed} | {figure} | {' | '.join(cells)} |")
    return "\n".join(rows)


# As tflens.inference.gain.NAMES and the figures of tflens.inference.calibration call them.
_FITTED = {"the flow prior": "flow", "N(0, I)": "N(0, I)", "a Sersic profile": "Sersic"}
_RATIOS = ("theta_E: median of abs(error)", "chi^2 in the arcs")
_GAINS = (
    *_RATIOS,
    "theta_E: 95th percentile of abs(error)",
    "source: rms error over the image plane",
    "failures: theta_E off by 5 %, or R-hat of the mass above 1.05",
)


def _of(records: list[dict], figure: str, variant: str) -> dict | None:
    return next((r for r in records if (r["figure"], r["variant"]) == (figure, variant)), None)


def _gain(flow: dict, other: dict, gained: dict | None) -> str:
    """With the interval over resampled lenses, where the results of every lens were at hand."""
    if gained is None:
        return f"{other['value'] / flow['value']:.2f}"
    low, high = gained["spread"]
    return f"{gained['value']:.2f} ({low:.2f}-{high:.2f})"


def profiles(records: list[dict]) -> str:
    costs = {r["variant"]: r for r in records if r["id"] == "cost"}
    rows = [
        "| profile | gives | parity: potential, deflection, convergence | cost | first call |",
        "|---|---|---|---|---|",
    ]
    for r in (r for r in records if r["id"] == "parity"):
        kind, variant = r["profile"], r["variant"]
        light = r["group"] == "light"
        gives = "brightness" if light else "potential, deflection, convergence"
        if r["gives_flux"]:
            gives += ", flux"
        parity = "no counterpart" if r["errors"] is None else ", ".join(f"{v:.0e}" for v in r["errors"].values())
        # One figure for a kind of profile, beside the first of its cases.
        cost = costs.pop(f"light.{kind}" if light else kind, None)
        figures = f"{cost['value']:.2f} | {cost['first_call_seconds']:.1f} s" if cost else "|"
        rows.append(f"| {'light: ' if light else ''}{variant} | {gives} | {parity} | {figures} |")
    chosen = [r for r in records if r["id"] in ("parity", "cost")]
    return "\n".join([*rows, "", _source(records=[r for r in chosen if r["id"] == "parity"]), _source(chosen[::-1])])


def subhalos(records: list[dict]) -> str:
    chosen = [r for r in records if r["id"] == "subhalos"]
    rows = ["| subhalos | gradient, ms (16-84 %) | first call |", "|---|---|---|"]
    for r in chosen:
        low, high = r["spread"]
        rows.append(f"| {r['variant']} | {r['value']:.1f} ({low:.1f}-{high:.1f}) | {r['first_call_seconds']:.1f} s |")
    return "\n".join([*rows, "", _source(chosen)])


def rendering(records: list[dict]) -> str:
    rows = [
        "| sampling | largest error / noise, median (5-95 %) | lenses below 1/20 | evaluations a pixel |",
        "|---|---|---|---|",
    ]
    for r in records:
        error = "{:.3f} ({:.3f}-{:.3f})".format(r["value"], *r["spread"])
        rows.append(f"| {r['variant']} | {error} | {r['reached']:.0%} | {r['evaluations']:.1f} |")
    return "\n".join([*rows, "", f"{records[0]['n']} lenses. {_source(records)}"])


SHIPPED = "galaxies/2"


def galaxies(records: list[dict]) -> str:
    chosen = [r for r in records if r["variant"] == SHIPPED and r["id"].startswith("G")]
    rows = ["| | figure | S/N | of | value | from - to | null | reach | beat | |", "|" + "---|" * 10]
    for r in chosen:
        low, high = r["spread"]
        rows.append(
            f"| {r['id']} | {NAMES[r['id']]} | {r['snr'] or '-'} | {r.get('method') or 'prior samples'} "
            f"| {r['value']:.3f} | {low:.3f} - {high:.3f} | {r['null']:.3f} | {_aim(r, 'reach')} | {_aim(r, 'beat')} "
            f"| {r['verdict'] or ''} |"
        )
    return "\n".join([*rows, "", _source(chosen)])


def galaxies_prior(records: list[dict]) -> str:
    chosen = [r for r in records if r["variant"] == SHIPPED and r["id"].startswith("L")]
    columns = {
        "C2ST": ("L1", ""),
        "sliced W1 / null": ("L2", ""),
        "nats over the full Gaussian": ("L3", "full Gaussian"),
        "nats over the best mixture": ("L3", "best mixture"),
        "IWAE over N(0, I), nats": ("L4", ""),
    }
    rows = [f"| prior | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for prior in dict.fromkeys(r["prior"] for r in chosen):
        rows.append(f"| {prior} | {' | '.join(_cell(chosen, *column, prior) for column in columns.values())} |")
    flow = [_find(chosen, *column, "flow") for column in columns.values()]
    rows.append(f"| null | {' | '.join(format(r['null'], '.3f') if r else '' for r in flow)} |")
    for aim in ("reach", "beat"):
        rows.append(f"| {aim} | {' | '.join(_aim(r, aim) if r else '' for r in flow)} |")
    snr = f"S/N {chosen[0]['snr']}, {chosen[0]['n']} galaxies. "
    return "\n".join([*rows, "", snr + _source(chosen)])


def galaxies_ablation(records: list[dict]) -> str:
    columns = {
        "G1": ("G1", "15-50", "mean of q"),
        "G2": ("G2", "15-50", "mean of q"),
        "G3": ("G3", "15-50", "mean of q"),
        "G4": ("G4", "15-50", "mean of q"),
        "G1, 100-300": ("G1", "100-300", "mean of q"),
        "G2, 100-300": ("G2", "100-300", "mean of q"),
        "G4, 100-300": ("G4", "100-300", "mean of q"),
        "G5": ("G5", "15-50", None),
        "G7": ("G7", "15-50", None),
        "G8, prior": ("G8", None, "prior samples"),
    }
    latent = {
        "C2ST of N(0, I)": ("L1", "", "N(0, I)"),
        "C2ST of the flow": ("L1", "", "flow"),
        "nats over the full Gaussian": ("L3", "full Gaussian", "flow"),
        "IWAE over N(0, I)": ("L4", "", "flow"),
    }
    rows = [f"| row | {' | '.join([*columns, *latent])} |", "|" + "---|" * (len(columns) + len(latent) + 1)]
    variants = sorted({r["variant"] for r in records if r["variant"] != SHIPPED})
    for variant in variants:
        chosen = [r for r in records if r["variant"] == variant]
        cells = []
        for id, snr, method in columns.values():
            keys = {"id": id, "snr": snr, "method": method}
            found = next((r for r in chosen if {key: r.get(key) for key in keys} == keys), None)
            cells.append(f"{found['value']:.3f}" if found else "")
        with_prior = [r for r in chosen if "prior" in r]
        cells += [_cell(with_prior, *key) for key in latent.values()]
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    chosen = [r for r in records if r["variant"] in variants]
    if not variants:
        return "Not measured yet."
    command = f"python scripts/ablate.py {' '.join(variants)}"
    return "\n".join([*rows, "", _source([{**record, "command": command} for record in chosen])])


def galaxies_real(records: list[dict]) -> str:
    (chosen,) = [r for r in records if r["variant"] == SHIPPED and r["id"] == "real"]
    values = sorted(chosen["galaxies"].values())
    limits = (1.05, 1.1, 1.15, 1.3, 1.5, 2.0)
    rows = [f"| chi^2 below | {' | '.join(map(str, limits))} | median | largest |", "|" + "---|" * (len(limits) + 3)]
    shares = [f"{sum(value < limit for value in values) / len(values):.0%}" for limit in limits]
    rows.append(f"| of {len(values)} galaxies | {' | '.join(shares)} | {chosen['median']:.3f} | {values[-1]:.2f} |")
    return "\n".join([*rows, "", _source([chosen])])


def newton_steps(records: list[dict]) -> str:
    columns = {
        "G2, S/N 15-50": ("G2", "15-50"),
        "G4, S/N 15-50": ("G4", "15-50"),
        "G2, S/N 100-300": ("G2", "100-300"),
        "G4, S/N 100-300": ("G4", "100-300"),
        "-log p of draws under the flow, nats, S/N 100-300": ("flow_nll", "100-300"),
    }
    values = {(r["newton_steps"], r["id"], r["snr"]): r["value"] for r in records if r["variant"] == SHIPPED}
    rows = [f"| steps | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for steps in sorted({steps for steps, _, _ in values}):
        cells = (f"{values[steps, id, snr]:.{1 if id == 'flow_nll' else 3}f}" for id, snr in columns.values())
        rows.append(f"| {steps} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"{records[0]['n']} validation galaxies. {_source(records)}"])


def ssim_loss(records: list[dict]) -> str:
    columns = "| S/N | pixels from the middle | of all windows | of all loss | level's error / peak | noise / peak |"
    rows = [columns, "|" + "---|" * 6]
    for r in records:
        shares = f"{r['windows']:.0%} | {r['value']:.0%}"
        ring = "-".join(map(str, r["ring"]))
        rows.append(f"| {r['snr']} | {ring} | {shares} | {r['level_error']:.4f} | {r['noise']:.4f} |")
    return "\n".join([*rows, "", f"{records[0]['n']} validation galaxies. {_source(records)}"])


def serving(records: list[dict]) -> str:
    """A row for each signature: milliseconds and requests a second, by the number of clients."""
    counts = list(dict.fromkeys(r["clients"] for r in records))
    heads = [f"{n} client{'s' if n > 1 else ''}: ms (5-95 %), requests/s" for n in counts]
    rows = [f"| signature | {' | '.join(heads)} |", "|" + "---|" * (len(counts) + 1)]
    for name in dict.fromkeys((r["model"], r["signature"]) for r in records):
        found = {r["clients"]: r for r in records if (r["model"], r["signature"]) == name}
        cells = []
        for n in counts:
            low, high = found[n]["spread"]
            cells.append(f"{found[n]['value']:.1f} ({low:.1f}-{high:.1f}), {found[n]['rate']:.0f}")
        rows.append(f"| {name[0]}: `{name[1]}` | {' | '.join(cells)} |")
    load = max(r["load"] for r in records)
    about = f"Clients and server share {records[0]['cores']} cores; load of the machine before, at most {load:.1f}."
    return "\n".join([*rows, "", f"Requests of one row each. {about} {_source(records)}"])


def _find(records: list[dict], id: str, over: str, prior: str) -> dict | None:
    chosen = (r for r in records if r["id"] == id and r["prior"] == prior and r.get("over", "").startswith(over))
    return next(chosen, None)


def _cell(records: list[dict], id: str, over: str, prior: str) -> str:
    record = _find(records, id, over, prior)
    return "" if record is None else f"{record['value']:.3f}"


def _aim(record: dict, name: str) -> str:
    return str(getattr(target, name)) if (target := _target(record)) else ""


def starter(records: list[dict]) -> str:
    """Searches that begin broadly, and at the network's guesses, side by side."""
    efforts = list(dict.fromkeys(r["effort"] for r in records))
    rows = [f"| {records[0]['n']} mocks | {' | '.join(efforts)} |", "|---" * (len(efforts) + 1) + "|"]
    for figure in dict.fromkeys(r["figure"] for r in records):
        value = {r["effort"]: r["value"] for r in records if r["figure"] == figure}
        rows.append(f"| {figure} | {' | '.join(f'{value[effort]:.3g}' for effort in efforts)} |")
    return "\n".join([*rows, "", _source(records)])


def bad_input(records: list[dict]) -> str:
    """A row for each case: what is given, what is called with it, what is said."""
    chosen = [r for r in records if r["id"] == "input"]
    rows = [f"{len(chosen)} cases.", "", "| | given | called | told |", "|---|---|---|---|"]
    for r in chosen:
        rows.append(f"| {r['group']} | {_cell_text(r['variant'])} | `{r['called']}` | {_cell_text(r['told'])} |")
    return "\n".join([*rows, "", _source(chosen)])


def _cell_text(text: str) -> str:
    """Words for a cell: what a page would take for a mark is none, and long ones end early."""
    text = " ".join(text.split())
    text = text if len(text) <= 360 else f"{text[:357]}..."
    return re.sub(r"([\\|<>*_\[\]{}])", r"\\\1", text)


def fuzz(records: list[dict]) -> str:
    chosen = [r for r in records if r["id"] == "fuzz"]
    rows = ["| reader | executions | seconds | findings |", "|---|---|---|---|"]
    rows += [f"| {r['variant']} | {r['n']:,} | {r['seconds']:,.0f} | {r['value']} |" for r in chosen]
    total = sum(r["n"] for r in chosen), sum(r["seconds"] for r in chosen), sum(r["value"] for r in chosen)
    rows.append(f"| all | {total[0]:,} | {total[1]:,.0f} | {total[2]} |")
    return "\n".join([*rows, "", _source(chosen)])


def scale_throughput(records: list[dict]) -> str:
    """Lenses a second against workers."""
    chosen = [r for r in records if r["id"].startswith("scale throughput")]
    counts = sorted({r["workers"] for r in chosen})
    rows = [f"| lenses/s | {' | '.join(_workers(n) for n in counts)} |", "|---" * (len(counts) + 1) + "|"]
    for variant in dict.fromkeys(r["variant"] for r in chosen):
        found = {r["workers"]: r for r in chosen if r["variant"] == variant}
        cells = (f"{found[n]['value']:.2f}" if n in found else "" for n in counts)
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join([*rows, "", _source(chosen)])


def _workers(n: int) -> str:
    return "1 worker" if n == 1 else f"{n} workers"


def scale_memory(records: list[dict]) -> str:
    """Resident memory against lenses."""
    chosen = [r for r in records if r["id"].startswith("scale memory")]
    rows = [
        "| | lenses | driver, MB | its growth after the first tenth, MB | largest worker, MB | lenses/s |",
        "|---" * 6 + "|",
    ]
    for r in sorted(chosen, key=lambda r: (r["variant"].split(",")[0], r["n"])):
        rows.append(
            f"| {r['variant']} | {r['n']:,} | {r['value']:.0f} | {r['growth']:.1f} | {_worker_memory(r)} "
            f"| {r['n'] / r['seconds']:.1f} |"
        )
    return "\n".join([*rows, "", _source(chosen)])


def _worker_memory(record: dict) -> str:
    """Nothing where all workers had ended before one looked."""
    return f"{record['workers']:.0f}" if record["workers"] else ""


def costs(records: list[dict]) -> str:
    """Days of 100,000 lenses, fit by fit and machine by machine."""
    machines = list(dict.fromkeys(r["machine"] for r in records))
    rows = [f"| {records[0]['n']:,} lenses | s a lens, measured | {' | '.join(machines)} |"]
    rows.append("|---" * (len(machines) + 2) + "|")
    for variant in dict.fromkeys(r["variant"] for r in records):
        found = {r["machine"]: r for r in records if r["variant"] == variant}
        seconds = next(iter(found.values()))["seconds"]
        rows.append(f"| {variant} | {seconds:.0f} | {' | '.join(_days(found[m]) for m in machines)} |")
    return "\n".join([*rows, "", f"Computed, not measured. {_source(records)}"])


def _days(record: dict) -> str:
    values = record["spread"] or [record["value"]]
    unit, size = ("days", 24) if max(values) >= 48 else ("hours", 1)
    return "-".join(f"{value / size:,.1f}" for value in values) + f" {unit}"


def soak(records: list[dict]) -> str:
    """Kills, full disks: how often, and what was lost."""
    rows = ["| | times | lost, doubled or half-written |", "|---|---|---|"]
    rows += [f"| {r['variant']} | {r['n']} | {r['value']} |" for r in records]
    return "\n".join([*rows, "", _source(records)])


def saved_fit(records: list[dict]) -> str:
    """Seconds of a fit in a SavedModel."""
    rows = ["| | s | R-hat | chi^2 |", "|---|---|---|---|"]
    for r in records:
        found = f"{r['r_hat']:.1f} | {r['chi2']:.2f}" if "r_hat" in r else " | "
        rows.append(f"| {r['variant']} | {r['value']:.0f} | {found} |")
    return "\n".join(
        [*rows, "", f"Exported with `{records[0]['settings']}`, {records[0]['cores']} cores. {_source(records)}"]
    )


def precision(records: list[dict]) -> str:
    """Posteriors of float32 beside those of float64."""
    fits = [r for r in records if r["id"] == "chains"]
    rows = [
        "| | difference of the means, in its Monte Carlo error | in posterior sigma | sigma, float32 / float64 |",
        "|---" * 4 + "|",
    ]
    rows += [
        f"| {r['variant']} | {r['value']:+.1f} | {r['sigma']:+.3f} | {r['widths']:.3f} |"
        for r in records
        if r not in fits
    ]
    chains = [f"{r['variant']}: R-hat {r['value']:.3f}, smallest ESS {r['ess']:.0f}." for r in fits]
    return "\n".join([*rows, "", " ".join([*chains, _source(records)])])


def couplings(records: list[dict]) -> str:
    """Sampling with smooth pixels and learned coordinates beside sampling without."""
    rows = [
        "| mock | pixels | coordinates learned | R-hat of the mass, worst of all | smallest ESS of the mass, of all "
        "| median ESS | leapfrog steps a transition | gradients in all |",
        "|---" * 8 + "|",
    ]
    for r in sorted(records, key=lambda r: (int(r["variant"].split()[1]), r["pixels"], r["learned"])):
        cells = (
            r["variant"].split()[1],
            r["pixels"],
            r["learned"],
            f"{r['r_hat_mass']:.2f}, {r['r_hat']:.2f}",
            f"{r['mass']:.0f}, {r['value']:.0f}",
            f"{r['median']:.0f}",
            f"{r['leapfrog_steps']:.0f}",
            f"{r['gradients']:,}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", f"Of {records[0]['n']:,} draws each. {_source(records)}"])


def rounding(records: list[dict]) -> str:
    """What float32's rounding does to a posterior."""
    (density,) = [r for r in records if r["variant"] == "log posterior"]
    moved = [r for r in records if r is not density]
    farthest = max(moved, key=lambda r: abs(r["value"]))
    facts = {
        "draws": f"{density['n']:,}",
        "rounding of the log posterior, standard deviation": f"{density['value']:.2g}",
        "it moves a mean by at most": f"{farthest['value']:+.1g} sigma ({farthest['variant']})",
        "it changes a sigma by at most": f"{max(abs(r['widths'] - 1) for r in moved):.1g} of itself",
    }
    return _facts(facts, records)


def long_chain(records: list[dict]) -> str:
    """First and second halves of long chains."""
    chosen = [r for r in records if r["id"] == "drift"]
    (value,) = [r for r in records if r["id"] == "drift of the value"]
    farthest = max(chosen, key=lambda r: abs(r["value"]))
    widths = [r["widths"] for r in chosen]
    facts = {
        "draws of each chain": f"{value['n']:,}",
        "coordinates, and the log posterior": len(chosen),
        "largest difference of the halves' means, in its Monte Carlo error": f"{farthest['value']:+.1f} "
        f"({farthest['variant']})",
        "the same in posterior sigma": f"{farthest['sigma']:+.3f}",
        "sigma of the first half / of the second": f"{min(widths):.3f} to {max(widths):.3f}",
        "largest difference of a log posterior that the chain kept and one computed anew": f"{value['value']:.2g}",
    }
    return _facts(facts, records)


def many_fits(records: list[dict]) -> str:
    """Memory and traces of many fits in one process."""
    memory, graphs = (next(r for r in records if r["variant"] == name) for name in ("memory", "graphs traced"))
    facts = {
        "fits in one process": f"{memory['n']:,}",
        "graphs traced": graphs["first"] + graphs["value"],
        "the last of them by fit": memory["warm"],
        "seconds a fit from there on": f"{graphs['seconds_a_fit']:.2f}",
        "memory there, MB": f"{memory['first']:.0f}",
        "its growth until the last fit, MB": f"{memory['value']:+.0f}",
        "straight line through it, MB a fit": f"{memory['slope']:+.3f}",
    }
    return _facts(facts, records)


def _facts(facts: dict[str, object], records: list[dict]) -> str:
    rows = [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows, "", _source(records)])


def _target(record: dict) -> Target | None:
    if record["reach"] is None:
        return None
    snr = record["snr"] and float(record["snr"].split("-")[0])
    return target_of(record["id"], snr, record.get("over", ""))


CARD = f"saved_models/{SHIPPED}/README.md"

# Marker: documents, results, and what makes the table of them.
TABLES = {
    "real_lenses": (("README.md",), "real_lenses", real_lenses),
    "demo": (("README.md",), "demo", demo),
    "bench": (("docs/benchmark.md",), "bench", bench),
    "pipeline": (("docs/benchmark.md",), "pipeline", pipeline),
    "fits": (("docs/fits.md",), "fits", fits),
    "fits_gain": (("docs/fits.md",), "fits", fits_gain),
    "starter": (("docs/fits.md",), "starter", starter),
    "couplings": (("docs/fits.md",), "couplings", couplings),
    "profiles": (("docs/physics.md",), "profiles", profiles),
    "subhalos": (("docs/physics.md",), "profiles", subhalos),
    "galaxies": (("docs/galaxies.md", CARD), "galaxies", galaxies),
    "galaxies_prior": (("docs/galaxies.md", CARD), "galaxies", galaxies_prior),
    "galaxies_ablation": (("docs/galaxies.md",), "galaxies", galaxies_ablation),
    "galaxies_real": (("docs/galaxies.md", CARD), "galaxies", galaxies_real),
    "ssim_loss": (("docs/galaxies.md",), "ssim_loss", ssim_loss),
    "newton_steps": (("docs/galaxies.md",), "newton_steps", newton_steps),
    "rendering": (("docs/physics.md",), "rendering", rendering),
    "serving": (("docs/serving.md",), "serving", serving),
    "saved_fit": (("docs/serving.md",), "saved_fit", saved_fit),
    "bad_input": (("docs/reliability.md",), "reliability", bad_input),
    "fuzz": (("docs/reliability.md",), "reliability", fuzz),
    "scale_throughput": (("docs/scale.md",), "scale", scale_throughput),
    "scale_memory": (("docs/scale.md",), "scale", scale_memory),
    "costs": (("docs/scale.md",), "costs", costs),
    "soak": (("docs/soak.md",), "soak", soak),
    "precision": (("docs/numerics.md",), "precision", precision),
    "rounding": (("docs/numerics.md",), "rounding", rounding),
    "long_chain": (("docs/numerics.md",), "long_chain", long_chain),
    "many_fits": (("docs/numerics.md",), "many_fits", many_fits),
}


def main() -> None:
    for name, (documents, file, table) in TABLES.items():
        results = ROOT / "docs" / "results" / f"{file}.json"
        if not results.exists():
            print(f"{', '.join(documents)}: no {results.relative_to(ROOT)} yet, the table {name} stays as it is")
            continue
        written = table(json.loads(results.read_text()))
        for document in documents:
            _replace(ROOT / document, name, written)


def _replace(path: Path, name: str, table: str) -> None:
    text = path.read_text()
    match = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL).search(text)
    if match is None:
        raise SystemExit(f"{path}: the markers of the table {name!r} are missing")
    text = f"{text[: match.end(1)]}{table}\n{text[match.start(2) :]}"
    write_atomically(path, lambda file: file.write_text(text))


if __name__ == "__main__":
    main()
