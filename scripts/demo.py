"""The demo: fits the lens in `examples/demo`, prints truth against fit, writes the figures to `demo_output`.

The same code as `tflens fit`; only the truth is added. `make demo` calls it. With `--record`, the
comparison of the last run goes to `docs/results/demo.json`, from which the README's table is made.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tflens.config import Input, RunConfig
from tflens.files import write_atomically
from tflens.quiet import import_tensorflow_quietly
from tflens.run import execute, prepare
from tflens.terminal import print_findings, result_table, showing_progress

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "demo_output"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="fit nothing: record what the last run wrote")
    if parser.parse_args().record:
        record(OUT)
        return
    truth = read_truth()
    messages, results = Console(stderr=True), Console()
    if not results.is_terminal:
        results = Console(width=120)
    config = RunConfig(input=Input(file=str(ROOT / "examples" / "demo" / "lens.fits")))
    job = prepare(config, OUT, overwrite=True)
    messages.print(f"fitting {job.observation!r}: a lens with theta_E = {truth['lens.theta_E']}, started blind")
    with showing_progress(messages) as monitor:
        import_tensorflow_quietly()
        fit = execute(job, monitor=monitor)

    from tflens.plotting import corner_figure

    figure = corner_figure(fit.posterior, truth)
    write_atomically(OUT / "corner.png", lambda path: figure.savefig(path))
    results.print(result_table(fit))
    print_findings(fit.check(), results)
    rows = {row.name: row for row in fit.posterior.table()}
    table = Table(title="truth against fit", title_justify="left")
    for heading in ("parameter", "truth", "median", "95 % interval", "truth inside"):
        table.add_column(heading, justify="left" if heading == "parameter" else "right", no_wrap=True)
    outside = 0
    for name, value in truth.items():
        row = rows[name]
        inside = row.low95 <= value <= row.high95
        outside += not inside
        interval = f"{row.low95:.4f} to {row.high95:.4f}"
        table.add_row(name, f"{value:.4f}", f"{row.median:.4f}", interval, "yes" if inside else "NO")
    results.print(table)
    error = rows["lens.theta_E"].median / truth["lens.theta_E"] - 1
    results.print(
        f"theta_E: {error:+.2%} from the truth; {len(truth) - outside} of {len(truth)} mass parameters have the truth "
        f"in their 95 % interval; {sum(fit.seconds.values()):.0f} s. Figures: {OUT.name}/fit.png and corner.png",
        highlight=False,
        soft_wrap=True,
    )


def read_truth() -> dict[str, float]:
    return json.loads((ROOT / "examples" / "demo" / "truth.json").read_text())["parameters"]


def record(folder: Path) -> None:
    """Writes `docs/results/demo.json` from the files of a finished run."""
    summary = json.loads((folder / "summary.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    records = []
    for name, value in read_truth().items():
        row = summary["parameters"][name]
        records.append(
            {
                "id": "F1" if name == "lens.theta_E" else name,
                "variant": name,
                "value": row["median"],
                "spread": [row["low95"], row["high95"]],
                "truth": value,
                "r_hat": row["r_hat"],
                "max_r_hat": summary["diagnostics"]["max_r_hat"],
                "chi2_arcs": summary["diagnostics"]["chi2_arcs"],
                "reach": 0.005 if name == "lens.theta_E" else None,
                "seed": config["settings"]["seed"],
                "command": "make demo",
                "commit": config["commit"],
            }
        )
    path = ROOT / "docs" / "results" / "demo.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(json.dumps(records, indent=2) + "\n"))


if __name__ == "__main__":
    main()
