"""Simulated galaxies as a dataset: the truth before PSF and noise, and what is known of each galaxy."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tflens.datasets.galaxy_drawing import RESOLUTION, draw_galaxy
from tflens.datasets.galaxy_parameters import ZERO_POINT, GalaxyParameters, simulate_parameters
from tflens.datasets.half_light import half_light_radius
from tflens.datasets.records import Key, Record, write_dataset
from tflens.errors import ParameterError

VERSION = 2
"""Of what is drawn: another version draws other galaxies from the same seed."""


def simulate_galaxy(seed: int, index: int, stamp: int = 64, pixel_scale: float = 0.05) -> NDArray[np.float32]:
    """`draw_galaxy(simulate_parameters(seed, index), ...)`: `[stamp, stamp]`, unit sum, before the PSF."""
    return draw_galaxy(simulate_parameters(seed, index), stamp, pixel_scale)


def simulate_record(index: Key, seed: int = 1, stamp: int = 64, pixel_scale: float = 0.05) -> Record:
    """Galaxy `index` of the sample `seed`, with its image and what is known of it.

    The metadata: `magnitude` (AB, F814W), `flux` (counts/s of that magnitude, with the zero point of ACS F814W; the
    image itself has unit sum), `redshift`, `half_light_radius` (arcsec; of the image: the circle about its centre of
    light that holds half of it), `n_sersic` (mean of its components, weighted with their light), `bulge_fraction`,
    `knot_fraction` (of all light), and `merger` (1 or 0).

    Example:
        >>> record = simulate_record(7)
        >>> record.image.shape, 0.02 < record.metadata["half_light_radius"] < 1.2
        ((64, 64), True)
    """
    parameters = simulate_parameters(seed, int(index))
    image = draw_galaxy(parameters, stamp, pixel_scale)
    return Record(image, int(index), _metadata(parameters, image, pixel_scale))


def make_dataset(
    directory: str | Path,
    count: int,
    seed: int = 1,
    processes: int = 1,
    shard_size: int = 500,
    stamp: int = 64,
    pixel_scale: float = 0.05,
    progress: Callable[[int, int], object] = lambda done, kept: None,
) -> Path:
    """Simulates galaxies 0 to `count - 1` into a dataset; a run that was killed goes on where it stopped.

    What is in it depends on `seed`, `count`, `stamp` and `pixel_scale` alone, not on the number of processes. A larger
    `count` adds galaxies to a dataset that is there.

    Args:
        directory: made if missing; read it with `tflens.datasets.records.load_dataset`.
        count: number of galaxies.
        seed: of the sample.
        processes: worker processes.
        shard_size: galaxies made and written at a time.
        stamp: pixels on a side.
        pixel_scale: arcsec.
        progress: called with the number of galaxies done and of galaxies kept (all of them) after each.

    Returns:
        The directory.

    Raises:
        ParameterError: a number is not positive, or the directory holds another dataset.
    """
    for name, value in (("count", count), ("stamp", stamp), ("pixel_scale", pixel_scale)):
        if not value > 0:
            raise ParameterError(f"make_dataset: {name} must be positive, got {value!r}")
    manifest = {
        "name": "simulated galaxies",
        "version": VERSION,
        "seed": seed,
        "stamp": stamp,
        "pixel_scale": pixel_scale,
        "resolution": RESOLUTION,
        "zero_point": ZERO_POINT,
    }
    return write_dataset(
        directory,
        manifest,
        range(count),
        partial(simulate_record, seed=seed, stamp=stamp, pixel_scale=pixel_scale),
        processes=processes,
        shard_size=shard_size,
        progress=progress,
    )


def _metadata(parameters: GalaxyParameters, image: NDArray[np.float32], pixel_scale: float) -> dict[str, float]:
    *others, disk = parameters.components
    light = np.array([component.flux for component in parameters.components])
    (radius,), _ = half_light_radius(image[None])
    return {
        "magnitude": parameters.magnitude,
        "flux": 10 ** (-0.4 * (parameters.magnitude - ZERO_POINT)),
        "redshift": parameters.redshift,
        "half_light_radius": float(radius) * pixel_scale,
        "n_sersic": float(light @ [component.n_sersic for component in parameters.components] / light.sum()),
        "bulge_fraction": sum(component.flux for component in others if component.n_sersic > 2),
        "knot_fraction": parameters.knots.fraction * disk.flux if parameters.knots else 0.0,
        "merger": float(parameters.merger is not None),
    }
