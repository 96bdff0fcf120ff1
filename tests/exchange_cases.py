"""Scenes that the tests of exchange formats convert."""

import numpy as np

from tflens.light import (
    CenteredPixels,
    CoreSersic,
    DeVaucouleurs,
    Exponential,
    Gaussian,
    LightProfile,
    MultiGaussian,
    Pixelated,
    Sersic,
    Shapelets,
    Uniform,
)
from tflens.mass import (
    DPIE,
    EPL,
    NFW,
    NIE,
    SIE,
    SIS,
    TNFW,
    ConvergenceSheet,
    EllipticalMass,
    EllipticalPotential,
    GaussianMass,
    Hernquist,
    MassProfile,
    MultiGaussianMass,
    Multipole,
    PointMass,
    SersicMass,
    Shear,
)
from tflens.model import LensModel
from tflens.observation import Observation
from tflens.parameters import from_base
from tflens.scene import Scene

MASS: list[MassProfile] = [
    EPL(tolerance=1e-15),
    SIE(tolerance=1e-15),
    SIS(),
    NIE(),
    DPIE(),
    PointMass(),
    NFW(),
    TNFW(),
    Hernquist(),
    GaussianMass(),
    SersicMass(),
    MultiGaussianMass([0.3, 0.8]),
    Shear(),
    ConvergenceSheet(),
    Multipole(3, r_E=1.2),
    EllipticalPotential(NFW()),
    EllipticalPotential(TNFW()),
    EllipticalPotential(Hernquist()),
    EllipticalPotential(SersicMass()),
    EllipticalMass(GaussianMass(), nodes=48),
]
LIGHT: list[LightProfile] = [
    Sersic(),
    Exponential(),
    DeVaucouleurs(),
    CoreSersic(2.5),
    Gaussian(),
    MultiGaussian([0.1, 0.4]),
    Shapelets(2),
    Uniform(),
]


def random_scene(
    lens: list[MassProfile],
    lens_light: list[LightProfile],
    sources: list[LightProfile],
    *,
    seed: int = 1,
    sky: bool = True,
    priors: dict | None = None,
) -> Scene:
    """A scene drawn from the priors, in float64; sources of pixels get a random image, not square."""
    rng = np.random.default_rng(seed)
    model = LensModel(lens, lens_light, sources, sky=sky, priors=priors, dtype="float64")
    values: dict[str, float] = {}
    for entry in model.entries:
        u = rng.normal(size=len(entry.names))
        drawn = np.atleast_1d(from_base(entry.prior, u if len(u) > 1 else u[0]).numpy())
        values |= dict(zip(entry.names, map(float, drawn), strict=True))
    values |= {name: float(rng.uniform(5, 30)) for name in model.amplitude_names}
    if sky:
        values["sky.amp"] = -0.013
    images = [rng.uniform(0, 1, (7, 9)) for _ in model.of_images]
    return Scene(model, values, tuple(image / image.sum() for image in images))


def lens() -> Scene:
    """A lens as usual: power law and shear, two Sersic profiles in front, one behind."""
    return random_scene([EPL(tolerance=1e-15), Shear()], [Sersic(), Exponential()], [Sersic()])


def pixels(centered: bool = True) -> Scene:
    """The same with a source of pixels beside the Sersic one."""
    kind = CenteredPixels if centered else Pixelated
    return random_scene([SIE(tolerance=1e-15), Shear()], [DeVaucouleurs()], [Sersic(), kind(0.11)], seed=2)


def observe(scene: Scene, shape: tuple[int, int] = (41, 41)) -> Observation:
    """An observation of a scene with noise and a block of bad pixels."""
    y, x = np.mgrid[-3:4, -4:5]
    psf = np.exp(-(x**2 + y**2) / 3.0)
    noise = np.full(shape, 0.05)
    empty = Observation(np.arange(np.prod(shape), dtype=float).reshape(shape), noise, psf / psf.sum(), 0.1)
    image = scene.image(empty) + np.random.default_rng(4).normal(0, noise)
    mask = np.ones(shape, bool)
    mask[3:6, 5:11] = False
    return Observation(image, noise, psf / psf.sum(), 0.1, mask=mask, name="test", metadata={"FILTER": "F814W"})
