"""What a galaxy model draws, to be looked at: reconstructions, and samples of the prior beside real ones."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tflens.datasets.pipeline import Convolution, hst_psf, observed_galaxies
from tflens.galaxies.source import GalaxyModel

Galaxies = NDArray[np.float32]


def draw_reconstructions(
    model: GalaxyModel, galaxies: Galaxies, path: str | Path, snr_range: tuple[float, float] = (15.0, 50.0)
) -> None:
    """A row for each galaxy `[N, n, n]`: truth, data, model, residual in sigma, and the model before the PSF."""
    psf = hst_psf(model.pixel_scale)
    batch = next(iter(observed_galaxies(galaxies, psf, len(galaxies), seed=7, snr_range=snr_range, augment=False)))
    decoded = model.decode(model.encode(batch["image"], batch["sigma"])[0])
    fitted = Convolution(psf, (model.stamp_size, model.stamp_size))(decoded).numpy()
    image, sigma = batch["image"].numpy(), batch["sigma"].numpy()
    titles = ("truth before PSF", "data", "model", "residual / sigma", "model before PSF")
    figure = Figure(figsize=(2 * len(titles), 2 * len(galaxies)), layout="tight")
    axes = figure.subplots(len(galaxies), len(titles), squeeze=False)
    for row, truth, data, model_image, noise, source in zip(
        axes, galaxies, image, fitted, sigma, decoded.numpy(), strict=True
    ):
        for panel, shown in zip((row[0], row[4]), (truth, source), strict=True):
            panel.imshow(_stretch(shown, truth.max()), origin="lower", cmap="magma", vmin=0, vmax=_stretch(1, 1))
        for panel, shown in zip((row[1], row[2]), (data, model_image), strict=True):
            panel.imshow(_stretch(shown, data.max()), origin="lower", cmap="magma", vmin=-0.5, vmax=_stretch(1, 1))
        row[3].imshow((data - model_image) / noise, origin="lower", cmap="RdBu_r", vmin=-4, vmax=4)
        row[3].set_ylabel(f"chi$^2$ {np.mean(((data - model_image) / noise) ** 2):.2f}", fontsize=8)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9)
    _save(figure, axes, path)


def draw_prior(model: GalaxyModel, galaxies: Galaxies, path: str | Path, seed: int = 1) -> None:
    """Held-out galaxies `[N, n, n]`, as many drawn through the flow, and as many from z ~ N(0, I), before the PSF."""
    count = len(galaxies)
    normal = tf.random.stateless_normal([count, model.latent_dim], [seed, 1])
    groups = {
        "held-out simulated galaxies": galaxies,
        "prior: u ~ N(0, I), z = T(u)": model.sample_prior(count, seed).numpy(),
        "without the flow: z ~ N(0, I)": model.decode(normal).numpy(),
    }
    columns = 12
    rows = -(-count // columns)
    figure = Figure(figsize=(columns, len(groups) * (rows + 0.3)), layout="constrained")
    for part, (title, images) in zip(figure.subfigures(len(groups), 1), groups.items(), strict=True):
        part.suptitle(title, fontsize=10)
        axes = part.subplots(rows, columns, squeeze=False)
        for panel in axes.flat:
            panel.axis("off")
        for panel, shown in zip(axes.flat, images, strict=False):
            panel.imshow(_stretch(shown, shown.max()), origin="lower", cmap="magma", vmin=0)
    figure.savefig(path, dpi=60)


def _stretch(image: NDArray | float, peak: float) -> NDArray:
    return np.arcsinh(np.asarray(image) / (0.03 * peak))


def _save(figure: Figure, axes: NDArray, path: str | Path) -> None:
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    figure.savefig(path, dpi=60)
