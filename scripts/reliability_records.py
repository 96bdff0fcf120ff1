"""The records of docs/results/reliability.json: what bad input is told, and what the fuzzer did.

python scripts/reliability_records.py            # gives every case of tests/bad_input.py to the package, keeps messages

`scripts/fuzz.py --record` keeps its own through `record_fuzzing`.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "reliability.json"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tflens.measured import keep_records  # noqa: E402
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
    keep_records(RESULTS, records, by=["id"])
    print(f"{len(records)} cases are refused as they should be")


def record_fuzzing(found: dict[str, tuple[int, float, int]], seed: int, options: str) -> None:
    """Keeps executions, seconds and findings of each reader.

    Args:
        found: by reader.
        seed: of the run.
        options: of `scripts/fuzz.py`, beside the number of runs.
    """
    command = f"make fuzz FUZZ_RUNS={sum(runs for runs, _, _ in found.values())}"
    command += f' FUZZ="{options}"' if options else ""
    about = {"seed": seed, "command": command, "commit": commit()}
    keep_records(
        RESULTS,
        [
            {"id": "fuzz", "variant": name, "value": findings, "n": runs, "seconds": round(seconds, 1)} | about
            for name, (runs, seconds, findings) in found.items()
        ],
    )


if __name__ == "__main__":
    main()
