"""lenstronomy: one image after the other on one core, as it is written; it has no gradients."""

import numpy as np
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from worker import Job, Settings, Unsupported
from workloads import PIXEL_SCALE, PIXELS, PSF_PIXELS, PSF_SIGMA, Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    if task == "gradient":
        raise Unsupported("lenstronomy has no gradients")
    if workload.source != "Sersic":
        raise Unsupported("lenstronomy's INTERPOL source keeps the first image it was given: no free pixels")
    lenses = ["EPL", "EPL_NUMBA"] if workload.lens == "EPL" else ["SIE"]
    psfs = {"FFT": PSF("PIXEL", kernel_point_source=workload.kernel)}
    if workload.psf == "gaussian":
        fwhm = PSF_SIGMA * PIXEL_SCALE * 2 * np.sqrt(2 * np.log(2))
        psfs["Gaussian"] = PSF("GAUSSIAN", fwhm=fwhm, truncation=(PSF_PIXELS // 2) / PSF_SIGMA)
    return {
        f"{lens}, {name}": lambda lens=lens, psf=psf: _job(workload, lens, psf, batch)
        for lens in lenses
        for name, psf in psfs.items()
    }


def _job(workload: Workload, lens: str, psf: PSF, batch: int) -> Job:
    corner = -(PIXELS - 1) / 2 * PIXEL_SCALE
    model = ImageModel(
        PixelGrid(PIXELS, PIXELS, PIXEL_SCALE * np.eye(2), corner, corner),
        psf,
        LensModel([lens, "SHEAR"]),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": workload.supersampling},
    )
    mass = [name for name in workload.names if name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")]
    arguments = []
    for row in workload.parameters(batch):
        values = dict(zip(workload.names, row, strict=True))
        shear = {"gamma1": values["gamma1"], "gamma2": values["gamma2"], "ra_0": 0.0, "dec_0": 0.0}
        light = {name: values[name] for name in ("amp", "R_sersic", "n_sersic")}
        light |= {"e1": values["source_e1"], "e2": values["source_e2"]}
        light |= {"center_x": values["source_x"], "center_y": values["source_y"]}
        arguments.append(([{name: values[name] for name in mass}, shear], [light]))
    return Job(lambda: np.stack([model.image(lens, source) for lens, source in arguments]))
