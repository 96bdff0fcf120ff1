"""Compare every profile with lenstronomy: the largest relative differences in float64 over random draws.

The cases and the conversions of conventions are those of the tests; profiles without a counterpart stand there too.
"""

import argparse
import json
import sys
from pathlib import Path

from tflens.quiet import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=50, help="draws of every profile (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/profiles.json", help="default: %(default)s")
    arguments = parser.parse_args()
    import_tensorflow_quietly()
    from tflens.files import write_atomically

    records = measure(arguments.draws, arguments.seed)
    # Other commands keep their records of the same profiles in the same file.
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    kept = [record for record in kept if record["id"] != "parity"]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, lambda file: file.write_text(json.dumps(kept + records, indent=1) + "\n"))
    for r in records:
        figures = "no counterpart" if r["value"] is None else ", ".join(f"{k} {v:.0e}" for k, v in r["errors"].items())
        print(f"{r['variant']:<34} {figures}")


def measure(draws: int, seed: int) -> list[dict]:
    """One record "parity" for each case; its value is the largest of its errors."""
    import light_cases
    import mass_cases
    from mass_case import parity

    from tflens.light import LightProfile
    from tflens.run import commit, versions

    def gives_flux(kind: type) -> bool:
        return issubclass(kind, LightProfile) and kind.flux is not LightProfile.flux

    shared = {
        "id": "parity",
        "spread": None,
        "null": None,
        "n": draws,
        "seed": seed,
        "reach": 1e-10,
        "beat": None,
        "command": "python scripts/profile_parity.py",
        "commit": commit(),
        "versions": versions(),
    }

    def record(group: str, variant: str, profile: object, errors: dict[str, float] | None) -> dict:
        value = None if errors is None else max(errors.values())
        kind = type(profile)
        own = {"errors": errors, "group": group, "profile": kind.__name__, "gives_flux": gives_flux(kind)}
        return {"variant": variant, "value": value, **own, **shared}

    mass = [
        record("mass", name, case.exact, None if case.lenstronomy is None else parity(case, draws, seed))
        for name, case in mass_cases.CASES.items()
    ]
    light = [
        record(
            "light",
            name,
            case.profile,
            None if case.reference is None else {"brightness": light_cases.parity(case, draws, seed)},
        )
        for name, case in light_cases.CASES.items()
    ]
    return mass + light


if __name__ == "__main__":
    main()
