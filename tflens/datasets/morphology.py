"""The joint distribution of shape, magnitude and redshift, as fitted to parametric fits of real COSMOS galaxies.

Two populations, one Sersic profile or a bulge with a disk, each a Gaussian copula: the marginals are tables of
quantiles, the dependence is the correlation matrix of the normal scores. Only these numbers are shipped, not the
catalogue they were fitted to (see `scripts/fit_morphology.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from tflens.errors import ParameterError

# What a 3.2 arcsec stamp can hold, and what a profile can be before it is a fit that has run into its bounds.
LIMITS = {
    "half_light_radius": (0.08, 0.8),
    "n_sersic": (0.4, 5.0),
    "q": (0.15, 1.0),
    "bulge_half_light_radius": (0.04, 0.8),
    "bulge_q": (0.15, 1.0),
    "disk_half_light_radius": (0.1, 0.8),
    "disk_q": (0.15, 1.0),
    "bulge_fraction": (0.05, 0.9),
}
MAJOR_AXIS_LIMIT = 0.8  # arcsec: half-light radius along the major axis; twice it is still inside the stamp


@dataclass(frozen=True)
class GaussianCopula:
    """A joint distribution given by quantiles of its marginals and the correlation of their normal scores.

    Args:
        variables: names of the D variables.
        probabilities: `[Q]`, increasing, the levels of the quantiles.
        quantiles: `[D, Q]`, the quantile of each variable at each level.
        correlation: `[D, D]`, correlation matrix of the normal scores.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> x = rng.normal(size=5000)
        >>> copula = GaussianCopula.fit({"a": x, "b": np.exp(x + 0.1 * rng.normal(size=5000))})
        >>> bool(copula.correlation[0, 1] > 0.98)
        True
        >>> sorted(copula.sample(np.random.default_rng(2)))
        ['a', 'b']
    """

    variables: tuple[str, ...]
    probabilities: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    correlation: NDArray[np.float64]

    @classmethod
    def fit(cls, samples: Mapping[str, NDArray[np.float64]], levels: int = 41) -> "GaussianCopula":
        """Fit to samples: a mapping of names to `[N]` values of the same N objects."""
        values = np.stack(list(samples.values()))
        # Equal values have the mean of their ranks: sorted, they would lie as the processor happens to put them.
        scores = ndtri((rankdata(values, axis=1) - 0.5) / values.shape[1])
        probabilities = np.linspace(0.005, 0.995, levels)
        return cls(
            variables=tuple(samples),
            probabilities=probabilities,
            quantiles=np.quantile(values, probabilities, axis=1).T,
            correlation=np.corrcoef(scores),
        )

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """One draw, as a mapping of names to values; tails beyond the outermost quantiles are not reached."""
        scores = np.linalg.cholesky(self.correlation) @ rng.standard_normal(len(self.variables))
        return {
            name: float(np.interp(ndtr(score), self.probabilities, quantiles))
            for name, score, quantiles in zip(self.variables, scores, self.quantiles, strict=True)
        }

    def to_dict(self) -> dict:
        return {
            "variables": list(self.variables),
            "probabilities": np.round(self.probabilities, 6).tolist(),
            "quantiles": np.round(self.quantiles, 5).tolist(),
            "correlation": np.round(self.correlation, 5).tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping) -> "GaussianCopula":
        return cls(
            variables=tuple(values["variables"]),
            probabilities=np.asarray(values["probabilities"]),
            quantiles=np.asarray(values["quantiles"]),
            correlation=np.asarray(values["correlation"]),
        )


@dataclass(frozen=True)
class Morphology:
    """The two populations: `single` Sersic galaxies, and `bulge_disk` ones with the share `bulge_disk_fraction`."""

    bulge_disk_fraction: float
    single: GaussianCopula
    bulge_disk: GaussianCopula

    @classmethod
    def fit(cls, catalogue: Mapping[str, NDArray]) -> "Morphology":
        """Fit to parametric fits in the columns of GalSim's COSMOS catalogue (see `scripts/fit_morphology.py`).

        Args:
            catalogue: columns `mag_f814w, zphot, use_bulgefit, sersic_n, sersic_hlr, sersic_q, bulge_hlr, bulge_q,
                bulge_phi, bulge_flux, disk_hlr, disk_q, disk_phi, disk_flux`, each `[N]`; AB magnitudes, circularised
                half-light radii in arcsec, angles in radians.

        Raises:
            ParameterError: a column is missing, or one of the populations has fewer than 20 galaxies.
        """
        missing = [name for name in _COLUMNS if name not in catalogue]
        if missing:
            raise ParameterError(f"Morphology.fit: the catalogue lacks the columns {', '.join(missing)}")
        column = {name: np.asarray(catalogue[name]) for name in _COLUMNS}
        both = column["use_bulgefit"].astype(bool)
        if min(both.sum(), (~both).sum()) < 20:
            raise ParameterError(
                f"Morphology.fit needs 20 galaxies of either population, got {(~both).sum()} with one Sersic profile "
                f"and {both.sum()} with bulge and disk"
            )
        single = {name: values[~both] for name, values in column.items()}
        double = {name: values[both] for name, values in column.items()}
        return cls(
            bulge_disk_fraction=round(float(both.mean()), 5),
            single=GaussianCopula.fit(
                {
                    "log_half_light_radius": np.log(single["sersic_hlr"]),
                    "log_n_sersic": np.log(single["sersic_n"]),
                    "q": single["sersic_q"],
                    "magnitude": single["mag_f814w"],
                    "log_redshift": np.log(single["zphot"]),
                }
            ),
            bulge_disk=GaussianCopula.fit(
                {
                    "log_bulge_half_light_radius": np.log(double["bulge_hlr"]),
                    "log_disk_half_light_radius": np.log(double["disk_hlr"]),
                    "bulge_q": double["bulge_q"],
                    "disk_q": double["disk_q"],
                    "bulge_fraction": double["bulge_flux"] / (double["bulge_flux"] + double["disk_flux"]),
                    "twist": (double["bulge_phi"] - double["disk_phi"] + np.pi / 2) % np.pi - np.pi / 2,
                    "magnitude": double["mag_f814w"],
                    "log_redshift": np.log(double["zphot"]),
                }
            ),
        )

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """One galaxy, drawn again until it lies within `LIMITS` and `MAJOR_AXIS_LIMIT`.

        Returns:
            `half_light_radius, n_sersic, q` of a single Sersic galaxy; or `bulge_half_light_radius,
            disk_half_light_radius, bulge_q, disk_q, bulge_fraction, twist` (arcsec, radians). With either, `magnitude`
            (AB, F814W) and `redshift`.

        Example:
            >>> draw = cosmos_morphology().sample(np.random.default_rng(3))
            >>> 0.04 <= min(value for name, value in draw.items() if "half_light_radius" in name) <= 0.8
            True
        """
        population = self.bulge_disk if rng.random() < self.bulge_disk_fraction else self.single
        while True:
            draw = {
                name.removeprefix("log_"): float(np.exp(value)) if name.startswith("log_") else value
                for name, value in population.sample(rng).items()
            }
            if _fits(draw):
                return draw

    def to_json(self) -> str:
        return json.dumps(
            {
                "description": "Gaussian copulas of shape, magnitude and redshift fitted to parametric fits of 598 "
                "COSMOS galaxies (GalSim example data, F814W < 23.5)",
                "bulge_disk_fraction": self.bulge_disk_fraction,
                "single": self.single.to_dict(),
                "bulge_disk": self.bulge_disk.to_dict(),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "Morphology":
        values = json.loads(text)
        return cls(
            bulge_disk_fraction=values["bulge_disk_fraction"],
            single=GaussianCopula.from_dict(values["single"]),
            bulge_disk=GaussianCopula.from_dict(values["bulge_disk"]),
        )


@cache
def cosmos_morphology() -> Morphology:
    """The distribution shipped with the package.

    Example:
        >>> 0.2 < cosmos_morphology().bulge_disk_fraction < 0.5
        True
    """
    return Morphology.from_json(files("tflens.datasets").joinpath("cosmos_morphology.json").read_text())


def _fits(draw: Mapping[str, float]) -> bool:
    within = all(low <= draw[name] <= high for name, (low, high) in LIMITS.items() if name in draw)
    prefixes = ("bulge_", "disk_") if "bulge_fraction" in draw else ("",)
    major = max(draw[f"{prefix}half_light_radius"] / draw[f"{prefix}q"] ** 0.5 for prefix in prefixes)
    return within and major <= MAJOR_AXIS_LIMIT


_COLUMNS = (
    "mag_f814w",
    "zphot",
    "use_bulgefit",
    "sersic_n",
    "sersic_hlr",
    "sersic_q",
    "bulge_hlr",
    "bulge_q",
    "bulge_phi",
    "bulge_flux",
    "disk_hlr",
    "disk_q",
    "disk_phi",
    "disk_flux",
)
