# %% [markdown]
# # Quickstart: a lens is made, fitted, and looked at
#
# Run it as a script (`python examples/quickstart.py`), or cell by cell in an editor or in Jupyter with Jupytext.
# With `TFLENS_FAST=1` in the environment everything is small, and no result to be believed. Pictures go
# to the folder `TFLENS_OUT`, `examples_output` by default.

# %%
import os
from pathlib import Path

import tflens as tl
from tflens.galaxies import NeuralSource
from tflens.inference.check import in_words
from tflens.inference.mock_lenses import lens_model, survey
from tflens.inference.settings import QUICK, FitSettings
from tflens.light import Sersic
from tflens.plotting import fit_figure

FAST = os.environ.get("TFLENS_FAST") == "1"
OUT = Path(os.environ.get("TFLENS_OUT", "examples_output"))
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A lens whose truth is known
#
# The model says what there is: the mass of the lens (a power law with shear), its light (a Sersic profile), and
# the galaxy behind it, drawn by the shipped network. Every parameter has a prior, and a mock is a draw from it,
# seen by a telescope.

# %%
model = lens_model(Sersic() if FAST else NeuralSource())
mock = survey().draw(model, seed=2)
print(mock.observation)

# %% [markdown]
# ## The fit
#
# It starts blind: from many points all over the prior, of which the best are polished, and ends with a posterior.

# %%
fit = tl.fit(mock.observation, model, QUICK if FAST else FitSettings())
for row in fit.posterior.table():
    truth = mock.parameters.get(row.name)
    known = "" if truth is None else f"   truth {truth:8.4f}"
    print(f"{row.name:20} {row.median:8.4f}   68 %: {row.low:8.4f} to {row.high:8.4f}{known}")

# %% [markdown]
# ## Whether to believe it
#
# The checks say in words what is wrong with a fit. Of a quick one they say a lot.

# %%
print(in_words(fit.check()))

# %% [markdown]
# ## A look at it
#
# Data, model, residual in units of the noise, the arcs alone, and the galaxy as it would be seen without the
# lens.

# %%
fit_figure(fit).savefig(OUT / "quickstart.png")
