"""herculens: both forms of its power law, both backends of its SIE, its FFT and its Gaussian convolution."""

import jax_jobs
import numpy as np
from herculens.Coordinates.pixel_grid import PixelGrid
from herculens.Instrument.psf import PSF
from herculens.LensImage.lens_image import LensImage
from herculens.LightModel.light_model import LightModel
from herculens.LightModel.Profiles.pixelated import Pixelated
from herculens.LightModel.Profiles.sersic import Sersic
from herculens.MassModel.mass_model import MassModel
from herculens.MassModel.Profiles.epl import EPL
from herculens.MassModel.Profiles.shear import Shear
from herculens.MassModel.Profiles.sie import SIE
from worker import Settings
from workloads import PIXEL_SCALE, PIXELS, PSF_PIXELS, PSF_SIGMA, SOURCE_PIXELS, Workload


def settings(workload: Workload, task: str, batch: int) -> Settings:
    return jax_jobs.settings(images(workload), workload, task, batch)


def images(workload: Workload) -> dict[str, jax_jobs.Image]:
    """The image function of each setting."""
    if workload.lens == "EPL":
        lenses = {"complex": EPL(), "real": EPL(no_complex_numbers=True)}
    else:
        lenses = {"NIE": SIE("NIE"), "EPL": SIE("EPL")}
    psfs = {"FFT": PSF("PIXEL", kernel_point_source=workload.kernel)}
    if workload.psf == "gaussian":
        fwhm = PSF_SIGMA * PIXEL_SCALE * 2 * np.sqrt(2 * np.log(2))
        psfs["Gaussian"] = PSF("GAUSSIAN", fwhm=fwhm, pixel_size=PIXEL_SCALE)
    return {
        f"{lens}, {psf}": _image(workload, lens_class, psf_class)
        for lens, lens_class in lenses.items()
        for psf, psf_class in psfs.items()
    }


def _image(workload: Workload, lens: object, psf: PSF) -> jax_jobs.Image:
    corner = -(PIXELS - 1) / 2 * PIXEL_SCALE
    grid = PixelGrid(PIXELS, PIXELS, PIXEL_SCALE * np.eye(2), corner, corner)
    if workload.source == "Sersic":
        source = LightModel([Sersic(radius_major_axis=False)])
    else:
        side = SOURCE_PIXELS * PIXEL_SCALE
        pixelated = Pixelated("bilinear", allow_extrapolation=False)
        area = {"num_pixels": SOURCE_PIXELS, "grid_center": (0.0, 0.0), "grid_shape": (side, side)}
        source = LightModel([pixelated], kwargs_pixelated=area)
    # The truncation that the Gaussian kernel of the others ends at.
    numerics = {"supersampling_factor": workload.supersampling, "truncation": (PSF_PIXELS // 2) / PSF_SIGMA}
    lens_image = LensImage(
        grid, psf, None, MassModel([lens, Shear()]), source_model_class=source, kwargs_numerics=numerics
    )
    names = lens.param_names

    def image(values, pixels):
        shear = {name: values[name] for name in ("gamma1", "gamma2")}
        light = {"pixels": pixels}
        if pixels is None:
            center = {"center_x": values["source_x"], "center_y": values["source_y"]}
            shape = {"e1": values["source_e1"], "e2": values["source_e2"]}
            light = {name: values[name] for name in ("amp", "R_sersic", "n_sersic")} | shape | center
        return lens_image.model(
            kwargs_lens=[{name: values[name] for name in names}, shear],
            kwargs_source=[light],
            lens_light_add=False,
            point_source_add=False,
        )

    return image
