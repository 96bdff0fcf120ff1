"""Latency of the server: seconds from a request to its answer over a socket, by signature and number of clients.

Exports the shipped galaxies and a lens of 52 x 54 pixels, starts `tflens serve` on them, and asks with clients each of
which waits for an answer before it asks again.

python scripts/bench_serving.py                 # writes docs/results/serving.json
python scripts/update_tables.py                 # and the table of docs/serving.md from it
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from tflens.run import commit
from tflens.serving.warmup import WARM_UP, read_warm_up

ROOT = Path(__file__).resolve().parents[1]
SIGNATURES = (
    ("galaxies", "decode"),
    ("galaxies", "encode"),
    ("galaxies", "log_prior"),
    ("galaxies", "sample_prior"),
    ("lens", "simulate"),
    ("lens", "log_prob"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=64, help="for each figure (default: %(default)s)")
    parser.add_argument("--clients", default="1,8,64", help="at the same time (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/serving.json")
    arguments = parser.parse_args()
    counts = [int(each) for each in arguments.clients.split(",")]
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        export(models)
        process = subprocess.Popen(
            [*TFLENS, "serve", name, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            cases = [(*each, clients) for each in SIGNATURES for clients in counts]
            records = [
                measure(port, models, model, signature, clients, arguments.requests)
                for model, signature, clients in track(cases, "figures", disable=not sys.stderr.isatty())
            ]
        finally:
            process.terminate()
            process.wait()
    command = f"python scripts/bench_serving.py {' '.join(sys.argv[1:])}".strip()
    about = {"command": command, "commit": commit(), "seed": 0, "cores": len(os.sched_getaffinity(0))}
    arguments.out.write_text(json.dumps([record | about for record in records], indent=1) + "\n")
    print(f"-> {arguments.out}")


TFLENS = [sys.executable, "-c", "from tflens.cli import main; main()"]


def export(folder: Path) -> None:
    grid = ["--shape", "52,54", "--pixel-scale", "0.1", "--psf-fwhm", "0.16"]
    for options in (["galaxies"], ["lens", *grid]):
        subprocess.run([*TFLENS, "export", *options, "--out", str(folder)], check=True, capture_output=True)


def measure(port: int, models: Path, model: str, signature: str, clients: int, requests: int) -> dict[str, Any]:
    """Milliseconds of single requests, each of one row, and how many are answered in a second."""
    (version,) = (models / model).iterdir()
    inputs = dict(read_warm_up(version / WARM_UP))[signature]
    body = json.dumps({"signature_name": signature, "inputs": {k: v.tolist() for k, v in inputs.items()}})

    def client(count: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        seconds = []
        for _ in range(count):
            begun = time.perf_counter()
            connection.request("POST", f"/v1/models/{model}:predict", body)
            response = connection.getresponse()
            content = response.read()
            seconds.append(time.perf_counter() - begun)
            if response.status != 200:
                raise SystemExit(f"{model}, {signature}: {content[:500]!r}")
        connection.close()
        return seconds

    each = max(1, requests // clients)
    client(2)
    load = os.getloadavg()[0]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = 1e3 * np.concatenate(list(pool.map(client, [each] * clients)))
    seconds = time.perf_counter() - begun
    return {
        "id": "latency",
        "model": model,
        "signature": signature,
        "clients": clients,
        "n": found.size,
        "value": float(np.median(found)),
        "spread": [float(q) for q in np.quantile(found, [0.05, 0.95])],
        "rate": found.size / seconds,
        "body": len(body),
        "load": load,
    }


if __name__ == "__main__":
    main()
