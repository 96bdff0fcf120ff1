"""What a simulated galaxy is made of, as a pure function of `(seed, index)`: plain numbers, before anything is drawn.

Shapes, magnitudes and redshifts are drawn jointly from the distribution of real COSMOS fits. Bars, knots, arms, rings,
dust lanes, lopsidedness, companions and mergers are put on by hand; how well they do is in the data card.
"""

from dataclasses import dataclass, replace

import numpy as np

from tflens.datasets.morphology import cosmos_morphology

ZERO_POINT = 25.94333
"""AB magnitude of one count/s in ACS F814W."""


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
    """Star-forming knots that follow the disk: a share of its flux, each a Gaussian of FWHM about `size` arcsec."""

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
class Ring:
    """A ring in the plane of the disk: relative amplitude; radius and Gaussian width in arcsec."""

    amplitude: float
    radius: float
    width: float


@dataclass(frozen=True)
class DustLane:
    """A dark lane along the disk: the share of light that it takes, its Gaussian width and its offset in arcsec."""

    depth: float
    width: float
    offset: float


@dataclass(frozen=True)
class Tail:
    """A tidal tail: an arc that sets off at (x, y) in the direction `angle` and turns by `bend` over its `length`.

    Its light falls off exponentially along it; across it, it is a Gaussian of FWHM `size`. Arcsec and radians.
    """

    flux: float
    x: float
    y: float
    length: float
    angle: float
    bend: float
    size: float


@dataclass(frozen=True)
class Merger:
    """Another galaxy, of `flux_ratio` times the flux of the first, at the distance (x, y) from it in arcsec."""

    partner: "GalaxyParameters"
    flux_ratio: float
    x: float
    y: float
    tails: tuple[Tail, ...]


@dataclass(frozen=True)
class GalaxyParameters:
    """All that is drawn of a galaxy. The last component is the disk that the rest follows.

    `lopsidedness` is the amplitude of an m = 1 modulation of the light, `lopsided_angle` its direction (radians).
    `magnitude` (AB, F814W) and `redshift` do not enter the image; None if the parameters were written by hand.
    """

    components: tuple[Sersic, ...]
    knots: Knots | None = None
    spiral: Spiral | None = None
    ring: Ring | None = None
    dust_lane: DustLane | None = None
    lopsidedness: float = 0.0
    lopsided_angle: float = 0.0
    companion: Sersic | None = None
    merger: Merger | None = None
    magnitude: float | None = None
    redshift: float | None = None


def simulate_parameters(seed: int, index: int) -> GalaxyParameters:
    """The parameters of galaxy `index` of the sample `seed`; independent of every other galaxy.

    Example:
        >>> simulate_parameters(1, 7) == simulate_parameters(1, 7)
        True
        >>> simulate_parameters(1, 7) == simulate_parameters(2, 7)
        False
    """
    rng = np.random.default_rng([seed, index])
    galaxy = _isolated_galaxy(rng)
    company = rng.random()
    if company < 0.06:
        return _merging(galaxy, rng)
    if company < 0.16:
        return replace(galaxy, companion=_companion(rng))
    return galaxy


def _isolated_galaxy(rng: np.random.Generator) -> GalaxyParameters:
    shape = cosmos_morphology().sample(rng)
    angle = float(rng.uniform(0, np.pi))
    if "bulge_fraction" in shape:
        fraction = shape["bulge_fraction"]
        bulge = Sersic(
            fraction, shape["bulge_half_light_radius"], 4.0, shape["bulge_q"], (angle + shape["twist"]) % np.pi
        )
        components = (bulge, Sersic(1 - fraction, shape["disk_half_light_radius"], 1.0, shape["disk_q"], angle))
    else:
        components = (Sersic(1.0, shape["half_light_radius"], shape["n_sersic"], shape["q"], angle),)
    late = components[-1].n_sersic < 2
    galaxy = GalaxyParameters(components, magnitude=shape["magnitude"], redshift=shape["redshift"])
    if rng.random() < (0.85 if late else 0.2):
        knots = Knots(
            fraction=float(rng.beta(2, 4)) if late else float(rng.beta(1, 8)),
            number=int(np.exp(rng.uniform(np.log(5), np.log(50)))),
            size=float(np.exp(rng.normal(np.log(0.09), 0.35))),
            seed=int(rng.integers(1, 2**31)),
        )
        galaxy = replace(galaxy, knots=knots)
    if late:
        galaxy = _with_disk_structure(galaxy, rng)
    return replace(
        galaxy,
        lopsidedness=float(min(rng.exponential(0.25 if late else 0.08), 0.9)),
        lopsided_angle=float(rng.uniform(0, 2 * np.pi)),
    )


def _with_disk_structure(galaxy: GalaxyParameters, rng: np.random.Generator) -> GalaxyParameters:
    """Bar, arms and ring where the disk is seen from above, a dust lane where it is seen from the side."""
    disk = galaxy.components[-1]
    if disk.half_light_radius < 0.2:
        return galaxy
    if disk.q > 0.4 and rng.random() < 0.25:
        share, turn = float(rng.uniform(0.04, 0.15)), rng.uniform(0, np.pi)
        bar = Sersic(
            flux=share * disk.flux,
            half_light_radius=max(float(rng.uniform(0.2, 0.4)) * disk.half_light_radius, 0.06),
            n_sersic=0.5,
            q=float(rng.uniform(0.25, 0.45)),
            angle=float(disk.angle + np.arctan2(disk.q * np.sin(turn), np.cos(turn))) % np.pi,
        )
        shrunk = replace(disk, flux=(1 - share) * disk.flux)
        galaxy = replace(galaxy, components=(*galaxy.components[:-1], bar, shrunk))
    if disk.q > 0.3 and rng.random() < 0.5:
        spiral = Spiral(
            arms=int(rng.choice([2, 2, 2, 3, 4])),
            amplitude=float(rng.uniform(0.2, 0.9)),
            pitch=float(np.radians(rng.uniform(12, 35)) * rng.choice([-1, 1])),
            phase=float(rng.uniform(0, 2 * np.pi)),
        )
        galaxy = replace(galaxy, spiral=spiral)
    if disk.q > 0.3 and rng.random() < 0.1:
        radius = float(rng.uniform(0.8, 1.6)) * disk.half_light_radius
        ring = Ring(float(rng.uniform(0.4, 1.5)), radius, max(float(rng.uniform(0.12, 0.25)) * radius, 0.05))
        galaxy = replace(galaxy, ring=ring)
    if disk.q < 0.4 and rng.random() < 0.4:
        lane = DustLane(float(rng.uniform(0.3, 0.8)), float(rng.uniform(0.05, 0.08)), float(rng.normal(0, 0.04)))
        galaxy = replace(galaxy, dust_lane=lane)
    return galaxy


def _companion(rng: np.random.Generator) -> Sersic:
    distance, direction = rng.uniform(0.35, 1.1), rng.uniform(0, 2 * np.pi)
    return Sersic(
        flux=float(rng.uniform(0.02, 0.15)),
        half_light_radius=float(rng.uniform(0.06, 0.2)),
        n_sersic=1.0,
        q=float(rng.uniform(0.4, 1.0)),
        angle=float(rng.uniform(0, np.pi)),
        x=float(distance * np.cos(direction)),
        y=float(distance * np.sin(direction)),
    )


def _merging(galaxy: GalaxyParameters, rng: np.random.Generator) -> GalaxyParameters:
    """Two galaxies at one redshift that have begun to pull each other apart: lopsided, mostly with a tail."""
    partner = _isolated_galaxy(rng)
    partner = replace(partner, lopsidedness=min(partner.lopsidedness + float(rng.uniform(0.2, 0.5)), 0.9))
    distance, direction = rng.uniform(0.2, 1.0), rng.uniform(0, 2 * np.pi)
    x, y = float(distance * np.cos(direction)), float(distance * np.sin(direction))
    # One tail sets off from either galaxy, away from the other, and both turn the same way.
    sense = rng.choice([-1, 1])
    tails = tuple(
        Tail(
            flux=float(rng.uniform(0.03, 0.15)),
            x=place[0],
            y=place[1],
            length=float(rng.uniform(0.5, 1.2)),
            angle=float(away + rng.normal(0, 0.5)),
            bend=float(sense * rng.uniform(0.5, 2.0)),
            size=float(rng.uniform(0.15, 0.35)),
        )
        for place, away in (((0.0, 0.0), direction + np.pi), ((x, y), direction))
        if rng.random() < 0.6
    )
    return replace(
        galaxy,
        lopsidedness=min(galaxy.lopsidedness + float(rng.uniform(0.2, 0.5)), 0.9),
        merger=Merger(partner, float(rng.uniform(0.3, 1.0)), x, y, tails),
    )
