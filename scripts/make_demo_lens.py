"""Makes the demo lens: `examples/demo/lens.fits` and, beside it, the truth.

The source is a simulated galaxy of a seed that no model was trained on, drawn by GalSim at 0.02 arcsec a pixel and
ray-shot with 8 x 8 samples a pixel in float64. Nothing of the fit's own networks takes part. The first galaxy of the
seed is taken that passes the cuts in `is_wanted`: a resolved disk without bright knots, a companion or strong
lopsidedness. Those the shipped model smooths away (see its card), which pulls the mass model: this lens demonstrates
the package and measures no calibration.

    python scripts/make_demo_lens.py
"""

import json
from pathlib import Path

import numpy as np

from tflens.datasets.simulated import GalaxyParameters, draw_galaxy, simulate_parameters
from tflens.grid import PixelGrid
from tflens.lens_layer import LensLayer
from tflens.light import Pixelated, Sersic
from tflens.mass import EPL, Shear
from tflens.observation import Observation

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "demo"
SEED = 2019  # of the galaxies (the shipped model saw seed 1) and of the noise
GRID = PixelGrid((76, 84), 0.08)
EXPOSURE = 2000.0  # seconds
BACKGROUND = 0.006  # counts/s/pixel, 1 sigma
STAMP, STAMP_SCALE = 200, 0.02

MASS = {
    "lens": {"theta_E": 2.3, "gamma": 2.07, "e1": 0.09, "e2": -0.06, "center_x": 0.02, "center_y": -0.01},
    "shear": {"gamma1": 0.03, "gamma2": -0.02},
}
# A bulge in a rounder, larger envelope, with their fluxes within the frame, counts/s.
LENS_LIGHT = [
    {"R_sersic": 0.45, "n_sersic": 3.5, "e1": 0.06, "e2": -0.05, "center_x": 0.01, "center_y": -0.01},
    {"R_sersic": 1.6, "n_sersic": 1.2, "e1": 0.11, "e2": -0.03, "center_x": 0.01, "center_y": -0.01},
]
LENS_FLUXES = [20.0, 18.0]
SOURCE = {"center_x": 0.17, "center_y": 0.11, "scale": 1.0}
SOURCE_FLUX = 3.0  # counts/s before lensing


def is_wanted(galaxy: GalaxyParameters) -> bool:
    """The cuts on the source, stated in the module's docstring."""
    disk = galaxy.components[-1]
    smooth = galaxy.knots is None or galaxy.knots.fraction < 0.2
    symmetric = galaxy.lopsidedness < 0.15 and galaxy.companion is None
    return 0.2 < disk.half_light_radius < 0.4 and disk.n_sersic < 2 and smooth and symmetric


def main() -> None:
    index = next(i for i in range(1000) if is_wanted(simulate_parameters(SEED, i)))
    galaxy = draw_galaxy(simulate_parameters(SEED, index), STAMP, STAMP_SCALE)
    psf = euclid_like_psf()
    layer = LensLayer(
        GRID,
        mass=[EPL(tolerance=1e-12), Shear()],
        lens_light=[Sersic(), Sersic()],
        source=[Pixelated(STAMP_SCALE)],
        psf=psf,
        supersampling=8,
        padding=psf.shape[0] // 2,
        dtype="float64",
    )
    *light, lensed = (
        image.numpy()
        for image in layer.images(
            {"mass": list(MASS.values()), "lens_light": LENS_LIGHT, "source": [SOURCE | {"image": galaxy}]}
        )
    )
    lensed = lensed * SOURCE_FLUX
    truth = lensed + sum(flux * image / image.sum() for flux, image in zip(LENS_FLUXES, light, strict=True))
    noise = np.sqrt(BACKGROUND**2 + np.maximum(truth, 0) / EXPOSURE)
    image = truth + noise * np.random.default_rng(SEED).standard_normal(truth.shape)

    FOLDER.mkdir(parents=True, exist_ok=True)
    observation = Observation(
        image.astype(np.float32), noise.astype(np.float32), psf, pixel_scale=GRID.pixel_scale, name="demo"
    )
    observation.to_fits(FOLDER / "lens.fits", overwrite=True)
    description = {
        "parameters": {f"{label}.{name}": value for label, group in MASS.items() for name, value in group.items()},
        "source": {
            "galaxy": {"seed": SEED, "index": index},
            "flux": SOURCE_FLUX,
            **{name: SOURCE[name] for name in ("center_x", "center_y")},
        },
        "lens_light": [{**p, "flux": flux} for p, flux in zip(LENS_LIGHT, LENS_FLUXES, strict=True)],
        "peak_arc_signal_to_noise": round(float((lensed / noise).max()), 2),
        "magnification": round(float(lensed.sum() / SOURCE_FLUX), 3),
    }
    (FOLDER / "truth.json").write_text(json.dumps(description, indent=2) + "\n")
    print(json.dumps(description, indent=2))


def euclid_like_psf(size: int = 31) -> np.ndarray:
    """A space telescope's kernel at the grid's pixel scale: 1.2 m, obscured, 0.7 micron, with a little coma, blurred
    by a guiding error and by the pixel; unit sum."""
    import galsim

    optics = galsim.OpticalPSF(lam=700, diam=1.2, obscuration=0.3, coma1=0.05, astig1=0.04, nstruts=3)
    profile = galsim.Convolve(optics, galsim.Gaussian(fwhm=0.06))
    kernel = profile.drawImage(nx=size, ny=size, scale=GRID.pixel_scale).array.astype(np.float64)
    return kernel / kernel.sum()


if __name__ == "__main__":
    main()
