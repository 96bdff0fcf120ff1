"""The records of docs/results/reliability.json: what bad input is told, and what the fuzzer did.

python scripts/reliability_records.py            # gives every case of tests/bad_input.py to the package, keeps messages

`scripts/fuzz.py --record` keeps its own through `record_fuzzing`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "reliability.json"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tflens.files import write_atomically  # noqa: E402
from tflens.run import commit  # noqa: E402


def main() -> None:
    from bad_input import CASES, message_of

    from tflens.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    command = "python scripts/reliability_records.py"
    about = {"n": len(CASES), "seed": 0, "command": command, "commit": commit()}
    records = []
    for case in CASES:
        told = message_of(case)
        records.append(
            {"id": "input", "variant": case.name, "value": 1, "group": case.group, "called": case.called, "told": told}
            | about
        )
    keep("input", records)
    print(f"{len(records)} cases are refused as they should be")


def record_fuzzing(found: dict[str, tuple[int, float, int]], seed: int) -> None:
    """Keeps executions, seconds and findings of each reader.

    Args:
        found: by reader.
        seed: of the run.
    """
    command = f"make fuzz FUZZ_RUNS={sum(runs for runs, _, _ in found.values())}"
    about = {"seed": seed, "command": command, "commit": commit()}
    keep(
        "fuzz",
        [
            {"id": "fuzz", "variant": name, "value": findings, "n": runs, "seconds": round(seconds, 1)} | about
            for name, (runs, seconds, findings) in found.items()
        ],
    )


def keep(id: str, records: Sequence[dict[str, Any]]) -> None:
    """Puts records in the place of those of the same id; others, which other commands wrote, stay."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [record for record in kept if record["id"] != id] + list(records)
    write_atomically(RESULTS, lambda path: path.write_text(json.dumps(kept, indent=2) + "\n"))


if __name__ == "__main__":
    main()
