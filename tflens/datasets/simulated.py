"""Simulated galaxies before the PSF: real COSMOS shapes, with knots, spiral arms, lopsidedness and companions.

A galaxy is first a small record of parameters, a pure function of `(seed, index)`, and then an image at any stamp
size and pixel scale. Every image is convolved with one round Gaussian of FWHM `RESOLUTION`: bulges have no finite
band limit of their own.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, get_args

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from tflens.datasets.morphology import cosmos_morphology
from tflens.errors import ParameterError
from tflens.files import write_atomically

RESOLUTION = 0.06
"""FWHM, arcsec, of the Gaussian that every simulated galaxy is convolved with."""

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Sersic:
    """An elliptical Sersic profile: circularised half-light radius in arcsec, q = minor/major, angle in radians."""

    flux: float
    half_light_radius: float
    n_sersic: float
    q: float
    angle: float
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Knots:
    """Star-forming knots that follow the disk: a share of its flux, each a Gaussian of FWHM `size` arcsec."""

    fraction: float
    number: int
    size: float
    seed: int


@dataclass(frozen=True)
class Spiral:
    """Logarithmic arms in the plane of the disk: relative amplitude, pitch and phase in radians."""

    arms: int
    amplitude: float
    pitch: float
    phase: float


@dataclass(frozen=True)
class GalaxyParameters:
    """All that is drawn of a galaxy. The last component is the disk that knots, arms and lopsidedness follow.

    `lopsidedness` is the amplitude of an m = 1 modulation of the light, `lopsided_angle` its direction (radians).
    """

    components: tuple[Sersic, ...]
    knots: Knots | None = None
    spiral: Spiral | None = None
    lopsidedness: float = 0.0
    lopsided_angle: float = 0.0
    companion: Sersic | None = None


def simulate_parameters(seed: int, index: int) -> GalaxyParameters:
    """The parameters of galaxy `index` of the sample `seed`; independent of every other galaxy.

    Example:
        >>> simulate_parameters(1, 7) == simulate_parameters(1, 7)
        True
        >>> simulate_parameters(1, 7) == simulate_parameters(2, 7)
        False
    """
    rng = np.random.default_rng([seed, index])
    shape = cosmos_morphology().sample(rng)
    angle = rng.uniform(0, np.pi)
    if "bulge_fraction" in shape:
        fraction = shape["bulge_fraction"]
        bulge = Sersic(
            fraction, shape["bulge_half_light_radius"], 4.0, shape["bulge_q"], (angle + shape["twist"]) % np.pi
        )
        components = (bulge, Sersic(1 - fraction, shape["disk_half_light_radius"], 1.0, shape["disk_q"], angle))
    else:
        components = (Sersic(1.0, shape["half_light_radius"], shape["n_sersic"], shape["q"], angle),)
    disk = components[-1]
    late = disk.n_sersic < 2
    parameters = GalaxyParameters(components)
    if rng.random() < (0.85 if late else 0.2):
        parameters = replace(
            parameters,
            knots=Knots(
                fraction=float(rng.beta(2, 4)) if late else float(rng.beta(1, 8)),
                number=int(np.exp(rng.uniform(np.log(5), np.log(50)))),
                size=float(np.exp(rng.normal(np.log(0.07), 0.35))),
                seed=int(rng.integers(1, 2**31)),
            ),
        )
    if late and disk.q > 0.3 and disk.half_light_radius > 0.2 and rng.random() < 0.5:
        parameters = replace(
            parameters,
            spiral=Spiral(
                arms=int(rng.choice([2, 2, 2, 3, 4])),
                amplitude=float(rng.uniform(0.2, 0.9)),
                pitch=float(np.radians(rng.uniform(12, 35)) * rng.choice([-1, 1])),
                phase=float(rng.uniform(0, 2 * np.pi)),
            ),
        )
    parameters = replace(
        parameters,
        lopsidedness=float(min(rng.exponential(0.25 if late else 0.08), 0.9)),
        lopsided_angle=float(rng.uniform(0, 2 * np.pi)),
    )
    if rng.random() < 0.1:
        distance, direction = rng.uniform(0.35, 1.1), rng.uniform(0, 2 * np.pi)
        parameters = replace(
            parameters,
            companion=Sersic(
                flux=float(rng.uniform(0.02, 0.15)),
                half_light_radius=float(rng.uniform(0.06, 0.2)),
                n_sersic=1.0,
                q=float(rng.uniform(0.4, 1.0)),
                angle=float(rng.uniform(0, np.pi)),
                x=float(distance * np.cos(direction)),
                y=float(distance * np.sin(direction)),
            ),
        )
    return parameters


def draw_galaxy(
    parameters: GalaxyParameters, stamp: int = 64, pixel_scale: float = 0.05, resolution: float = RESOLUTION
) -> NDArray[np.float32]:
    """The image of a galaxy before the PSF, centred on the stamp, integrated over the pixels.

    Args:
        parameters: from `simulate_parameters`, or written by hand.
        stamp: pixels on a side.
        pixel_scale: arcsec.
        resolution: FWHM of the Gaussian that it is convolved with, arcsec.

    Returns:
        `[stamp, stamp]`, non-negative, of unit sum.

    Raises:
        ParameterError: the stamp, the pixel scale or the resolution is not positive.

    Example:
        >>> image = draw_galaxy(simulate_parameters(1, 7), stamp=32, pixel_scale=0.1)
        >>> image.shape, abs(float(image.sum()) - 1) < 1e-5, float(image.min()) >= 0
        ((32, 32), True, True)
    """
    for name, value in (("stamp", stamp), ("pixel_scale", pixel_scale), ("resolution", resolution)):
        if not value > 0:
            raise ParameterError(f"draw_galaxy: {name} must be positive, got {value!r}")
    disk = parameters.components[-1]
    knots = parameters.knots
    image = np.zeros((stamp, stamp))
    for component in parameters.components:
        share = 1 - knots.fraction if knots and component is disk else 1.0
        image += share * _draw_sersic(component, stamp, pixel_scale, resolution)
    if knots:
        image += _draw_knots(knots, disk, stamp, pixel_scale, resolution)
    image *= _modulation(parameters, stamp, pixel_scale)
    if parameters.companion:
        image += _draw_sersic(parameters.companion, stamp, pixel_scale, resolution)
    image = np.maximum(image, 0.0)  # FFTs ring by a part in 1e5 of the peak
    return (image / image.sum()).astype(np.float32)


def simulate_galaxy(seed: int, index: int, stamp: int = 64, pixel_scale: float = 0.05) -> NDArray[np.float32]:
    """`draw_galaxy(simulate_parameters(seed, index), ...)`: `[stamp, stamp]`, unit sum, before the PSF."""
    return draw_galaxy(simulate_parameters(seed, index), stamp, pixel_scale)


def split_of(index: int) -> Split:
    """The split that a galaxy belongs to, by a hash of its index: 90 % train, 5 % validation, 5 % test.

    Example:
        >>> [split_of(index) for index in (0, 1, 2)]
        ['train', 'test', 'test']
    """
    share = int.from_bytes(blake2b(str(index).encode(), digest_size=4).digest(), "big") / 2**32
    return "train" if share < 0.9 else "validation" if share < 0.95 else "test"


def make_dataset(
    directory: str | Path,
    count: int,
    seed: int = 1,
    processes: int = 1,
    shard_size: int = 500,
    stamp: int = 64,
    pixel_scale: float = 0.05,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Simulate galaxies 0 to `count - 1` into compressed shards; a run that was killed goes on where it stopped.

    The result depends on `seed` and `count` alone, not on the number of processes. Memory holds one shard.

    Args:
        directory: where `galaxies-0000.npz`, ... and `dataset.json` go; made if missing.
        count: number of galaxies.
        seed: of the sample.
        processes: worker processes.
        shard_size: galaxies in a file.
        stamp: pixels on a side.
        pixel_scale: arcsec.
        progress: called with the number of galaxies done after each of them.

    Returns:
        The directory.

    Raises:
        ParameterError: `count`, `processes` or `shard_size` is below 1, or the directory holds another dataset.
    """
    for name, value in (("count", count), ("processes", processes), ("shard_size", shard_size)):
        if value < 1:
            raise ParameterError(f"make_dataset: {name} must be at least 1, got {value!r}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    manifest = {"seed": seed, "shard_size": shard_size, "stamp": stamp, "pixel_scale": pixel_scale, "version": 1}
    described = directory / "dataset.json"
    if described.exists() and json.loads(described.read_text()) != manifest:
        raise ParameterError(f"make_dataset: {directory} holds another dataset; remove it or choose another directory")
    described.write_text(json.dumps(manifest) + "\n")

    # Workers must not inherit TensorFlow's threads, hence "spawn".
    with get_context("spawn").Pool(processes, initializer=os.nice, initargs=(5,)) as pool:
        for start in range(0, count, shard_size):
            indices = range(start, min(start + shard_size, count))
            path = directory / f"galaxies-{start // shard_size:04d}.npz"
            if not _is_complete(path, indices):
                jobs = ((seed, index, stamp, pixel_scale) for index in indices)
                images = np.zeros((len(indices), stamp, stamp), np.float32)
                for i, image in enumerate(pool.imap(_simulate, jobs, chunksize=8)):
                    images[i] = image
                    progress(indices[i] + 1)
                shard = {"images": images, "indices": np.asarray(indices)}
                write_atomically(path, lambda file, shard=shard: np.savez_compressed(file, **shard))
            progress(indices[-1] + 1)
    return directory


def load_dataset(directory: str | Path, split: Split) -> NDArray[np.float32]:
    """The galaxies of one split, `[N, stamp, stamp]`, each of unit sum, before the PSF.

    Raises:
        ParameterError: no such split, or no dataset in the directory.
    """
    if split not in get_args(Split):
        raise ParameterError(f"load_dataset: split must be one of {', '.join(get_args(Split))}, got {split!r}")
    galaxies = [images for _, images in _shards(Path(directory), split)]
    if not galaxies:
        raise ParameterError(f"load_dataset: no galaxies-*.npz in {directory}; run scripts/make_dataset.py first")
    return np.concatenate(galaxies)


def _shards(directory: Path, split: Split) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    for path in sorted(directory.glob("galaxies-*.npz")):
        with np.load(path) as shard:
            chosen = np.array([split_of(int(index)) == split for index in shard["indices"]])
            yield shard["indices"][chosen], shard["images"][chosen]


def _is_complete(path: Path, indices: range) -> bool:
    if not path.exists():
        return False
    with np.load(path) as shard:
        return np.array_equal(shard["indices"], np.asarray(indices))


def _simulate(job: tuple[int, int, int, float]) -> NDArray[np.float32]:
    return simulate_galaxy(*job)


def _draw_sersic(component: Sersic, stamp: int, pixel_scale: float, resolution: float) -> NDArray[np.float64]:
    # GalSim tabulates each new index anew (tens of ms), so the index is drawn from a grid of steps.
    profile = galsim.Sersic(
        n=round(component.n_sersic / 0.05) * 0.05,
        half_light_radius=component.half_light_radius,
        flux=component.flux,
        gsparams=_PARAMETERS,
    )
    profile = profile.shear(q=component.q, beta=component.angle * galsim.radians).shift(component.x, component.y)
    blurred = galsim.Convolve([profile, galsim.Gaussian(fwhm=resolution)], gsparams=_PARAMETERS)
    return blurred.drawImage(nx=stamp, ny=stamp, scale=pixel_scale, dtype=float).array


def _draw_knots(knots: Knots, disk: Sersic, stamp: int, pixel_scale: float, resolution: float) -> NDArray[np.float64]:
    """Knots as Gaussians integrated over the pixels in closed form: a product of error functions along x and y."""
    rng = np.random.default_rng(knots.seed)
    walk = galsim.RandomKnots(
        knots.number, half_light_radius=disk.half_light_radius, rng=galsim.BaseDeviate(knots.seed)
    )
    squeeze = np.sqrt(disk.q)
    along, across = walk.points[:, 0] / squeeze, walk.points[:, 1] * squeeze
    cos, sin = np.cos(disk.angle), np.sin(disk.angle)
    weights = rng.exponential(size=knots.number)
    weights *= disk.flux * knots.fraction / weights.sum()
    width = np.hypot(resolution, knots.size) * galsim.Gaussian(fwhm=1).sigma * np.sqrt(2)
    edges = (np.arange(stamp + 1) - stamp / 2) * pixel_scale

    def integrated(position: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.diff(erf((edges - position[:, None]) / width), axis=1) / 2

    in_x = integrated(along * cos - across * sin)
    in_y = integrated(along * sin + across * cos)
    return np.einsum("k,ky,kx->yx", weights, in_y, in_x)


def _modulation(parameters: GalaxyParameters, stamp: int, pixel_scale: float) -> NDArray[np.float64]:
    """Arms and lopsidedness as a smooth factor on the light, in the plane of the disk, fading out at its centre."""
    disk = parameters.components[-1]
    axis = (np.arange(stamp) - (stamp - 1) / 2) * pixel_scale
    x, y = axis[None, :], axis[:, None]
    cos, sin = np.cos(disk.angle), np.sin(disk.angle)
    squeeze = np.sqrt(disk.q)
    along, across = (x * cos + y * sin) * squeeze, (y * cos - x * sin) / squeeze
    radius = np.hypot(along, across) + 1e-9
    azimuth = np.arctan2(across, along)
    core = max(0.5 * disk.half_light_radius, 0.1)
    factor = 1 + parameters.lopsidedness * radius / (radius + core) * np.cos(azimuth - parameters.lopsided_angle)
    if parameters.spiral:
        arms = parameters.spiral
        phase = arms.arms * (azimuth - np.log(radius / core) / np.tan(arms.pitch)) + arms.phase
        factor *= 1 + arms.amplitude * radius**2 / (radius**2 + core**2) * np.cos(phase)
    return factor


# The FFT's box folds back 1 % of the light at most; its size stays in the thousands for the steepest bulge.
_PARAMETERS = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=1e-3, maximum_fft_size=8192)
