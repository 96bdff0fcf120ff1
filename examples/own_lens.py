# %% [markdown]
# # A lens of your own: from a FITS file to a report and to COOLEST
#
# `TFLENS_LENS` names the file, by default the example lens of the checkout, from whose folder this is run. With
# `TFLENS_FAST=1` in the environment the fit is quick, and no result to be believed. Results go to the folder
# `TFLENS_OUT`, `examples_output` by default.

# %%
import os
from pathlib import Path

from tflens.config import Input, RunConfig
from tflens.coolest import to_coolest
from tflens.inference.check import in_words
from tflens.inference.settings import QUICK, FitSettings
from tflens.run import execute, prepare
from tflens.saved_fit import SavedFit

FAST = os.environ.get("TFLENS_FAST") == "1"
OUT = Path(os.environ.get("TFLENS_OUT", "examples_output")) / "own_lens"
LENS = os.environ.get("TFLENS_LENS", "examples/demo/lens.fits")

# %% [markdown]
# ## The input
#
# One file with an extension each for image, noise (1 sigma), PSF, and, if there is one, mask (**0 = good**).
# Other names, files of their own, and a pixel scale that the header lacks are arguments of `Input`. What cannot
# be right is refused with the file, the extension, the rule and the value.

# %%
config = RunConfig(
    Input(LENS, image="SCI", noise="ERR", psf="PSF", mask="MASK"),
    source="sersic" if FAST else "neural",
    settings=vars(QUICK if FAST else FitSettings()),
)
job = prepare(config, OUT / "fit", overwrite=True)
print(job.observation)

# %% [markdown]
# ## The fit
#
# The same as `tflens fit FILE.fits --out FOLDER`, which also says how far it is. While it runs, `tensorboard
# --logdir FOLDER` shows it.

# %%
fit = execute(job)
print(in_words(fit.check()))

# %% [markdown]
# ## The report
#
# All of it on one page for a browser, `report.html`; beside it the draws for ArviZ, tables, figures, and images
# as FITS.

# %%
for path in sorted(job.folder.iterdir()):
    print(path)

# %% [markdown]
# ## For other packages
#
# COOLEST is a standard that other packages read; `tflens convert FOLDER --to coolest -o lens.json` writes the
# same from the folder of a fit. It needs `pip install 'tflens[coolest]'`.

# %%
saved = SavedFit(job.folder)
for path in to_coolest(saved.best, OUT / "lens.json", saved.observation(), saved.posterior, overwrite=True):
    print(path)
