# %% [markdown]
# # A catalogue of your own galaxies: from stamps to a model that draws them
#
# With `TFLENS_FAST=1` in the environment the catalogue and the networks are tiny, to see the way from end to end
# in a minute; the shipped model took 40,000 galaxies and more than an hour. Files go to the folder `TFLENS_OUT`,
# `examples_output` by default.

# %%
import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tflens.datasets.contact_sheet import write_contact_sheet
from tflens.datasets.records import Record, load_dataset, summarize_dataset, write_dataset
from tflens.datasets.simulated import simulate_galaxy
from tflens.galaxies import NeuralSource
from tflens.galaxies.recipe import Reports, read_config, train_galaxy_model
from tflens.terminal import losses

FAST = os.environ.get("TFLENS_FAST") == "1"
OUT = Path(os.environ.get("TFLENS_OUT", "examples_output")) / "own_galaxies"
COUNT, SIDE = (200, 32) if FAST else (40_000, 64)

# %% [markdown]
# ## The dataset
#
# A galaxy is a square stamp of unit sum, before PSF and noise, with whatever else is known of it. Here they are
# simulated: put your own in place of `stamp_of`. The manifest says what the stamps are: the side of a pixel,
# arcsec, and the width of the narrowest thing in them.
#
# The same dataset, made by a command: `tflens data simulate --out FOLDER --count 200 --stamp 32`; real galaxies
# of a catalogue in GalSim's form: `tflens data cosmos CATALOGUE --out FOLDER`.


# %%
def stamp_of(key: int) -> Record:
    """Galaxy number `key` of the catalogue."""
    return Record(simulate_galaxy(1, key, stamp=SIDE), key)


manifest = {"name": "mine", "version": 1, "pixel_scale": 0.05, "resolution": 0.06}
write_dataset(OUT / "dataset", manifest, range(COUNT), stamp_of)
print(summarize_dataset(OUT / "dataset").kept)
print(write_contact_sheet(OUT / "dataset"))

# %% [markdown]
# ## The configuration
#
# It names what it changes; the rest is that of the shipped model. A misspelt key is refused with those that there
# are.

# %%
NETWORKS = f"""
extends = "galaxies"
[encoder]
stamp_size = {SIDE}
[decoder]
stamp_size = {SIDE}
filters = [192, 128, 64, 32{"" if SIDE == 32 else ", 16"}]
"""
TINY = f"""
extends = "galaxies"
[encoder]
latent_dim = 8
stamp_size = {SIDE}
filters = [8, 16, 32]
hidden = 32
[decoder]
latent_dim = 8
stamp_size = {SIDE}
filters = [32, 16, 8, 8]
[vae]
newton_steps = 0
newton_in_training = 0
newton_after = 0
[vae_training]
epochs = 3
[flow]
latent_dim = 8
stages = 2
hidden = [16]
[flow_training]
epochs = 3
[joint_training]
epochs = 0
"""
(OUT / "mine.toml").write_text(TINY if FAST else NETWORKS)
config = read_config(OUT / "mine.toml")

# %% [markdown]
# ## The training
#
# Autoencoder, then flow. It may be interrupted: called again, it goes on after the last epoch that was finished.
# To watch it, `tensorboard --logdir` the folder. By a command: `tflens train galaxies --data FOLDER --run RUN
# --config mine.toml`.

# %%
galaxies = {split: load_dataset(OUT / "dataset", split) for split in ("train", "validation")}
model, seconds = train_galaxy_model(config, galaxies, OUT / "run", Reports(lambda record: print(losses(record))))
model.save(OUT / "model")
print({stage: round(value) for stage, value in seconds.items()})

# %% [markdown]
# ## What it draws
#
# Galaxies of the catalogue above, draws from the prior below. Then the model is the source of a lens model, like
# the shipped one: `LensModel(source=NeuralSource("FOLDER/model"))`.

# %%
figure = Figure(figsize=(12, 3.2), layout="constrained")
rows = (galaxies["train"].images[:8], np.asarray(model.sample_prior(8, seed=1)))
for axes, images in zip(figure.subplots(2, 8), rows, strict=True):
    for panel, image in zip(axes, images, strict=True):
        panel.imshow(np.arcsinh(image / image.max() * 10), origin="lower", cmap="magma")
        panel.axis("off")
figure.savefig(OUT / "galaxies.png")
print(NeuralSource(OUT / "model").pixel_scale)
