"""Distances of the background universe, from astropy, in the form that lensing by several planes needs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tflens.errors import ParameterError

if TYPE_CHECKING:
    from astropy.cosmology import FLRW


def cosmology(description: "FLRW | str | Mapping[str, float]") -> "FLRW":
    """An astropy cosmology from itself, the name of one of astropy's, or the arguments of a flat Lambda-CDM.

    Raises:
        ParameterError: astropy has no cosmology of that name, or the arguments are not those of `FlatLambdaCDM`.

    Example:
        >>> cosmology({"H0": 70.0, "Om0": 0.3}).Om0, cosmology("Planck18").name
        (0.3, 'Planck18')
    """
    import astropy.cosmology as astropy_cosmology

    if isinstance(description, astropy_cosmology.FLRW):
        return description
    try:
        if isinstance(description, Mapping):
            return astropy_cosmology.FlatLambdaCDM(**description)
        if description.startswith("!astropy"):
            return astropy_cosmology.Cosmology.from_format(description, format="yaml")
        if description in astropy_cosmology.available:
            return getattr(astropy_cosmology, description)
    except (TypeError, ValueError, AttributeError) as error:
        raise ParameterError(f"{description!r} does not describe a cosmology: {error}") from error
    raise ParameterError(f"astropy has no cosmology {description!r}; it has {list(astropy_cosmology.available)}")


def describe(universe: "FLRW") -> str:
    """A string from which `cosmology` rebuilds an astropy cosmology: its name, or all of it as astropy's YAML.

    Example:
        >>> from astropy.cosmology import FlatLambdaCDM, Planck18
        >>> describe(Planck18), cosmology(describe(FlatLambdaCDM(H0=70, Om0=0.3))).Om0
        ('Planck18', 0.3)
    """
    import astropy.cosmology as astropy_cosmology

    if universe.name in astropy_cosmology.available and cosmology(universe.name) == universe:
        return universe.name
    return universe.to_format("yaml")


def transverse_distance(universe: "FLRW", z: float) -> float:
    """Transverse comoving distance to redshift z, Mpc.

    Example:
        >>> from astropy.cosmology import FlatLambdaCDM
        >>> round(transverse_distance(FlatLambdaCDM(H0=70, Om0=0.3), 1.0), 2)
        3303.83
    """
    return float(universe.comoving_transverse_distance(z).to_value("Mpc"))


def lensing_efficiency(universe: "FLRW", redshifts: Sequence[float], z_source: float) -> np.ndarray:
    """h(z) = T(z, z_source) / T(z), with T the transverse comoving distance; it falls from infinity to 0 at the source.

    A lens at z_i bends light of the plane at z_j >= z_i by the fraction 1 - h(z_j) / h(z_i) of what it does at the
    source, in any Friedmann universe: (1 - h_j / h_i) = D_ij D_s / (D_j D_is). Negative behind the source.

    Example:
        >>> from astropy.cosmology import FlatLambdaCDM
        >>> [round(float(h), 4) for h in lensing_efficiency(FlatLambdaCDM(H0=70, Om0=0.3), [0.5, 2.0], 2.0)]
        [1.7427, 0.0]
    """
    curvature = universe.Ok0 / universe.hubble_distance.to_value("Mpc") ** 2

    # T_12 = T_2 C_1 - T_1 C_2 with C = sqrt(1 + curvature T^2), the (hyperbolic) cosine of the comoving distance.
    def distance_and_cosine(z: float) -> tuple[float, float]:
        distance = transverse_distance(universe, z)
        return distance, float(np.sqrt(1 + curvature * distance**2))

    source, source_cosine = distance_and_cosine(z_source)
    pairs = [distance_and_cosine(z) for z in redshifts]
    return np.array([(source * cosine - distance * source_cosine) / distance for distance, cosine in pairs])
