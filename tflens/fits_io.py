"""FITS files: choose and read an image extension, find its pixel scale, write without ever leaving half a file.

Everything astropy has to say about a damaged file becomes one `ObservationError` that names the file.
"""

import gzip
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.io.fits.verify import VerifyError, VerifyWarning
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_scales

from tflens.errors import ObservationError
from tflens.files import is_file, is_there, write_atomically

SQUARE_TOLERANCE = 0.01

# The FITS standard allows no more axes or columns; astropy counts up to whatever a damaged header says, and where it
# gives a negative size, goes back in the file and reads the same part for ever.
MOST_AXES = 999

# A gzip stream of a few kB can hold more than any memory.
MOST_BYTES = 2**31


class FitsImage(NamedTuple):
    """An image extension: data (big-endian, as on disk), its own and its file's primary header, where it lies."""

    data: np.ndarray
    header: fits.Header
    primary: fits.Header
    path: Path
    label: str  # path[EXT], for messages


@contextmanager
def open_fits(path: Path) -> Iterator[fits.HDUList]:
    """Open a FITS file, every header read, and turn whatever goes wrong inside the block into an `ObservationError`.

    Raises:
        ObservationError: the file is missing, is not FITS, is shorter than its headers say, or cannot be decoded.
    """
    if not is_file(path):
        kind = "is a directory, not a file" if is_there(path) and path.is_dir() else "does not exist"
        raise ObservationError(f"{path}: the FITS file {kind}. Check the path.")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            content = _unzipped(path.read_bytes())
            _refuse_uncountable(content)
            with fits.open(io.BytesIO(content), memmap=False, lazy_load_hdus=False) as hdus:
                _refuse_damage(path, heard)
                yield hdus
                _refuse_damage(path, heard)
    except ObservationError:
        raise
    except Exception as error:  # astropy raises many kinds (OSError, ValueError, TypeError, zlib.error ...)
        raise ObservationError(
            f"{path}: the file cannot be read as FITS ({_one_line(error)}). It may be of another format, truncated "
            "or damaged: fetch or write it again."
        ) from error


def find_extension(hdus: fits.HDUList, path: Path, extension: str | int | None) -> int | None:
    """Index of the extension of this name (any case) or number; None where there is none.

    `extension=None` means the only image of the file.

    Raises:
        ObservationError: several extensions answer to the name, or the file of `extension=None` has several images.
    """
    if extension is None:
        found = [i for i, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) > 0]
        wanted, remedy = "images", f"Choose one by name or number, as in '{path}[1]'."
    elif isinstance(extension, str):
        found = [i for i, hdu in enumerate(hdus) if hdu.name.upper() == extension.strip().upper()]
        if not found and extension.strip().isdecimal():
            return find_extension(hdus, path, int(extension))
        wanted, remedy = f"extensions named {extension}", "Choose one by its number."
    else:
        return int(extension) if 0 <= extension < len(hdus) else None
    if len(found) > 1:
        raise ObservationError(
            f"{path}: one extension must be meant, but the file has {len(found)} {wanted}: {describe(hdus)}. {remedy}"
        )
    return found[0] if found else None


def read_image(hdus: fits.HDUList, path: Path, index: int) -> FitsImage:
    """The image of one extension, in physical units (BSCALE, BZERO, BLANK and tile compression undone).

    Raises:
        ObservationError: the extension is a table, or holds no data.
    """
    hdu = hdus[index]
    label = f"{path}[{hdu.name or index}]"
    if not hdu.is_image:
        raise ObservationError(
            f"{label}: the extension must be an image, but it is a table. The file has {describe(hdus)}."
        )
    if hdu.data is None or hdu.data.size == 0:
        raise ObservationError(
            f"{label}: the extension must hold an image, but it has no data. The file has {describe(hdus)}."
        )
    return FitsImage(hdu.data, hdu.header, hdus[0].header, path, label)


def readable(image: FitsImage) -> FitsImage:
    """The image with headers that have no card whose value cannot be read.

    Real files have such cards, and what a fit needs is asked for by name: they are left out with a `UserWarning`.
    """
    header = _readable(image.header, image.label)
    return image._replace(header=header, primary=_readable(image.primary, f"{image.path}[PRIMARY]"))


def _readable(header: fits.Header, label: str) -> fits.Header:
    wrong = {card.keyword for card in header.cards if not _has_value(card)}
    if not wrong:
        return header
    warnings.warn(
        f"{label}: the value of {', '.join(sorted(wrong))} in the header cannot be read and is left out.", stacklevel=4
    )
    return fits.Header([card for card in header.cards if card.keyword not in wrong])


def _has_value(card: fits.Card) -> bool:
    try:
        card.value, card.comment  # noqa: B018 (read now, for astropy looks at them when they are first used)
    except Exception:  # VerifyError, ValueError, ... as it pleases astropy
        return False
    return True


def describe(hdus: fits.HDUList) -> str:
    """The extensions of a file in one line: number, name and shape.

    Example:
        >>> describe(fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 3)), name="SCI")]))
        '0 PRIMARY (no data), 1 SCI (2 x 3)'
    """

    def content(hdu: Any) -> str:
        if not hdu.is_image:
            return "table"
        return " x ".join(map(str, hdu.shape)) or "no data"

    return ", ".join(f"{i} {hdu.name or 'unnamed'} ({content(hdu)})" for i, hdu in enumerate(hdus))


def unit_of(image: FitsImage) -> units.UnitBase | None:
    """The unit that the image's own header gives its pixels (BUNIT); None if there is none that astropy knows.

    Electrons and counts are one: which of them it is, files say as they please.
    """
    try:
        text = str(image.header.get("BUNIT") or "").strip()
        text = text.lower() if text.isupper() else text  # S is a siemens
        text = re.sub(r"(?i)\b(electron|count|photon)s?\b", lambda found: found[1].lower(), text)
        unit = units.Unit(text.replace("**", "^")) if text else None
    except Exception:  # a unit or a card that astropy cannot read
        return None
    if unit is None:
        return None
    counts = {units.electron, units.count, units.adu, units.photon}
    found = units.CompositeUnit(unit.scale, [], [])
    for base, power in zip(unit.bases, unit.powers, strict=True):
        found = found * (units.count if base in counts else base) ** power
    return found.decompose()


def celestial_wcs(image: FitsImage) -> WCS | None:
    """The world coordinates of an image, from its own header or else the primary one; None where there are none.

    Unreadable coordinates are dropped with a `UserWarning`: no fit needs them.
    """
    for header in (image.header, image.primary):
        # A header without CD or CDELT has no scale of its own, and wcslib would make it one degree per pixel.
        if "CTYPE1" not in header or not any(key.startswith(("CD1_", "CD2_", "CDELT")) for key in header):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FITSFixedWarning)
                wcs = WCS(header)
                if wcs.has_celestial:
                    return wcs if wcs.naxis == 2 else wcs.celestial
        except Exception as error:  # wcslib, SIP and lookup tables each raise their own
            warnings.warn(f"{image.label}: the WCS is dropped, it cannot be read ({_one_line(error)}).", stacklevel=2)
    return None


def pixel_scale(image: FitsImage, wcs: WCS | None) -> tuple[float, str]:
    """Pixel side in arcsec, and where it was found: keyword PIXSCALE (image extension, then primary), or the WCS.

    Raises:
        ObservationError: there is no scale, PIXSCALE is not a number, or the pixels of the WCS are not square.
    """
    from_wcs = None if wcs is None else _scale_of_wcs(image.label, wcs)
    for header, label in ((image.header, image.label), (image.primary, f"{image.path}[PRIMARY]")):
        if "PIXSCALE" not in header:
            continue
        value = header["PIXSCALE"]
        try:
            scale = float(value)
        except (TypeError, ValueError) as error:
            raise ObservationError(
                f"{label}: keyword PIXSCALE must be a number (arcsec per pixel), but it is {value!r}. "
                "Correct the header or give pixel_scale."
            ) from error
        if from_wcs is not None and abs(scale - from_wcs) > SQUARE_TOLERANCE * from_wcs:
            warnings.warn(
                f"{label}: keyword PIXSCALE = {scale:g} arcsec is used, but the WCS says {from_wcs:.6g}.",
                stacklevel=2,
            )
        return scale, f"{label}, keyword PIXSCALE"
    if from_wcs is None:
        raise ObservationError(
            f"{image.label}: the pixel scale is missing: neither the image's header nor the primary one has a keyword "
            "PIXSCALE (arcsec per pixel) or a celestial WCS. Add one, or give pixel_scale."
        )
    return from_wcs, f"{image.label}, WCS"


def reference_cards(*headers: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords that describe the object (OBJECT, FILTER, THETA_E ...); those of the file's form and the WCS left out.

    Example:
        >>> reference_cards({"NAXIS": 2, "CD1_1": -1e-5, "THETA_E": 1.04})
        {'THETA_E': 1.04}
    """
    return {
        key: header[key]
        for header in headers
        for key in header
        if not _FORM.fullmatch(key) and isinstance(header[key], str | bool | int | float)
    }


def write_fits(hdus: fits.HDUList, path: Path, *, overwrite: bool) -> None:
    """Write a FITS file, whole or not at all.

    Raises:
        ObservationError: the file exists and `overwrite` is False, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise ObservationError(
            f"{path}: the file exists and is not overwritten. Choose another name or give overwrite=True."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VerifyWarning)  # a keyword of more than 8 letters becomes a HIERARCH card
            write_atomically(path, lambda temporary: hdus.writeto(temporary, overwrite=True))
    except (OSError, VerifyError, ValueError) as error:
        cause = getattr(error, "strerror", None) or _one_line(error)
        raise ObservationError(
            f"{path}: the file cannot be written ({cause}). Check that the directory exists and is writable."
        ) from error


def smallest_exact(array: np.ndarray) -> np.ndarray:
    """The array as float32 where that loses nothing, else unchanged: real images come as float32 and stay so small."""
    single = array.astype(np.float32)
    return single if np.array_equal(single, array) else array


# The form of the file and of its arrays, checksums, and the coordinates: facts that `Observation` keeps elsewhere.
_FORM = re.compile(
    r"|SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|EXT(NAME|VER|LEVEL)|INHERIT"
    r"|NEXTEND|CHECKSUM|DATASUM|COMMENT|HISTORY|CONTINUE|END|PIXSCALE"
    r"|WCS(AXES|NAME|DIM)[A-Z]?|(CTYPE|CUNIT|CRVAL|CRPIX|CDELT|CROTA)\d[A-Z]?|(CD|PC|PV|PS)\d+_\d+[A-Z]?"
    r"|(LON|LAT)POLE[A-Z]?|RADESYS[A-Z]?|EQUINOX[A-Z]?|MJDREF[IF]?|[AB]P?_(ORDER|\d+_\d+)|(CPDIS|CPERR|DP|D2IM)\w*"
)


def _unzipped(content: bytes) -> bytes:
    """Astropy takes a gzip stream that breaks off for one that ends, and silently loses the last extensions."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    with gzip.open(io.BytesIO(content)) as stream:
        unzipped = stream.read(MOST_BYTES + 1)
    if len(unzipped) > MOST_BYTES:
        raise ValueError(f"unzipped, it has more than {MOST_BYTES / 2**30:g} GB")
    return unzipped


def _refuse_uncountable(content: bytes) -> None:
    for card in _COUNTS.finditer(content):
        keyword, value = card[1].decode(), card[2].decode()
        most = MOST_AXES if keyword in ("NAXIS", "TFIELDS") else float("inf")
        if card.start() % 80 == 0 and not 0 <= float(value) <= most:
            rule = "0 or more" if value.startswith("-") else f"{most} at most"
            raise ValueError(f"a header says {keyword} = {value[:30]}, which must be {rule}")


_COUNTS = re.compile(rb"(?:HIERARCH *)?(NAXIS\d*|TFIELDS|PCOUNT|GCOUNT) *= *([-+]?\d{1,60})")


def _refuse_damage(path: Path, heard: list[warnings.WarningMessage]) -> None:
    """Astropy only warns where a file ends too early, and then misses its last extensions (often the mask)."""
    for message in (str(warning.message) for warning in heard):
        if "truncated" in message:
            reason = f"it is truncated ({_one_line(message)})"
        elif "Error validating header" in message:
            reason = "it is truncated inside a header, or has extra bytes behind its last extension"
        else:
            continue
        raise ObservationError(
            f"{path}: the file must be as long as its headers say, but {reason}. Fetch or write it again."
        )


def _scale_of_wcs(label: str, wcs: WCS) -> float:
    scale_x, scale_y = 3600 * proj_plane_pixel_scales(wcs)
    column_x, column_y = wcs.pixel_scale_matrix.T
    skew = abs(column_x @ column_y) / (np.linalg.norm(column_x) * np.linalg.norm(column_y))
    if abs(scale_x - scale_y) > SQUARE_TOLERANCE * min(scale_x, scale_y) or skew > SQUARE_TOLERANCE:
        raise ObservationError(
            f"{label}: the pixels must be square within {SQUARE_TOLERANCE:.0%}, but by the WCS they measure "
            f"{scale_x:.6g} (x) by {scale_y:.6g} (y) arcsec, their sides at {np.degrees(np.arccos(skew)):.4g} degrees. "
            "Resample the image to square pixels; if the WCS is wrong, give pixel_scale."
        )
    return float(np.sqrt(scale_x * scale_y))


def _one_line(message: object) -> str:
    return " ".join(str(message).split()).rstrip(".") or type(message).__name__
