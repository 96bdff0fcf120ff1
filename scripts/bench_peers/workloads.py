"""What every package of the benchmark computes. NumPy only: this file is read in every package's environment."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PIXELS, PIXEL_SCALE = 100, 0.05
SOURCE_PIXELS = 64
PSF_PIXELS, PSF_SIGMA = 21, 1.2
LARGEST_BATCH = 128

MASS = ("theta_E", "gamma", "e1", "e2", "center_x", "center_y", "gamma1", "gamma2")
LIGHT = ("R_sersic", "n_sersic", "source_e1", "source_e2", "source_x", "source_y", "amp")
# The truth, and how far the lenses of a batch scatter about it. At n = 2.5 the packages' approximations to the b_n of
# a Sersic profile agree to 1e-4, so that the images can be compared closely.
VALUES = {
    "theta_E": (1.2, 0.03),
    "gamma": (2.05, 0.05),
    "e1": (0.10, 0.02),
    "e2": (-0.07, 0.02),
    "center_x": (0.011, 0.01),
    "center_y": (-0.013, 0.01),
    "gamma1": (0.03, 0.01),
    "gamma2": (-0.02, 0.01),
    "R_sersic": (0.25, 0.01),
    "n_sersic": (2.5, 0.05),
    "source_e1": (0.10, 0.02),
    "source_e2": (0.05, 0.02),
    "source_x": (0.05, 0.01),
    "source_y": (0.03, 0.01),
    "amp": (20.0, 0.5),
}


@dataclass(frozen=True)
class Workload:
    """One scene: an EPL or SIE with shear, a Sersic or a pixelated source, a PSF, 100 x 100 pixels.

    Attributes:
        lens: "EPL" or "SIE".
        source: "Sersic" or "pixels".
        psf: "gaussian" or "hst".
        supersampling: samples along each side of a pixel.
        kernel: the PSF `[21, 21]`, unit sum.
        data: the image that the likelihood compares with, `[100, 100]`.
        noise: its noise, `[100, 100]`.
    """

    lens: str
    source: str
    psf: str
    supersampling: int
    kernel: np.ndarray
    data: np.ndarray
    noise: np.ndarray

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order of `parameters`; the pixels of a source come after them."""
        mass = tuple(name for name in MASS if name != "gamma" or self.lens == "EPL")
        return mass + (LIGHT if self.source == "Sersic" else ())

    def parameters(self, batch: int) -> np.ndarray:
        """Parameters `[batch, len(names)]`; the lenses of a small batch are the first ones of a large."""
        # A seed with which no ray hits the cusp of a source, where each package softens it in its own way.
        draw = np.random.default_rng(4).standard_normal((LARGEST_BATCH, len(VALUES)))
        values = {name: low + scatter * draw[:, i] for i, (name, (low, scatter)) in enumerate(VALUES.items())}
        return np.stack([values[name][:batch] for name in self.names], axis=-1)

    def pixels(self, batch: int) -> np.ndarray | None:
        """Pixels `[batch, 64, 64]` of the sources, flux in a pixel of the image's size; None for a Sersic source."""
        if self.source != "pixels":
            return None
        rng = np.random.default_rng(2)
        y, x = np.mgrid[:SOURCE_PIXELS, :SOURCE_PIXELS] - (SOURCE_PIXELS - 1) / 2
        blobs = 0.0
        for _ in range(12):
            (cx, cy), width, height = rng.uniform(-12, 12, 2), rng.uniform(1.5, 4), rng.uniform(0.2, 1)
            blobs = blobs + height * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
        # Dark at the rim, where packages extrapolate each in its own way.
        rim = (np.abs(x) < SOURCE_PIXELS / 2 - 3) & (np.abs(y) < SOURCE_PIXELS / 2 - 3)
        brightness = 1 + 0.1 * rng.standard_normal(LARGEST_BATCH)
        return (brightness[:batch, None, None] * np.where(rim, blobs, 0)).astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes the workload where a worker can read it."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Workload":
        """Reads a saved workload."""
        with np.load(path) as file:
            values = dict(file)
        words = {name: str(values.pop(name)) for name in ("lens", "source", "psf")}
        return cls(**words, supersampling=int(values.pop("supersampling")), **values)


def make(lens: str, source: str, psf: str, supersampling: int, kernel: np.ndarray) -> Workload:
    """A workload whose data are noise: what a likelihood costs does not depend on them."""
    shape = (PIXELS, PIXELS)
    data = np.random.default_rng(0).normal(size=shape)
    return Workload(lens, source, psf, supersampling, kernel / kernel.sum(), data, np.full(shape, 1.0))


def gaussian_kernel() -> np.ndarray:
    """A Gaussian PSF `[21, 21]`: a kernel of rank 1."""
    y, x = np.mgrid[:PSF_PIXELS, :PSF_PIXELS] - PSF_PIXELS // 2
    kernel = np.exp(-(x**2 + y**2) / (2 * PSF_SIGMA**2))
    return kernel / kernel.sum()
