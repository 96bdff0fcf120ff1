"""JAXtronomy: lenstronomy's interface in JAX; its FFT and Gaussian convolutions."""

import jax_jobs
import numpy as np
from jaxtronomy.ImSim.image_model import ImageModel
from jaxtronomy.LensModel.lens_model import LensModel
from jaxtronomy.LightModel.light_model import LightModel
from lenstronomy.Data.pixel_grid import PixelGrid
from lenstronomy.Data.psf import PSF
from worker import Settings, Unsupported
from workloads import PIXEL_SCALE, PIXELS, PSF_PIXELS, PSF_SIGMA, Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    if workload.source != "Sersic":
        raise Unsupported("JAXtronomy 0.1.5 has no pixelated source")
    psfs = {"FFT": PSF("PIXEL", kernel_point_source=workload.kernel)}
    if workload.psf == "gaussian":
        fwhm = PSF_SIGMA * PIXEL_SCALE * 2 * np.sqrt(2 * np.log(2))
        psfs["Gaussian"] = PSF("GAUSSIAN", fwhm=fwhm, truncation=(PSF_PIXELS // 2) / PSF_SIGMA)
    images = {name: _image(workload, psf) for name, psf in psfs.items()}
    return jax_jobs.settings(images, workload, task, batch)


def _image(workload: Workload, psf: PSF) -> jax_jobs.Image:
    corner = -(PIXELS - 1) / 2 * PIXEL_SCALE
    lens_image = ImageModel(
        PixelGrid(PIXELS, PIXELS, PIXEL_SCALE * np.eye(2), corner, corner),
        psf,
        LensModel([workload.lens, "SHEAR"]),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": workload.supersampling},
    )
    mass = [name for name in workload.names if name in ("theta_E", "gamma", "e1", "e2", "center_x", "center_y")]

    def image(values, _):
        shear = {"gamma1": values["gamma1"], "gamma2": values["gamma2"], "ra_0": 0.0, "dec_0": 0.0}
        light = {name: values[name] for name in ("amp", "R_sersic", "n_sersic")}
        light |= {"e1": values["source_e1"], "e2": values["source_e2"]}
        light |= {"center_x": values["source_x"], "center_y": values["source_y"]}
        return lens_image.image([{name: values[name] for name in mass}, shear], [light])

    return image
