"""Train every row of the ablation, `scripts/ablation/*.toml`, and measure them side by side.

Each training and the measurement are processes of their own. What has been trained already stays as it is, so that a
run that was killed goes on; and a stage that another row has trained with the same settings is taken over from it.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tflens.galaxies.recipe import read_config

ROOT = Path(__file__).resolve().parents[1]
# What a stage of the training does not depend on.
_AFTER_FLOW = {"joint_training"}
_AFTER_VAE = {"flow", "flow_training", "condition", *_AFTER_FLOW}


def main() -> None:
    rows = sorted(path.stem for path in (ROOT / "scripts/ablation").glob("*.toml") if path.stem != "base")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(rows)}; all if none is given")
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="a dataset (`tflens data`)")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/ablation", help="trainings and figures")
    parser.add_argument("--records", type=Path, default=ROOT / "docs/results/galaxies.json")
    parser.add_argument("--galaxies", type=int, default=1000, help="held-out galaxies, and samples of the prior")
    arguments = parser.parse_args()
    for row in arguments.rows:
        if row not in rows:
            parser.error(f"no row {row!r}; there are {', '.join(rows)}")
    for row in arguments.rows or rows:
        run, model = arguments.run / row / "training", arguments.run / row / "model"
        config = ROOT / f"scripts/ablation/{row}.toml"
        if not (model / "training.json").exists():
            _take_over(arguments.run, run, config)
            train = ["-m", "tflens", "train", "galaxies", "--config", config, "--data", arguments.data]
            _call([*train, "--run", run, "--out", model])
        named = f"{row}={_in_project(model)}"
        measure = ["-m", "tflens", "evaluate", "galaxies", "--variant", named, "--data", arguments.data]
        limits = ["--galaxies", arguments.galaxies, "--optimised", 64, "--latent-seeds", 2, "--iwae-galaxies", 200]
        cache = ["--cache", ROOT / "cache/morphology"]
        _call([*measure, *limits, *cache, "--records", arguments.records, "--out", arguments.run / row / "figures"])


def _take_over(runs: Path, run: Path, config: Path) -> None:
    """Copy the stages that finished rows have trained from the same settings, so that they are not trained twice."""
    for stage, others in {"vae": _AFTER_VAE, "flow": _AFTER_FLOW}.items():
        for row in sorted(runs.iterdir()) if runs.exists() and not (run / stage).exists() else []:
            theirs = row / "training/config.json"
            if (row / "model/training.json").exists() and (
                _without(json.loads(theirs.read_text()), others) == _without(read_config(config), others)
            ):
                shutil.copytree(row / "training" / stage, run / stage)
                break


def _without(config: dict[str, Any], tables: set[str]) -> dict[str, Any]:
    return {name: table for name, table in config.items() if name not in tables}


def _call(arguments: list) -> None:
    # In the project's folder, so that records name what is in it the same way everywhere.
    words = [_in_project(each) if isinstance(each, Path) else str(each) for each in arguments]
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)


def _in_project(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    main()
