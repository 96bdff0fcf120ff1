"""Write the tables of README.md and docs/ from `docs/results/*.json`, so that no figure in it is typed by hand.

python scripts/update_tables.py          # rewrites what stands between the markers `<!-- NAME -->`, `<!-- end -->`
"""

import json
import re
import sys
from pathlib import Path

from tflens.files import write_atomically

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
    commits = ", ".join(sorted({str(r["commit"])[:9] for r in records}))
    seeds = ", ".join(sorted({str(r["seed"]) for r in records}))
    return f"From `{records[0]['command']}`, seed {seeds}, commit {commits}."


def bench(records: list[dict]) -> str:
    measured = next(r for r in records if r["id"] == "rate")
    run = f"{measured['threads']} threads, load of the machine up to {max(r['load'] for r in records):.1f}."
    return "\n".join([report.tables(records), "", f"{_source(records)} {run}"])


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


# Marker: document, results, and what makes the table of them.
TABLES = {
    "real_lenses": ("README.md", "real_lenses", real_lenses),
    "demo": ("README.md", "demo", demo),
    "bench": ("docs/benchmark.md", "bench", bench),
    "profiles": ("docs/physics.md", "profiles", profiles),
    "subhalos": ("docs/physics.md", "profiles", subhalos),
    "rendering": ("docs/physics.md", "rendering", rendering),
}


def main() -> None:
    for name, (document, file, table) in TABLES.items():
        path, results = ROOT / document, ROOT / "docs" / "results" / f"{file}.json"
        if not results.exists():
            print(f"{path.name}: no {results.relative_to(ROOT)} yet, its table stays as it is")
            continue
        text = path.read_text()
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        match = marked.search(text)
        if match is None:
            raise SystemExit(f"{path}: the markers of the table {name!r} are missing")
        text = f"{text[: match.end(1)]}{table(json.loads(results.read_text()))}\n{text[match.start(2) :]}"
        write_atomically(path, lambda file, text=text: file.write_text(text))


if __name__ == "__main__":
    main()
