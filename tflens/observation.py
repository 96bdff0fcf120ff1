"""What was observed: image, noise, PSF and mask on a pixel grid, read from FITS and checked before any fit sees it."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.wcs import WCS

from tflens import fits_io
from tflens.errors import ObservationError
from tflens.files import is_there
from tflens.grid import PixelGrid

# What a masked pixel without usable data is given, so that arithmetic over the whole frame stays finite.
NO_DATA_IMAGE, NO_DATA_NOISE = 0.0, 1e8

# Squares of image and noise (chi^2, variance) must be ordinary float32 numbers, far from 1e-38 and 3e38.
SMALLEST, LARGEST = 1e-18, 1e18

PSF_SUM_TOLERANCE = 1e-3
PSF_NEGATIVE_TOLERANCE = 0.01

# Less noise than this in any wave, relative to the mean of all, and rounding in float32 would be mistaken for signal.
LEAST_POWER = 1e-4
CORRELATION_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Observation:
    """One exposure of one lens, checked: whoever holds an `Observation` need not ask whether its arrays make sense.

    Arrays are kept as read-only float64 copies in native byte order. Pixel [0, 0] is the bottom-left one, as in the
    FITS file: nothing is flipped, and the orientation on the sky sits in `wcs` alone. Masked pixels may hold anything:
    where image or noise there would be refused in a used pixel, they become image 0 and noise 1e8.

    Args:
        image: `[ny, nx]`, counts/s (or any unit that `noise` shares).
        noise: `[ny, nx]`, 1-sigma per pixel, unit of the image.
        psf: `[ky, kx]`, both odd, at the pixel scale of the image, no larger than it. Normalised to unit sum; with a
            `UserWarning` where the sum is off by more than 1e-3, where the peak lies more than a pixel from the
            middle, or where it falls below -1 % of the peak (an over-subtracted background).
        pixel_scale: side of a pixel, arcsec.
        mask: `[ny, nx]`, boolean, **True = used**. None uses every pixel. A mask that discards most of the bright
            pixels earns a `UserWarning`: it is probably inverted.
        wcs: celestial coordinates of the image; no fit needs them.
        name: of the lens, for titles and file names.
        metadata: header keywords (OBJECT, FILTER, THETA_E ...), for reference only: no fit reads them.
        origin: for each of `image, noise, psf, mask, pixel_scale, noise_correlation`, where it came from; error
            messages quote it.
        noise_correlation: `[ky, kx]`, both odd: how the noise of one pixel, in units of `noise`, is correlated with
            that of its neighbours, as after drizzling. The middle is 1, what lies beyond is 0. None, or a single pixel,
            is white noise. `tflens.sky_noise` measures it.

    Raises:
        ObservationError: an array is not numeric, not two-dimensional, empty or of another shape than the image; the
            mask is not boolean or uses no pixel; in a used pixel, the image is not finite, the noise not positive and
            finite, or either outside float32 once squared; the image is blank (constant); the PSF is even, not finite,
            larger than the image, or does not have a positive sum; the pixel scale is not positive and finite; the
            noise correlation is even, larger than the image, not 1 in the middle, not the same at (y, x) and (-y, -x),
            or not that of any noise: its power spectrum falls below 1e-4 somewhere.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> psf = np.outer([1, 2, 1], [1, 2, 1]) / 16
        >>> Observation(rng.normal(size=(20, 30)), np.ones((20, 30)), psf, pixel_scale=0.05, name="noise only")
        Observation('noise only': 20 x 30 pixels of 0.05 arcsec, 600 used, PSF 3 x 3)
    """

    image: np.ndarray
    noise: np.ndarray
    psf: np.ndarray
    pixel_scale: float
    mask: np.ndarray | None = None
    wcs: WCS | None = None
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    noise_correlation: np.ndarray | None = None

    def __post_init__(self) -> None:
        roles = "image", "noise", "psf", "mask", "pixel_scale", "noise_correlation"
        origin = {role: f"Observation.{role}" for role in roles}
        origin |= dict(self.origin)

        image = _numbers(self.image, "image", origin["image"])
        noise = _numbers(self.noise, "noise map", origin["noise"])
        _same_shape(noise, "noise map", origin["noise"], image, origin["image"])
        mask = _checked_mask(self.mask, origin["mask"], image, origin["image"])
        _check_pixels(image, noise, mask, origin)
        psf = _checked_psf(_numbers(self.psf, "PSF", origin["psf"]), origin["psf"], image, origin["image"])

        # What passed the checks in used pixels is what has data; NaN compares false.
        unusable = ~((np.abs(image) <= LARGEST) & (noise >= SMALLEST) & (noise <= LARGEST))
        image[unusable], noise[unusable] = NO_DATA_IMAGE, NO_DATA_NOISE
        _warn_if_inverted(image, noise, mask, origin["mask"])

        checked = {
            "image": image,
            "noise": noise,
            "psf": psf,
            "mask": mask,
            "pixel_scale": _checked_scale(self.pixel_scale, origin["pixel_scale"]),
            "metadata": dict(self.metadata),
            "origin": origin,
            "noise_correlation": _checked_correlation(self.noise_correlation, origin["noise_correlation"], image),
        }
        for name, value in checked.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def from_fits(
        cls,
        path: str | PathLike[str],
        *,
        image: str | int = "SCI",
        noise: str | int = "ERR",
        psf: str | int = "PSF",
        mask: str | int | None = "MASK",
        pixel_scale: float | None = None,
        noise_correlation: str | int | None = "CORR",
    ) -> "Observation":
        """Read one FITS file with an extension each for image, noise, PSF and (if there are any) mask and correlation
        of the noise.

        **In the file, a mask value other than zero means BAD**, as in data-quality planes; in the `Observation`, True
        means used. A mask of the other habit (1 = used, as in lenstronomy) must be inverted before.

        Args:
            path: the file, plain or gzipped; tile-compressed images and scaled integers are understood.
            image, noise, psf, mask: extensions, by name (any case) or number. Without an extension SCI, an image in
                the primary HDU is taken; without an extension MASK, or with `mask=None`, every pixel is used.
            pixel_scale: arcsec. None takes the keyword PIXSCALE of the image's or the primary header, or else the
                celestial WCS, whose pixels must then be square within 1 %.
            noise_correlation: extension, by name or number. Without an extension CORR, or with
                `noise_correlation=None`, the noise is white.

        Raises:
            ObservationError: the file is missing, damaged or not FITS; an extension is missing, ambiguous or not an
                image; image and noise have different units; the scale is missing; or anything that the constructor
                refuses. Every message names the file, the extension, the rule and the value.

        Example:
            >>> import tempfile
            >>> image = np.random.default_rng(1).normal(size=(20, 30))
            >>> written = Observation(image, np.ones((20, 30)), np.ones((1, 1)), pixel_scale=0.05, name="toy")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     written.to_fits(folder + "/toy.fits")
            ...     read = Observation.from_fits(folder + "/toy.fits")
            >>> read
            Observation('toy': 20 x 30 pixels of 0.05 arcsec, 600 used, PSF 1 x 1)
            >>> bool(np.all(read.image == image))
            True
        """
        path = Path(path)
        wanted = {"image": image, "noise": noise, "psf": psf, "mask": mask, "noise_correlation": noise_correlation}
        optional = {"mask": "MASK", "noise_correlation": "CORR"}
        found = {}
        with fits_io.open_fits(path) as hdus:
            for role, extension in wanted.items():
                if role in optional and extension is None:
                    continue
                index = fits_io.find_extension(hdus, path, extension)
                if index is None and role == "image" and extension == "SCI" and hdus[0].header["NAXIS"] > 0:
                    index = 0
                if index is None and extension == optional.get(role, ""):
                    continue
                if index is None:
                    raise ObservationError(
                        f"{path}: the extension {extension} for the {_words(role)} is missing. The file has "
                        f"{fits_io.describe(hdus)}. Give its right name or number as the argument {role}."
                    )
                found[role] = fits_io.read_image(hdus, path, index)
        return cls._from_images(found, pixel_scale)

    @classmethod
    def from_files(
        cls,
        *,
        image: str | PathLike[str],
        noise: str | PathLike[str],
        psf: str | PathLike[str],
        mask: str | PathLike[str] | None = None,
        pixel_scale: float | None = None,
        noise_correlation: str | PathLike[str] | None = None,
    ) -> "Observation":
        """Read image, noise, PSF, mask and correlation of the noise from separate FITS files.

        Each is a path, or `path[EXT]` with the name or number of an extension; a plain path must hold one image only.
        The mask (non-zero = BAD), the pixel scale and the errors are those of `from_fits`.
        """
        files = {"image": image, "noise": noise, "psf": psf, "mask": mask, "noise_correlation": noise_correlation}
        found = {role: _read_file(role, file) for role, file in files.items() if file is not None}
        return cls._from_images(found, pixel_scale)

    @cached_property
    def grid(self) -> PixelGrid:
        """The pixel grid, centred on (0, 0)."""
        return PixelGrid(self.image.shape, self.pixel_scale)

    @property
    def signal_to_noise(self) -> np.ndarray:
        """Signal over noise of each pixel, `[ny, nx]`; 0 where masked."""
        return np.where(self.mask, self.image / self.noise, 0.0)

    def with_mask(self, mask: np.ndarray) -> "Observation":
        """The same observation with another mask, `[ny, nx]`, boolean, True = used.

        Raises:
            ObservationError: as the constructor; or the new mask uses a pixel that never had data.
        """
        new = replace(self, mask=mask, origin={**self.origin, "mask": "with_mask(mask)"})
        revived = new.mask & ~self.mask & (self.image == NO_DATA_IMAGE) & (self.noise == NO_DATA_NOISE)
        if revived.any():
            raise ObservationError(
                f"with_mask(mask): a used pixel must have data, but {_pixels(revived)} came without "
                f"from {self.origin['image']}. Leave it masked (False)."
            )
        return new

    def with_noise(self, correlation: np.ndarray | None = None, scale: float = 1.0) -> "Observation":
        """The same observation with other knowledge of its noise.

        Args:
            correlation: as the constructor's `noise_correlation`; None for white noise.
            scale: that the noise map is multiplied by.

        Raises:
            ObservationError: as the constructor; or the scale is not positive and finite.

        Example:
            >>> image = np.random.default_rng(1).normal(size=(20, 30))
            >>> white = Observation(image, np.ones((20, 30)), np.ones((1, 1)), pixel_scale=0.05)
            >>> other = white.with_noise([[0.3, 1.0, 0.3]], scale=0.5)
            >>> float(other.noise[0, 0]), other.noise_correlation
            (0.5, array([[0.3, 1. , 0.3]]))
        """
        if not (np.isfinite(scale) and scale > 0):
            raise ObservationError(
                f"with_noise(scale): the noise map must be multiplied by a positive number, but it is {scale!r}. "
                "Give the right scale."
            )
        no_data = ~self.mask & (self.image == NO_DATA_IMAGE) & (self.noise == NO_DATA_NOISE)
        noise = np.where(no_data, NO_DATA_NOISE, scale * self.noise)
        origin = {**self.origin, "noise_correlation": "with_noise(correlation)"}
        return replace(self, noise=noise, noise_correlation=correlation, origin=origin)

    def to_fits(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write SCI, ERR, PSF, MASK (1 = bad) and, if the noise is correlated, CORR, with PIXSCALE, metadata and WCS,
        as `from_fits` reads them.

        Arrays and pixel scale come back bit for bit, the WCS to the digits that astropy writes. The file appears
        whole or not at all.

        Raises:
            ObservationError: the file exists and `overwrite` is False; it cannot be written; or the metadata hold
                what a FITS header cannot.
        """
        path = Path(path)
        hdus = fits.HDUList(
            [
                fits.PrimaryHDU(header=self._primary_header(path)),
                fits.ImageHDU(fits_io.smallest_exact(self.image), header=self._wcs_header(), name="SCI"),
                fits.ImageHDU(fits_io.smallest_exact(self.noise), name="ERR"),
                fits.ImageHDU(fits_io.smallest_exact(self.psf), name="PSF"),
                fits.ImageHDU((~self.mask).astype(np.uint8), name="MASK"),
            ]
        )
        hdus["MASK"].header["COMMENT"] = "0 = used, 1 = bad"
        if self.noise_correlation is not None:
            hdus.append(fits.ImageHDU(fits_io.smallest_exact(self.noise_correlation), name="CORR"))
        fits_io.write_fits(hdus, path, overwrite=overwrite)

    def __repr__(self) -> str:
        correlation = self.noise_correlation
        return (
            f"Observation({self.name!r}: {_size(self.image)} pixels of {self.pixel_scale:g} arcsec, "
            f"{np.count_nonzero(self.mask)} used, PSF {_size(self.psf)}"
            f"{'' if correlation is None else f', noise correlated over {_size(correlation)}'})"
        )

    @classmethod
    def _from_images(cls, found: dict[str, fits_io.FitsImage], pixel_scale: float | None) -> "Observation":
        image = fits_io.readable(found["image"])
        _same_unit(image, found["noise"])
        _check_exposure(image)
        origin = {role: item.label for role, item in found.items()}
        wcs = fits_io.celestial_wcs(image)
        if pixel_scale is None:
            pixel_scale, origin["pixel_scale"] = fits_io.pixel_scale(image, wcs)
        else:
            origin["pixel_scale"] = f"{image.label}, argument pixel_scale"
        metadata = fits_io.reference_cards(image.primary, image.header)
        return cls(
            image=image.data,
            noise=found["noise"].data,
            psf=found["psf"].data,
            pixel_scale=pixel_scale,
            mask=_used(found["mask"]) if "mask" in found else None,
            wcs=wcs,
            name=str(metadata.get("OBJECT", "")).strip() or re.sub(r"\.(fits?|fts)(\.gz|\.fz)?$", "", image.path.name),
            metadata=metadata,
            origin=origin,
            noise_correlation=found["noise_correlation"].data if "noise_correlation" in found else None,
        )

    def _primary_header(self, path: Path) -> fits.Header:
        header = fits.Header()
        cards = fits_io.reference_cards(self.metadata)
        try:
            if left_out := set(self.metadata) - set(cards):
                raise ValueError(f"no place for {', '.join(sorted(left_out))}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VerifyWarning)
                header.update(cards | ({"OBJECT": self.name} if self.name else {}))
            header["PIXSCALE"] = (self.pixel_scale, "arcsec/pixel")
        except ValueError as error:
            raise ObservationError(
                f"{path}: the metadata must fit into a FITS header: short names, and numbers (finite), booleans or "
                f"ASCII strings as values ({error}). Remove or change these entries."
            ) from error
        return header

    def _wcs_header(self) -> fits.Header | None:
        if self.wcs is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # wcslib's remarks on the standard form it writes
            return self.wcs.to_header(relax=True)


def _words(role: str) -> str:
    return "PSF" if role == "psf" else role.replace("_", " ")


def _read_file(role: str, file: str | PathLike[str]) -> fits_io.FitsImage:
    """The image in `path` or `path[EXT]`."""
    path, extension = _split(file)
    with fits_io.open_fits(path) as hdus:
        index = fits_io.find_extension(hdus, path, extension)
        if index is None:
            lack = "an image" if extension is None else f"the extension {extension}"
            raise ObservationError(
                f"{path}: the file for the {_words(role)} lacks {lack}. It has {fits_io.describe(hdus)}. "
                f"Choose one by name or number, as in '{path}[1]'."
            )
        return fits_io.read_image(hdus, path, index)


def _split(file: str | PathLike[str]) -> tuple[Path, str | None]:
    """`path[EXT]` in its parts; a file whose own name ends in brackets is taken at its word."""
    match = re.fullmatch(r"(.+)\[([^\[\]]+)\]", str(file))
    return (Path(file), None) if match is None or is_there(Path(file)) else (Path(match[1]), match[2])


def _same_unit(image: fits_io.FitsImage, noise: fits_io.FitsImage) -> None:
    """Where both tell their unit: a map of the variance, or counts beside rates, would pass every other check."""
    units = [fits_io.unit_of(plane) for plane in (image, noise)]
    if None not in units and units[0] != units[1]:
        raise ObservationError(
            f"{noise.label}: the noise must be 1 sigma in the unit of the image, but its BUNIT is {units[1]} and that "
            f"of {image.label} is {units[0]}. Convert it (a variance by its root), or correct the header."
        )


def _check_exposure(image: fits_io.FitsImage) -> None:
    """No fit reads it; but a header with a negative one is not that of an exposure. Stacks often have 0."""
    for keyword in ("EXPTIME", "EXPOSURE"):
        value = image.header.get(keyword, image.primary.get(keyword, 0.0))
        if isinstance(value, int | float) and value < 0:
            raise ObservationError(
                f"{image.label}: keyword {keyword} must not be negative (seconds), but it is {value:g}. Correct the "
                "header, and check that the image is in counts/s."
            )


def _used(plane: fits_io.FitsImage) -> np.ndarray:
    """True = used, from a plane in which any value but zero is bad."""
    flags = plane.data
    if flags.dtype.kind == "f" and np.isnan(flags).any():
        raise ObservationError(
            f"{plane.label}: the mask must be 0 (used) or another number (bad), but {_pixels(np.isnan(flags))} is NaN. "
            "Write the mask as integers."
        )
    return flags == 0


def _numbers(values: Any, what: str, where: str) -> np.ndarray:
    """A float64 copy of a two-dimensional array of real numbers."""
    if isinstance(values, np.ma.MaskedArray):
        raise ObservationError(
            f"{where}: the {what} must be a plain array, but it is a masked array. "
            "Give its data, and as mask (True = used) its inverted mask."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ObservationError(
            f"{where}: the {what} must be an array of numbers, but it is none ({error}). Give rows of one length."
        ) from None
    if array.dtype.kind not in "iuf":
        raise ObservationError(
            f"{where}: the {what} must hold real numbers, but its type is {array.dtype}. Convert it to floats."
        )
    if array.ndim != 2 or array.size == 0:
        raise ObservationError(
            f"{where}: the {what} must be two-dimensional [y, x] and not empty, but its shape is {array.shape}. "
            "Give one plane of a cube, without axes of length one."
        )
    return array.astype(np.float64)


def _same_shape(array: np.ndarray, what: str, where: str, image: np.ndarray, image_where: str) -> None:
    if array.shape != image.shape:
        raise ObservationError(
            f"{where}: the {what} must have the shape of the image, but it is {_size(array)} pixels (y x x) and the "
            f"image {image_where} is {_size(image)}. Cut both to the same frame."
        )


def _checked_mask(mask: np.ndarray | None, where: str, image: np.ndarray, image_where: str) -> np.ndarray:
    if mask is None:
        return np.ones(image.shape, dtype=bool)
    mask = np.array(mask)
    if mask.dtype != bool:
        raise ObservationError(
            f"{where}: the mask must be boolean with True = used, but its type is {mask.dtype}. "
            "From a plane in which 0 is good, give `plane == 0`."
        )
    _same_shape(mask, "mask", where, image, image_where)
    if not mask.any():
        raise ObservationError(
            f"{where}: the mask must leave some pixel to use, but it discards all {mask.size}. "
            "In a FITS file non-zero means bad, in an Observation True means used: is the mask inverted?"
        )
    return mask


def _check_pixels(image: np.ndarray, noise: np.ndarray, mask: np.ndarray, origin: Mapping[str, str]) -> None:
    def refuse(wrong: np.ndarray, role: str, values: np.ndarray, rule: str, remedy: str) -> None:
        wrong = mask & wrong
        if wrong.any():
            raise ObservationError(
                f"{origin[role]}: the {role} must be {rule} in every used pixel, but {_pixels(wrong)} has "
                f"{values[wrong][0]:g}. {remedy}"
            )

    mask_or_repair = "Mask such pixels (in a FITS file MASK = 1) or repair the map."
    mask_or_rescale = (
        "Its square would leave the range of float32: mask such pixels, or multiply image and noise by a constant."
    )
    refuse(~np.isfinite(image), "image", image, "finite", mask_or_repair)
    refuse(~np.isfinite(noise), "noise", noise, "finite", mask_or_repair)
    refuse(noise <= 0, "noise", noise, "positive", mask_or_repair)
    refuse(np.abs(image) > LARGEST, "image", image, f"within +-{LARGEST:g}", mask_or_rescale)
    refuse(noise > LARGEST, "noise", noise, f"below {LARGEST:g}", mask_or_rescale)
    refuse(noise < SMALLEST, "noise", noise, f"above {SMALLEST:g}", mask_or_rescale)

    used = image[mask]
    if used.size == 1:
        raise ObservationError(
            f"{origin['image']}: the image must have more than one used pixel, but it is {_size(image)} pixels with "
            "one that is used. Give an image of the whole lens, and a mask (in a FITS file 0 = used) that leaves it."
        )
    if used.min() == used.max():
        raise ObservationError(
            f"{origin['image']}: the image must not be blank, but all {used.size} used pixels hold {used[0]:g}. "
            "Check that the right extension is read and that the lens is inside the frame."
        )


def _checked_psf(psf: np.ndarray, where: str, image: np.ndarray, image_where: str) -> np.ndarray:
    if any(n % 2 == 0 for n in psf.shape):
        raise ObservationError(
            f"{where}: the PSF must have an odd number of pixels along both axes, so that it has a middle pixel, but "
            f"it is {_size(psf)}. Resample it about its peak; cutting off a row would shift the model by half a pixel."
        )
    if any(k > n for k, n in zip(psf.shape, image.shape, strict=True)):
        raise ObservationError(
            f"{where}: the PSF must not be larger than the image along either axis, but it is {_size(psf)} pixels "
            f"and the image {image_where} is {_size(image)}. Cut the PSF symmetrically about its middle, or check that "
            "the two are not swapped."
        )
    if not np.isfinite(psf).all():
        wrong = ~np.isfinite(psf)
        raise ObservationError(
            f"{where}: the PSF must be finite in every pixel, but {_pixels(wrong)} has {psf[wrong][0]:g}. "
            "Repair it (0 at the outskirts)."
        )
    total = psf.sum()
    if not total > 0:
        raise ObservationError(
            f"{where}: the sum of the PSF must be positive, but it is {total:g}. Check that the right extension is "
            "read and that its background was subtracted once only."
        )
    if abs(total - 1) > PSF_SUM_TOLERANCE:
        warnings.warn(f"{where}: the sum of the PSF is {total:.6g}, not 1; it is normalised to unit sum.", stacklevel=4)
    _warn_of_odd_psf(psf, where)
    # Dividing a normalised PSF again would change its last bits, and no file would ever come back as it was written.
    return psf if abs(total - 1) < 1e-13 else psf / total


def _warn_of_odd_psf(psf: np.ndarray, where: str) -> None:
    peak, (ky, kx) = psf.max(), psf.shape
    y, x = (int(i) for i in np.unravel_index(psf.argmax(), psf.shape))
    core = psf[max(ky // 2 - 1, 0) : ky // 2 + 2, max(kx // 2 - 1, 0) : kx // 2 + 2]
    if core.max() < peak:
        warnings.warn(
            f"{where}: the peak of the PSF, pixel [{y}, {x}] ([y, x], from 0), lies more than a pixel from the middle "
            f"[{ky // 2}, {kx // 2}]; the model will be shifted against the image.",
            stacklevel=5,
        )
    if psf.min() < -PSF_NEGATIVE_TOLERANCE * peak:
        warnings.warn(
            f"{where}: the PSF falls to {psf.min() / peak:.3g} of its peak; a PSF is not negative, its background was "
            "probably over-subtracted.",
            stacklevel=5,
        )


def _checked_correlation(correlation: np.ndarray | None, where: str, image: np.ndarray) -> np.ndarray | None:
    if correlation is None:
        return None
    kernel = _numbers(correlation, "noise correlation", where)
    middle = tuple(n // 2 for n in kernel.shape)

    def refuse(rule: str, found: str, remedy: str) -> None:
        raise ObservationError(f"{where}: the noise correlation must {rule}, but {found}. {remedy}")

    if any(n % 2 == 0 for n in kernel.shape):
        rule = "have an odd number of pixels along both axes, so that it has a middle pixel"
        refuse(rule, f"it is {_size(kernel)}", "Give the correlation of a pixel with those on both sides of it.")
    if any(k > n for k, n in zip(kernel.shape, image.shape, strict=True)):
        found = f"it is {_size(kernel)} pixels and the image is {_size(image)}"
        refuse("not be larger than the image", found, "Cut it symmetrically about its middle.")
    if not np.isfinite(kernel).all():
        wrong = ~np.isfinite(kernel)
        refuse("be finite", f"{_pixels(wrong)} has {kernel[wrong][0]:g}", "Repair it.")
    if abs(kernel[middle] - 1) > CORRELATION_TOLERANCE:
        found = f"it is {kernel[middle]:g}"
        refuse(
            "be 1 in the middle", found, "Divide a covariance by its middle, and give the root of that as the noise."
        )
    turned = np.abs(kernel - kernel[::-1, ::-1])
    if turned.max() > CORRELATION_TOLERANCE:
        found = f"{_pixels(turned > CORRELATION_TOLERANCE)} differs from its opposite by {turned.max():g} at most"
        refuse("be the same at (y, x) and (-y, -x) from its middle", found, "Give the mean of the two.")
    power = power_spectrum(kernel).min()
    if power < LEAST_POWER:
        refuse(
            f"have a power spectrum of at least {LEAST_POWER:g} everywhere",
            f"it falls to {power:.3g}",
            "No noise has a negative one; where it only vanishes, add 0.001 to the middle and divide by the new one.",
        )
    return None if kernel.size == 1 else kernel


def power_spectrum(correlation: np.ndarray) -> np.ndarray:
    """Power of noise with this correlation, relative to its mean, finely sampled over all waves `[n, n]`.

    Example:
        >>> power = power_spectrum(np.array([[0.25, 1.0, 0.25]]))
        >>> float(power.min()), float(power.max())
        (0.5, 1.5)
    """
    n = 2 ** int(np.ceil(np.log2(max(64, 8 * max(correlation.shape)))))
    power = np.fft.fft2(correlation, (n, n))
    waves = np.exp(2j * np.pi * np.fft.fftfreq(n))
    ky, kx = (size // 2 for size in correlation.shape)
    return np.real(power * waves[:, None] ** ky * waves**kx)


def _checked_scale(scale: Any, where: str) -> float:
    try:
        value = float(scale)
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise ObservationError(
            f"{where}: the pixel scale must be a positive number (arcsec per pixel), but it is {scale!r}. "
            "Give the right pixel_scale."
        )
    return value


def _warn_if_inverted(image: np.ndarray, noise: np.ndarray, mask: np.ndarray, where: str) -> None:
    """A mask of the opposite habit is the one error that passes every other check: it hides the lens."""
    bright = image > 5 * noise
    discarded = np.count_nonzero(bright & ~mask)
    if discarded > 0.75 * np.count_nonzero(bright):
        warnings.warn(
            f"{where}: the mask discards {discarded} of the {np.count_nonzero(bright)} pixels brighter than 5 sigma. "
            "In a FITS file non-zero means bad, in an Observation True means used: is the mask inverted?",
            stacklevel=4,
        )


def _pixels(wrong: np.ndarray) -> str:
    """Which pixels, for a message: how many, and the first of them."""
    y, x = (int(i) for i in np.argwhere(wrong)[0])
    count = np.count_nonzero(wrong)
    first = f"pixel [{y}, {x}] ([y, x], from 0)"
    return first if count == 1 else f"{first}, the first of {count},"


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))
