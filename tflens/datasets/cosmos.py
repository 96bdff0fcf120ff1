"""Real galaxies: stamps of one size, pixel and PSF from a catalogue of GalSim's `RealGalaxyCatalog` form.

Such are the COSMOS training samples to F814W = 23.5 and 25.2 (56,000 and 87,000 galaxies; Mandelbaum et al. 2012,
MNRAS 420, 1518; 2014, ApJS 212, 5) as the program `galsim_download_cosmos` lays them down. An image is deconvolved
from the PSF that the telescope had and convolved with the target PSF; a pixel holds counts/s, noise included.

**S/N.** The S/N of a stamp is sqrt(sum (signal / sigma)^2), where the signal has no noise. From the noisy stamp d it
is estimated as S^2 = (sum_A d^2 - N_A v) / sigma^2, with v the variance of the noise that came with the galaxy, sigma^2
that of the noise it leaves with, and A a circle of N_A pixels chosen by the size in the catalogue (the whole stamp
where the catalogue knows none), never by the pixels. S^2 is unbiased for the light inside A, whatever the correlation
of the noise, if v is right; its variance is 2 N_A k (v / sigma^2)^2 plus 4 S^2 times at most the largest eigenvalue of
the noise's covariance over sigma^2, with k the sum of the squared noise correlations. The photon noise of the galaxy
itself is not in the catalogue and not in sigma.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, get_args

import galsim
import numpy as np
from astropy.io import fits
from galsim.real import real_galaxy_bandpasses
from numpy.typing import NDArray

from tflens.datasets.records import SHARES, Key, Record, Rejected, write_dataset
from tflens.errors import ParameterError

Noise = Literal["whitened", "symmetrized", "correlated"]
EXCLUSION_LEVELS = ("marginal", "bad_stamp", "bad_fits", "none")
"""GalSim's levels of quality cuts, the strictest first."""

LARGEST_GAIN = 20.0
"""A target PSF may amplify no spatial frequency of a galaxy's image by more than this: the PSF is not known so well."""


@dataclass(frozen=True)
class Catalogue:
    """The galaxies of a catalogue file that pass the quality cuts, in the order in which their files are read."""

    file: Path
    keys: tuple[str, ...]
    exclusion: str

    @classmethod
    def open(cls, path: str | Path, exclusion: str = "auto") -> "Catalogue":
        """Opens a catalogue, without its images.

        Args:
            path: the catalogue file, or the folder that holds one `real_galaxy_catalog*.fits`.
            exclusion: level of GalSim's quality cuts: `"marginal"`, `"bad_stamp"`, `"bad_fits"`, `"none"`, or
                `"auto"` for the strictest that the catalogue has the columns for.

        Raises:
            ParameterError: no catalogue, image files that it names are missing, the cuts need columns it does not
                have, or no galaxy passes them.
        """
        file = _find(Path(path))
        real = _read(file, lambda: galsim.RealGalaxyCatalog(file.name, dir=str(file.parent)))
        files = [*set(real.gal_file_name), *set(real.psf_file_name), *set(real.noise_file_name or ())]
        missing = sorted(Path(name.strip()).name for name in files if not Path(name.strip()).exists())
        if missing:
            raise ParameterError(
                f"cosmos: {file} names image files that are not beside it: {', '.join(missing[:3])}"
                f"{' and others' if len(missing) > 3 else ''}; copy them there"
            )
        if exclusion not in ("auto", *EXCLUSION_LEVELS):
            raise ParameterError(f"cosmos: exclusion must be auto or one of {EXCLUSION_LEVELS}, got {exclusion!r}")
        rows, used = _select(file, len(real), EXCLUSION_LEVELS if exclusion == "auto" else (exclusion,))
        if len(rows) == 0:
            raise ParameterError(f"cosmos: no galaxy of {file} passes the cuts {used!r}; choose a weaker exclusion")
        # Galaxies of one file are made together: it is read once, and closed.
        places = {row: (real.gal_file_name[row], int(real.gal_hdu[row])) for row in rows}
        identities = real.ident
        return cls(file, tuple(identities[row] for row in sorted(rows, key=places.__getitem__)), used)


def make_dataset(
    catalogue: str | Path | Catalogue,
    directory: str | Path,
    *,
    stamp: int = 64,
    pixel_scale: float = 0.05,
    psf: str = "gaussian:0.15",
    snr: tuple[float, float] = (15.0, 50.0),
    noise: Noise = "whitened",
    seed: int = 1,
    exclusion: str = "auto",
    processes: int = 1,
    shard_size: int = 500,
    shares: tuple[float, float, float] = SHARES,
    progress: Callable[[int, int], object] = lambda done, kept: None,
) -> Path:
    """Makes a dataset of a catalogue; a run that was killed goes on where it stopped (see `write_dataset`).

    A record has the stamp in counts/s per pixel, noise included and nothing clipped, its number in the catalogue, and
    the metadata `flux` (of the catalogue's magnitude, counts/s), `magnitude` (AB), `half_light_radius` (arcsec; of the
    Sersic fit, circularised; where there is none `flux_radius`), `flux_radius` (arcsec; as observed, PSF included),
    `redshift` (photometric), `snr`, `sigma` (of a pixel's noise, counts/s) and `noise_correlation` (of neighbours; 0 if
    whitened). What the catalogue does not know is NaN.

    The kernel of the target PSF, `[odd, odd]` on the pixels of the stamps and with the pixel in it, is in the manifest
    as `psf`. With `psf="own"` it is None there and in each record instead.

    Args:
        catalogue: file, folder, or `Catalogue.open(...)`.
        directory: of the dataset; made if missing.
        stamp: pixels on a side.
        pixel_scale: arcsec.
        psf: `"gaussian:FWHM"` with the FWHM in arcsec; `"hst"`, the diffraction pattern of
            `tflens.datasets.pipeline.hst_psf`; or `"own"`: the stamp as it was observed, resampled. A target sharper
            than what ACS delivers amplifies the noise: on COSMOS galaxies by up to 1.1 at FWHM 0.15, 2 at 0.11 and 9
            for `"hst"`. With `"own"` on other pixels than the catalogue's, sigma is 1 to 4 % too large: interpolation
            smooths the noise.
        snr: lowest and highest S/N (see above).
        noise: `"whitened"` (noise is added until it is white), `"symmetrized"` (until its correlation has four-fold
            symmetry) or `"correlated"` (nothing is added, sigma is that of a pixel).
        seed: of the noise that is added. That of a galaxy depends on the seed and its name alone.
        exclusion: see `Catalogue.open`; not used if a `Catalogue` is given.
        processes: worker processes.
        shard_size: galaxies in a block, all in memory at once.
        shares: of train, validation and test.
        progress: called with the number of galaxies looked at and kept.

    Returns:
        The directory.

    Raises:
        ParameterError: a setting is out of range, or what `Catalogue.open` and `write_dataset` raise it for.
    """
    if stamp < 8:
        raise ParameterError(f"cosmos: stamp must be at least 8 pixels, got {stamp!r}")
    if not pixel_scale > 0:
        raise ParameterError(f"cosmos: pixel_scale must be positive (arcsec), got {pixel_scale!r}")
    if not 0 <= snr[0] < snr[1]:
        raise ParameterError(f"cosmos: snr must be two increasing numbers, not negative, got {snr!r}")
    if noise not in get_args(Noise):
        raise ParameterError(f"cosmos: noise must be one of {', '.join(get_args(Noise))}, got {noise!r}")
    kernel = target_kernel(psf, pixel_scale)
    if not isinstance(catalogue, Catalogue):
        catalogue = Catalogue.open(catalogue, exclusion)
    settings = _Settings(stamp, pixel_scale, psf, tuple(map(float, snr)), noise, seed)
    manifest = {
        "kind": "real galaxies",
        "units": "counts/s per pixel",
        "catalogue": catalogue.file.name,
        "catalogue_digest": blake2b(catalogue.file.read_bytes(), digest_size=8).hexdigest(),
        "exclusion": catalogue.exclusion,
        **asdict(settings),
        "psf": None if kernel is None else kernel.tolist(),
        "psf_name": psf,
        "galsim": galsim.__version__,
    }
    make = _Maker(str(catalogue.file), settings, kernel)
    return write_dataset(
        directory,
        manifest,
        catalogue.keys,
        make,
        processes=processes,
        shard_size=shard_size,
        shares=shares,
        progress=progress,
    )


def target_kernel(psf: str, pixel_scale: float) -> NDArray[np.float32] | None:
    """The kernel of a target PSF on pixels of the stamps: `[odd, odd]`, of unit sum; None for `"own"`.

    Raises:
        ParameterError: `psf` is none of `"gaussian:FWHM"`, `"hst"` and `"own"`.

    Example:
        >>> kernel = target_kernel("gaussian:0.15", 0.05)
        >>> kernel.shape, abs(float(kernel.sum()) - 1) < 1e-6
        ((13, 13), True)
    """
    if psf == "own":
        return None
    if psf == "hst":
        from tflens.datasets.pipeline import hst_psf  # loads TensorFlow, which workers do without

        return hst_psf(pixel_scale, _psf_size(pixel_scale))
    fwhm = _gaussian_fwhm(psf)
    half = int(np.ceil(2 * fwhm / pixel_scale))
    r2 = np.sum(np.square(np.indices((2 * half + 1, 2 * half + 1)) - half), axis=0) * pixel_scale**2
    kernel = np.exp(-4 * np.log(2) * r2 / fwhm**2)
    return (kernel / kernel.sum()).astype(np.float32)


@dataclass(frozen=True)
class _Settings:
    stamp: int
    pixel_scale: float
    psf: str
    snr: tuple[float, float]
    noise: Noise
    seed: int


@dataclass(frozen=True)
class _Maker:
    """Makes the record of a galaxy; small, for it is sent to the workers, which open the catalogue themselves."""

    file: str
    settings: _Settings
    kernel: NDArray[np.float32] | None

    def __call__(self, key: Key) -> Record | Rejected:
        catalogue = _opened(self.file)
        row = catalogue.rows[str(key)]
        settings = self.settings
        digest = blake2b(f"{settings.seed} {key}".encode(), digest_size=4).digest()
        rng = galsim.BaseDeviate(int.from_bytes(digest, "big") % 2**31 + 1)
        if not catalogue.real.variance[row] > 0:
            return Rejected("its noise variance is not positive")
        try:
            galaxy = catalogue.galaxy(row, settings.stamp * settings.pixel_scale, rng)
        except (OSError, ValueError, TypeError, LookupError, galsim.GalSimError) as error:
            return Rejected(f"cannot be read ({type(error).__name__})")
        if not np.all(np.isfinite(galaxy.gal_image.array)):
            return Rejected("has pixels that are not finite")
        metadata = catalogue.metadata(row)
        try:
            stamp = _draw(galaxy, catalogue.real.getNoise(row, rng), settings, self.kernel, metadata["flux_radius"])
        except galsim.GalSimError as error:
            return Rejected(f"cannot be drawn ({type(error).__name__})")
        if isinstance(stamp, Rejected):
            return stamp
        lowest, highest = settings.snr
        if not lowest <= stamp.snr <= highest:
            return Rejected(f"S/N below {lowest:g}" if stamp.snr < lowest else f"S/N above {highest:g}")
        metadata |= {"snr": stamp.snr, "sigma": stamp.sigma, "noise_correlation": stamp.correlation}
        number = int(key) if str(key).lstrip("-").isdigit() else row
        return Record(stamp.image, number, metadata, stamp.psf)


@dataclass(frozen=True)
class _Stamp:
    image: NDArray[np.float32]
    sigma: float
    snr: float
    correlation: float
    psf: NDArray[np.float32] | None


def _draw(
    galaxy: galsim.RealGalaxy,
    own_noise: galsim.BaseCorrelatedNoise,
    settings: _Settings,
    kernel: NDArray[np.float32] | None,
    flux_radius: float,
) -> _Stamp | Rejected:
    """The galaxy on the pixels of the dataset, with its noise as wanted and its S/N."""
    n, scale = settings.stamp, settings.pixel_scale
    own_psf = None
    if kernel is None:
        profile, noise = galaxy.original_gal, own_noise
        size = _psf_size(scale)
        own_psf = galaxy.original_psf.drawImage(nx=size, ny=size, scale=scale, method="no_pixel", dtype=float).array
        own_psf = (own_psf / own_psf.sum()).astype(np.float32)
    else:
        target = (
            galsim.InterpolatedImage(galsim.Image(kernel.astype(float), scale=scale), flux=1.0)
            if settings.psf == "hst"
            else galsim.Gaussian(fwhm=_gaussian_fwhm(settings.psf))
        )
        if _largest_gain(galaxy.original_psf, target, scale) > LARGEST_GAIN:
            return Rejected("the target PSF is sharper than its own")
        profile = galsim.Convolve([galaxy, target])
        noise = profile.noise
    # GalSim keeps the noise of the original pixels (its issue 1071): counts in a pixel grow with its area.
    noise = noise * (scale / galaxy.pixel_scale) ** 4
    image = profile.drawImage(nx=n, ny=n, scale=scale, method="no_pixel", dtype=float)

    correlations = noise.drawImage(galsim.ImageD(3, 3, scale=scale)).array
    own_variance = variance = float(correlations[1, 1])
    correlation = float((correlations[1, 2] + correlations[2, 1]) / 2 / own_variance)
    inside = _aperture(n, scale, 3 * flux_radius + 0.3)
    power = np.sum(image.array[inside] ** 2) - np.count_nonzero(inside) * own_variance
    if settings.noise == "whitened":
        variance, correlation = float(noise.whitenImage(image)), 0.0
    elif settings.noise == "symmetrized":
        added = float(noise.symmetrizeImage(image, order=4)) - own_variance
        correlation *= own_variance / (own_variance + added)  # a lower bound: what was added is correlated, too
        variance = own_variance + added
    if not np.all(np.isfinite(image.array)):
        return Rejected("its stamp has pixels that are not finite")
    snr = float(np.sqrt(max(power, 0.0) / variance))
    return _Stamp(image.array.astype(np.float32), float(np.sqrt(variance)), snr, correlation, own_psf)


def _largest_gain(own: galsim.GSObject, target: galsim.GSObject, scale: float) -> float:
    """The largest ratio of the transforms of two PSFs, along four directions, up to the Nyquist frequency."""
    frequencies = np.linspace(0, np.pi / scale, 33)
    return max(
        abs(target.kValue(k * c, k * s)) / max(abs(own.kValue(k * c, k * s)), 1e-6)
        for c, s in ((1, 0), (0, 1), (np.sqrt(0.5), np.sqrt(0.5)), (np.sqrt(0.5), -np.sqrt(0.5)))
        for k in frequencies
    )


def _aperture(n: int, scale: float, radius: float) -> NDArray[np.bool_]:
    """The pixels within a radius (arcsec) of the centre of a stamp; all of them if it is not known."""
    axis = (np.arange(n) - (n - 1) / 2) * scale
    return np.hypot(*np.meshgrid(axis, axis)) <= (radius if np.isfinite(radius) else np.inf)


class _Opened:
    """A catalogue as a worker has it: tables in memory, image files opened when they are needed."""

    def __init__(self, file: Path) -> None:
        self.real = galsim.RealGalaxyCatalog(file.name, dir=str(file.parent), preload=False)
        self.rows = {name: row for row, name in enumerate(self.real.ident)}
        self._magnitudes = self._column("mag")
        self._noise_means = self._column("noise_mean")
        self._fits: Mapping[str, NDArray[Any]] = {}
        self._fit_rows: dict[str, int] = {}
        companion = file.with_name(f"{file.stem}_fits{file.suffix}")
        if companion.exists():
            table = np.array(fits.getdata(companion))
            names = {name.lower(): name for name in table.dtype.names}
            wanted = ("flux_radius", "zphot", "hlr", "use_bulgefit", "fit_status")
            self._fits = {name: table[names[name]] for name in wanted if name in names}
            self._fit_rows = {str(identity): row for row, identity in enumerate(table[names["ident"]])}

    def galaxy(self, row: int, width: float, rng: galsim.BaseDeviate) -> galsim.RealGalaxy:
        """The galaxy, with noise around it to 1.5 widths (arcsec) of its stamp: the PSF reaches over the edge."""
        if len(self.real.loaded_files) > _OPEN_FILES:
            self.real.close()  # the images that were read stay in memory as long as their file is open
        image = self.real.getGalImage(row)
        if self._noise_means is not None:
            image -= float(self._noise_means[row])
        data = (image, self.real.getPSFImage(row), *self.real.getNoiseProperties(row))
        return galsim.RealGalaxy(data, rng=rng, noise_pad_size=1.5 * width)

    def metadata(self, row: int) -> dict[str, float]:
        pixel_scale = float(self.real.pixel_scale[row])
        magnitude = float(self._magnitudes[row]) if self._magnitudes is not None else np.nan
        _, zero_point = real_galaxy_bandpasses.get(str(self.real.band[row]).strip().upper(), (None, np.nan))
        flux_radius = pixel_scale * float(self._fit("flux_radius", row, np.nan))
        sersic = np.atleast_1d(self._fit("hlr", row, np.nan))[0]
        viable = np.isfinite(sersic) and sersic > 0 and 0 < np.atleast_1d(self._fit("fit_status", row, 1))[-1] < 5
        return {
            "flux": float(10 ** (-0.4 * (magnitude - zero_point))),
            "magnitude": magnitude,
            "half_light_radius": float(sersic) if viable else flux_radius,
            "flux_radius": flux_radius,
            "redshift": float(self._fit("zphot", row, np.nan)),
        }

    def _fit(self, name: str, row: int, default: Any) -> Any:
        fit_row = self._fit_rows.get(self.real.ident[row])
        return default if fit_row is None or name not in self._fits else self._fits[name][fit_row]

    def _column(self, name: str) -> NDArray[Any] | None:
        try:
            return np.asarray(self.real.cat.field(name))
        except KeyError:
            return None


@lru_cache(maxsize=1)
def _opened(file: str) -> _Opened:
    return _Opened(Path(file))


def _find(path: Path) -> Path:
    if path.is_dir():
        found = [
            file
            for file in sorted(path.glob("real_galaxy_catalog*.fits"))
            if not file.stem.endswith(("_fits", "_selection"))
        ]
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise ParameterError(
                f"cosmos: {path} should hold one real_galaxy_catalog*.fits, found {names}; name the file"
            )
        return found[0]
    if not path.exists():
        raise ParameterError(
            f"cosmos: there is no catalogue {path}; the program galsim_download_cosmos fetches those of COSMOS"
        )
    return path


def _read(file: Path, read: Callable[[], galsim.RealGalaxyCatalog]) -> galsim.RealGalaxyCatalog:
    try:
        catalogue = read()
        for column in ("ident", "gal_file_name", "psf_file_name", "gal_hdu", "psf_hdu", "pixel_scale", "variance"):
            getattr(catalogue, column)
    except (OSError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ParameterError(
            f"cosmos: {file} is not a catalogue of real galaxies as GalSim knows it: {error}"
        ) from error
    return catalogue


def _select(file: Path, count: int, levels: tuple[str, ...]) -> tuple[list[int], str]:
    """The rows that pass the first of the cuts that the catalogue has the columns for."""
    failures = []
    for level in levels:
        try:
            sample = galsim.COSMOSCatalog(file.name, dir=str(file.parent), use_real=True, exclusion_level=level)
        except (OSError, KeyError, ValueError, IndexError) as error:
            if level == "none":  # not even the fits: all of them, then
                return list(range(count)), level
            failures.append(f"{level}: {error}")
        else:
            return [int(row) for row in sample.orig_index], level
    raise ParameterError(
        f"cosmos: {file} does not have what the quality cuts need ({'; '.join(failures)}); use exclusion none or auto"
    )


def _gaussian_fwhm(psf: str) -> float:
    kind, _, width = psf.partition(":")
    try:
        fwhm = float(width)
    except ValueError:
        fwhm = np.nan
    if kind != "gaussian" or not 0 < fwhm < np.inf:
        raise ParameterError(
            f"cosmos: psf must be gaussian:FWHM (arcsec, as in gaussian:0.15), hst or own, got {psf!r}"
        )
    return fwhm


def _psf_size(pixel_scale: float) -> int:
    """Pixels on a side of a kernel 1.25 arcsec wide, odd."""
    return 2 * round(0.6 / pixel_scale) + 1


_OPEN_FILES = 4
