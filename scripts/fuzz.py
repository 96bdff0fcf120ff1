"""Feed the readers of FITS files, configurations and model files with damaged files, guided by what code they reach.

python scripts/fuzz.py --runs 1000000            # all of them; `make fuzz FUZZ_RUNS=...` installs what it needs first
python scripts/fuzz.py --only fits --runs 1000
python scripts/fuzz.py --record                  # and puts the figures into docs/results/reliability.json

Any exception other than the package's own, a call of more than 30 s, or more than 4 GB of memory is a finding: the run
of that reader ends, and the file that did it is kept in build/fuzz/. Exit code 1 then.
"""

import argparse
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

SHARES = {"fits": 0.05, "config": 0.9, "model": 0.05}
"""Of all executions: one of a FITS file or a model takes as long as ten and more of a configuration."""

LIMITS = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=65536", "-print_final_stats=1", "-verbosity=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1_000_000, help="executions in all")
    parser.add_argument("--only", choices=SHARES, help="one reader, with all the executions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="write docs/results/reliability.json")
    parser.add_argument("--inside", choices=SHARES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        _fuzz(given.inside, given.runs, given.seed)
        return
    shares = {given.only: 1.0} if given.only else SHARES
    found = {name: _in_process(name, max(1, round(share * given.runs)), given.seed) for name, share in shares.items()}
    if given.record:
        from reliability_records import record_fuzzing

        record_fuzzing(found, given.seed, f"--only {given.only}" if given.only else "")
    if any(findings for _, _, findings in found.values()):
        sys.exit(1)


def _in_process(name: str, runs: int, seed: int) -> tuple[int, float, int]:
    """Executions, seconds and findings of one reader: libFuzzer ends its process when it is done, or has found one."""
    folder = ROOT / "build" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    print(f"{name}: {runs:,} executions; see {log.relative_to(ROOT)}", flush=True)
    start = time.monotonic()
    with log.open("w") as file:
        command = [sys.executable, __file__, "--inside", name, "--runs", str(runs), "--seed", str(seed)]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder, check=False).returncode
    seconds = time.monotonic() - start
    text = log.read_text(errors="replace")
    done = [int(n) for n in re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)]
    executions = done[-1] if done else 0
    print(f"{name}: {executions:,} executions in {seconds:.0f} s, {'no finding' if code == 0 else 'A FINDING'}")
    if code:
        print("\n".join(text.splitlines()[-40:]))
    return executions, seconds, int(code != 0)


def _fuzz(name: str, runs: int, seed: int) -> None:
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("fuzzing needs atheris: pip install 'tflens[fuzz]'")
    from fuzz_mutations import mutated

    if name == "model":
        from tflens.quiet import import_tensorflow_quietly

        import_tensorflow_quietly()
    with atheris.instrument_imports(include=["tflens", "tomllib"]):
        from fuzz_targets import TARGETS

        if name == "model":
            import tflens.model_file  # noqa: F401 (its target imports it when it is called, too late to be watched)
    target = TARGETS[name]
    seeds = target.seeds()
    corpus = Path("corpus")
    corpus.mkdir(exist_ok=True)
    for i, content in enumerate(seeds):
        (corpus / f"seed{i}").write_bytes(content)

    def mutate(content: bytes, largest: int, number: int) -> bytes:
        """Now libFuzzer's own kinds of damage, now those that know the format."""
        if number % 3 == 0:
            return atheris.Mutate(content, largest)
        rng = random.Random(number)
        if number % 30 == 1:
            content = rng.choice(seeds)
        return mutated(bytes(content), rng, target.binary, seeds)[:largest]

    arguments = [sys.argv[0], *LIMITS, f"-runs={runs}", f"-seed={seed}", str(corpus)]
    atheris.Setup(arguments, lambda content: target(content) and None, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
