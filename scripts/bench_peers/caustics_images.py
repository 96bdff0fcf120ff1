"""caustics: one lens's image function, written once for both of its backends."""

from collections.abc import Callable

import caustics
import numpy as np
from caustics import backend
from workloads import PIXEL_SCALE, PIXELS, SOURCE_PIXELS, Workload


def images(workload: Workload, modes: tuple[str, ...]) -> dict[str, Callable]:
    """The image function of each setting: (parameters by name, pixels or None) -> `[ny, nx]`."""
    if workload.lens == "SIE":
        return {mode: _image(workload, mode, None) for mode in modes}
    # The power law's series one term after the other, or all terms at once (the default).
    chunks = {"term by term": 1, "all terms at once": None}
    return {f"{mode}, {name}": _image(workload, mode, chunk) for mode in modes for name, chunk in chunks.items()}


def _image(workload: Workload, mode: str, chunk: int | None) -> Callable:
    cosmology = caustics.FlatLambdaCDM(name="cosmology")
    if workload.lens == "EPL":
        lens = caustics.EPL(cosmology=cosmology, name="lens", chunk_size=chunk)
    else:
        lens = caustics.SIE(cosmology=cosmology, name="lens")
    shear = caustics.ExternalShear(cosmology=cosmology, x0=0.0, y0=0.0, name="shear")
    if workload.source == "Sersic":
        source = caustics.Sersic(name="source")
    else:
        shape = (SOURCE_PIXELS, SOURCE_PIXELS)
        source = caustics.Pixelated(name="source", shape=shape, pixelscale=PIXEL_SCALE, x0=0.0, y0=0.0)
    simulator = caustics.LensSource(
        lens=caustics.SinglePlane(cosmology=cosmology, lenses=[lens, shear], z_l=0.5, z_s=1.0, name="plane"),
        source=source,
        pixelscale=PIXEL_SCALE,
        pixels_x=PIXELS,
        # Gauss-Legendre points inside a pixel; its upsampling would need a PSF on the finer grid.
        quad_level=workload.supersampling,
        psf=backend.as_array(workload.kernel.astype(np.float32)),
        psf_mode=mode,
        name="simulator",
    )

    def image(values, pixels):
        q, phi = _axis_ratio_and_angle(values["e1"], values["e2"])
        inputs = [values["center_x"], values["center_y"], q, phi, values["theta_E"]]
        inputs += [values["gamma"] - 1] if workload.lens == "EPL" else []
        inputs += [values["gamma1"], values["gamma2"]]
        if pixels is not None:
            return simulator([*inputs, pixels])
        q, phi = _axis_ratio_and_angle(values["source_e1"], values["source_e2"])
        # Its radius is on the major axis, its amplitude per pixel.
        radius, amplitude = values["R_sersic"] / backend.sqrt(q), values["amp"] * PIXEL_SCALE**2
        shape = [values["source_x"], values["source_y"], q, phi, values["n_sersic"], radius, amplitude]
        return simulator([*inputs, *shape])

    return image


def _axis_ratio_and_angle(e1, e2):
    e = backend.sqrt(e1**2 + e2**2)
    return (1 - e) / (1 + e), backend.arctan2(e2, e1) / 2
