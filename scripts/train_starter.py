"""Trains the amortised start (`tflens.inference.starter`) and measures its guesses.

    python scripts/train_starter.py --out runs/starter --steps 4000

A killed run goes on where its last checkpoint was written; watch it with `tensorboard --logdir runs/starter`.
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/starter"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    from tflens.inference.starter_training import measure, train, write_measured

    tell = lambda step, loss: print(f"step {step} of {arguments.steps}: {loss:.3f} nats a parameter", flush=True)  # noqa: E731
    starter = train(arguments.out, arguments.steps, arguments.seed, tell=tell)
    rows = measure(starter)
    write_measured(rows, arguments.out)
    for row in rows:
        print(f"{row['name']:20} explained {row['explained']:6.1%}  z {row['z_std']:.2f}")
    print(f"theta_E: median error {rows[0]['error']:.1%}")


if __name__ == "__main__":
    main()
