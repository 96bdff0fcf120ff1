"""Write the tables of README.md from `docs/results/*.json`, so that no figure in it is typed by hand.

python scripts/update_tables.py          # rewrites what stands between the markers `<!-- NAME -->`, `<!-- end -->`
"""

import json
import re
from pathlib import Path

from tflens.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]


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


def main() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    for name, table in {"real_lenses": real_lenses, "demo": demo}.items():
        records = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        match = marked.search(text)
        if match is None:
            raise SystemExit(f"{path}: the markers of the table {name!r} are missing")
        text = f"{text[: match.end(1)]}{table(records)}\n{text[match.start(2) :]}"
    write_atomically(path, lambda file: file.write_text(text))


if __name__ == "__main__":
    main()
