# %% [markdown]
# # Serving: a model is exported, served over HTTP, and asked
#
# Whoever asks needs neither tflens nor TensorFlow, nor even Python. The server needs `pip install
# 'tflens[serve]'`. Models go to the folder `TFLENS_OUT`, `examples_output` by default. `TFLENS_FAST=1` in the
# environment exports a lens alone, without the network.

# %%
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

from tflens.cli import app

FAST = os.environ.get("TFLENS_FAST") == "1"
MODELS = Path(os.environ.get("TFLENS_OUT", "examples_output")) / "models"

# %% [markdown]
# ## Export
#
# The same as `tflens export lens --out models --shape 40,44 --pixel-scale 0.1 --psf-fwhm 0.16 --source sersic`.
# The folder holds a README.md that tells what each signature takes and gives.


# %%
def tflens(*words: str | Path) -> None:
    """A command, without leaving Python at its end."""
    app([str(word) for word in words], standalone_mode=False)


grid = ("--shape", "40,44", "--pixel-scale", "0.1", "--psf-fwhm", "0.16")
tflens("export", "lens", "--out", MODELS, *grid, "--source", "sersic", "--overwrite")
if not FAST:
    tflens("export", "galaxies", "--out", MODELS, "--overwrite")

# %% [markdown]
# ## Serve
#
# `--port 0` takes a free one; the first line on stdout is the address, once the models are loaded.

# %%
server = subprocess.Popen(
    [sys.executable, "-m", "tflens", "serve", str(MODELS), "--port", "0"], stdout=subprocess.PIPE, text=True
)
address = server.stdout.readline().strip()
print(address)


# %% [markdown]
# ## Ask
#
# First what there is, then for the middle of the prior, then for the image of that lens.


# %%
def ask(model: str, signature: str, inputs: dict) -> dict:
    """The outputs of a signature by name."""
    body = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    with urlopen(Request(f"{address}/v1/models/{model}:predict", body), timeout=60) as answer:
        return json.load(answer)["outputs"]


try:
    with urlopen(f"{address}/v1/models/lens/metadata", timeout=60) as answer:
        signatures = json.load(answer)["metadata"]["signature_def"]["signature_def"]
    size = int(signatures["parameters"]["inputs"]["u"]["tensor_shape"]["dim"][1]["size"])
    values = ask("lens", "parameters", {"u": [[0.0] * size]})
    print({name: round(value[0], 3) for name, value in values.items() if value[0] and name.startswith("lens_")})
    amplitudes = {name: [1.0] for name in signatures["simulate"]["inputs"] if name.endswith("_amp")}
    given = {name: values[name] for name in signatures["simulate"]["inputs"] if name in values}
    image = ask("lens", "simulate", given | amplitudes)["image"][0]
    print(f"an image of {len(image)} x {len(image[0])} pixels, brightest {max(map(max, image)):.3g}")
    if not FAST:
        galaxies = ask("galaxies", "sample_prior", {"seed": 1, "n": 2})["galaxy"]
        print(f"{len(galaxies)} galaxies of {len(galaxies[0])} x {len(galaxies[0][0])} pixels")
finally:
    # Ends once the requests in work are answered, as after Ctrl-C.
    server.terminate()
    server.wait(timeout=60)
print("stopped:", server.returncode)
