"""How the simulated galaxies compare with real ones: the figures, pictures and tables of the data card.

Real are the stamps of COSMOS galaxies; simulated are held-out galaxies of the data set. Each simulated galaxy is
observed as a real one was: with its PSF, its S/N, and noise of the same correlation.

    python scripts/data_card.py     # writes docs/results/data_card.json, docs/figures/, and the tables of docs/data.md
"""

import argparse
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import data_card_pictures as pictures
import data_card_tables as tables
import galsim
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.signal import fftconvolve
from scipy.stats import wasserstein_distance
from sersic_residual import SersicFit

from tflens.datasets.galaxy_drawing import RESOLUTION, draw_galaxy
from tflens.datasets.galaxy_parameters import GalaxyParameters, simulate_parameters
from tflens.datasets.half_light import half_light_radius
from tflens.datasets.pipeline import hst_psf
from tflens.datasets.records import Dataset, load_dataset
from tflens.files import write_atomically
from tflens.galaxies.morphology import STATISTICS, morphology_statistics
from tflens.galaxies.real_stamps import RealStamps, border_noise, load_real_stamps, noise_correlation
from tflens.run import commit, versions

ROOT = Path(__file__).resolve().parents[1]
STAMPS = ROOT.parent / "shared/data/galaxies/cosmos_f814w/stamps64_0p05_gauss0p15.npz"

COMPARED = tuple(name for name in STATISTICS if name != "flux")
"""`flux` is left out: the S/N is matched, so that it holds no information."""

APERTURE = 1.0
"""Radius, arcsec, of the circle in which the S/N of a real stamp is estimated."""

CACHE = ROOT / "cache/morphology"

SNR_OF_FIT = 50.0
SIGNIFICANCE = 0.01


@dataclass(frozen=True)
class Selection:
    """Some of the real stamps, and the simulated galaxies that are held against them."""

    name: str
    real: NDArray[np.bool_]
    simulated: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "cache/galaxies", help="what make_dataset.py wrote")
    parser.add_argument("--stamps", type=Path, default=STAMPS, help="real galaxies (default: %(default)s)")
    parser.add_argument("--count", type=int, default=500, help="simulated galaxies in a comparison")
    parser.add_argument("--fits", type=int, default=300, help="galaxies that are fitted with a Sersic profile")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--processes", type=int, default=1, help="that measure morphology")
    arguments = parser.parse_args()
    for path in (arguments.data, arguments.stamps):
        if not path.exists():
            parser.error(f"{path} does not exist")
    galaxies, stamps = load_dataset(arguments.data, "test"), load_real_stamps(arguments.stamps)
    source = {
        "reach": None,
        "beat": None,
        "seed": arguments.seed,
        "command": f"python scripts/data_card.py --count {arguments.count} --fits {arguments.fits} "
        f"--seed {arguments.seed}",
        "commit": commit(),
        "versions": versions(),
    }
    rng = np.random.default_rng(arguments.seed)
    observer = Observer(stamps, rng)
    records = describe(galaxies)
    figures = ROOT / "docs/figures"
    figures.mkdir(parents=True, exist_ok=True)
    for name, selection in select(galaxies, stamps, observer.snr).items():
        measured = compare(selection, galaxies, stamps, observer, arguments.count, arguments.processes)
        records += measured.records
        pictures.histograms(measured.real, measured.simulated["as drawn"], figures / f"morphology_{name}.png")
        if name == "all":
            pictures.contact_sheet(*measured.pairs, figures / "real_and_simulated.png")
    records += sersic_residuals(galaxies, arguments.fits, rng)
    records = [record | source for record in records]
    write_atomically(
        ROOT / "docs/results/data_card.json", lambda path: path.write_text(json.dumps(records, indent=1) + "\n")
    )
    tables.write_into(ROOT / "docs/data.md", records)
    for table in tables.TABLES.values():
        Console(width=150).print(table(records), markup=False, highlight=False)


def describe(galaxies: Dataset) -> list[dict]:
    """Percentiles of what is known of the galaxies, and the share of each structure."""
    seed = galaxies.manifest["seed"]
    parameters = [simulate_parameters(seed, int(index)) for index in galaxies.index]
    records = [
        {
            "id": "sample",
            "variant": name,
            "value": float(np.median(galaxies.metadata[name])),
            "spread": np.percentile(galaxies.metadata[name], [5, 16, 84, 95]).tolist(),
            "n": len(parameters),
        }
        for name in ("magnitude", "redshift", "half_light_radius", "n_sersic", "knot_fraction")
    ]
    structures = {
        "bulge and disk": lambda p: any(c.n_sersic == 4.0 for c in p.components[:-1]),
        "bar": lambda p: any(c.n_sersic == 0.5 for c in p.components[:-1]),
        "knots": lambda p: p.knots,
        "spiral arms": lambda p: p.spiral,
        "ring": lambda p: p.ring,
        "dust lane": lambda p: p.dust_lane,
        "lopsidedness above 0.2": lambda p: p.lopsidedness > 0.2,
        "companion": lambda p: p.companion,
        "merger": lambda p: p.merger,
    }
    return records + [
        {
            "id": "structure",
            "variant": name,
            "value": float(np.mean([bool(has(p)) for p in parameters])),
            "n": len(parameters),
        }
        for name, has in structures.items()
    ]


class Observer:
    """Observes galaxies as the stamps were: Gaussian PSF, and noise of the stamps' correlation.

    Args:
        stamps: the real ones.
        rng: of the noise.

    Attributes:
        sigma: noise per pixel of the stamps `[N]`.
        snr: S/N of the stamps `[N]`: the root of what the squares of the pixels within `APERTURE` exceed the noise by.
        psf: kernel of the stamps.
    """

    def __init__(self, stamps: RealStamps, rng: np.random.Generator) -> None:
        n, scale = stamps.images.shape[-1], stamps.pixel_scale
        self.rng = rng
        self.sigma = border_noise(stamps.images)
        axis = (np.arange(n) - (n - 1) / 2) * scale
        self.inside = np.hypot(axis[:, None], axis) < APERTURE
        squares = (stamps.images / self.sigma[:, None, None]) ** 2 * self.inside
        power = np.sum(squares, axis=(1, 2)) - self.inside.sum()
        self.snr = np.sqrt(np.maximum(power, 0))
        self.psf = _gaussian(stamps.psf_fwhm / galsim.Gaussian(sigma=1).fwhm, scale)
        # Simulated galaxies have been blurred already, by their resolution and by the pixel; the stamps' PSF holds all.
        sigma2 = (stamps.psf_fwhm**2 - RESOLUTION**2) / galsim.Gaussian(sigma=1).fwhm ** 2 - scale**2 / 12
        self.kernel = _gaussian(np.sqrt(sigma2), scale)
        correlation = noise_correlation(stamps.images / self.sigma[:, None, None])
        reach = correlation.shape[0] // 2
        wrapped = np.zeros((n, n))
        wrapped[: 2 * reach + 1, : 2 * reach + 1] = correlation
        power = np.maximum(np.fft.fft2(np.roll(wrapped, (-reach, -reach), (0, 1))).real, 0)
        self.amplitude = np.sqrt(power / power.mean())

    def __call__(self, galaxy: NDArray[np.floating], snr: float) -> NDArray[np.float64]:
        """A galaxy `[n, n]` before the PSF, observed with unit noise at a S/N within `APERTURE`."""
        signal = fftconvolve(galaxy.astype(np.float64), self.kernel, mode="same")
        white = self.rng.standard_normal(signal.shape)
        noise = np.fft.ifft2(np.fft.fft2(white) * self.amplitude).real
        return signal * snr / np.sqrt(np.sum(signal**2 * self.inside)) + noise


def select(galaxies: Dataset, stamps: RealStamps, snr: NDArray[np.float64]) -> dict[str, Selection]:
    """Two ways to choose what is comparable, for the simulation follows galaxies brighter than most of the stamps."""
    everything = np.ones(len(galaxies.index), bool)
    limit = 23.5
    bright = galaxies.metadata["magnitude"] > stamps.mag[stamps.mag < limit].min()
    return {
        "all": Selection("all stamps of S/N above 40", snr > 40, everything),
        "bright": Selection(f"bright stamps (F814W < {limit})", stamps.mag < limit, bright),
    }


@dataclass(frozen=True)
class Comparison:
    """Statistics of the real stamps and of every variant of the simulated, and pairs of images to look at."""

    records: list[dict]
    real: dict[str, NDArray[np.float64]]
    simulated: dict[str, dict[str, NDArray[np.float64]]]
    pairs: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def compare(
    selection: Selection, galaxies: Dataset, stamps: RealStamps, observer: Observer, count: int, processes: int
) -> Comparison:
    """The statistics of real stamps beside those of simulated galaxies that have their S/N, each as often."""
    images, sigma, snr = (values[selection.real] for values in (stamps.images, observer.sigma, observer.snr))
    chosen = np.flatnonzero(selection.simulated)
    repeats = max(1, count // len(images))
    chosen = chosen[: repeats * len(images)]
    seed = galaxies.manifest["seed"]
    variants = {
        "as drawn": galaxies.images[chosen],
        "smooth": np.stack([draw_galaxy(smooth(simulate_parameters(seed, int(i)))) for i in galaxies.index[chosen]]),
    }
    real = morphology_statistics(images, sigma, observer.psf, processes, CACHE)
    simulated, observed = {}, {}
    for name, truth in variants.items():
        observed[name] = np.stack([observer(galaxy, snr[i % len(snr)]) for i, galaxy in enumerate(truth)])
        simulated[name] = morphology_statistics(observed[name], np.ones(len(truth)), observer.psf, processes, CACHE)
    records = [
        record
        for statistic in COMPARED
        for record in _distances(
            statistic,
            selection.name,
            real[statistic],
            {name: values[statistic] for name, values in simulated.items()},
            observer.rng,
        )
    ]
    brightest = np.argsort(-snr)[:16]
    pairs = images[brightest] / sigma[brightest, None, None], observed["as drawn"][brightest], snr[brightest]
    return Comparison(records, real, simulated, pairs)


def smooth(parameters: GalaxyParameters) -> GalaxyParameters:
    """The fit to the real galaxy alone, with nothing put on it."""
    return GalaxyParameters(parameters.components)


def sersic_residuals(galaxies: Dataset, count: int, rng: np.random.Generator) -> list[dict]:
    """Share of galaxies whose best single Sersic fit leaves more than the noise, within twice the half-light radius."""
    pixel_scale, pixels = galaxies.manifest["pixel_scale"], galaxies.manifest["stamp"]
    psf = hst_psf(pixel_scale)
    fit = SersicFit(psf, pixels, pixel_scale)
    seed = galaxies.manifest["seed"]
    parameters = [simulate_parameters(seed, int(index)) for index in galaxies.index[:count]]
    variants = {
        "one Sersic profile": [replace(p, components=(max(p.components, key=lambda c: c.flux),)) for p in parameters],
        "bulge and disk, or one Sersic profile": parameters,
    }
    drawn = {name: [draw_galaxy(smooth(p), pixels, pixel_scale) for p in ps] for name, ps in variants.items()}
    drawn["as drawn"] = list(galaxies.images[:count])
    records = []
    for name, images in drawn.items():
        radius, distance = half_light_radius(np.stack(images))
        left = []
        for image, r50, distances in zip(images, radius, distance, strict=True):
            signal = fftconvolve(image.astype(np.float64), psf, mode="same")
            sigma = np.sqrt(np.sum(signal**2)) / SNR_OF_FIT
            left.append(fit(signal + sigma * rng.standard_normal(signal.shape), sigma, distances < 2 * max(r50, 3)))
        significant = np.mean([found.chance < SIGNIFICANCE for found in left])
        excess = np.array([(found.chi2 - found.degrees) / np.sqrt(2 * found.degrees) for found in left])
        records.append(
            {
                "id": "sersic",
                "variant": name,
                "value": float(significant),
                "spread": float(np.sqrt(significant * (1 - significant) / len(left))),
                "null": SIGNIFICANCE,
                "n": len(left),
                "excess": np.percentile(excess, [16, 50, 84]).tolist(),
                "snr": SNR_OF_FIT,
            }
        )
    return records


def _distances(
    statistic: str,
    selection: str,
    real: NDArray[np.float64],
    simulated: dict[str, NDArray[np.float64]],
    rng: np.random.Generator,
) -> list[dict]:
    """Wasserstein distance in standard deviations of the simulated; beside it that of as many simulated galaxies."""
    found = real[np.isfinite(real)]
    records = []
    for name, values in simulated.items():
        sample = values[np.isfinite(values)]
        null = [wasserstein_distance(rng.choice(sample, len(found)), sample) / sample.std() for _ in range(500)]
        distance = wasserstein_distance(found, sample) / sample.std()
        records.append(
            {
                "id": "morphology",
                "selection": selection,
                "variant": name,
                "statistic": statistic,
                "value": float(distance),
                "null": float(np.mean(null)),
                "null_95": float(np.quantile(null, 0.95)),
                "chance": float(np.mean(np.array(null) >= distance)),
                "n": len(found),
                "n_simulated": len(sample),
                "failed": [float(np.mean(~np.isfinite(real))), float(np.mean(~np.isfinite(values)))],
                "real": np.percentile(found, [16, 50, 84]).tolist(),
                "simulated": np.percentile(sample, [16, 50, 84]).tolist(),
            }
        )
    return records


def _gaussian(sigma: float, pixel_scale: float) -> NDArray[np.float64]:
    """Sampled at the centres of the pixels, as the stamps' PSF is."""
    axis = np.arange(-10, 11) * pixel_scale
    kernel = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / sigma**2)
    return kernel / kernel.sum()


if __name__ == "__main__":
    main()
