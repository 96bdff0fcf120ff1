"""Catalogues of observations: a table with a row for each lens, or a folder of FITS files."""

import re
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tflens.config import Input
from tflens.errors import ParameterError

if TYPE_CHECKING:
    from astropy.table import Row


@dataclass(frozen=True)
class Entry:
    """One lens of a catalogue.

    Attributes:
        name: of its results, unique in the catalogue.
        input: where its observation is.
    """

    name: str
    input: Input


def read_catalogue(path: str | Path) -> list[Entry]:
    """The lenses of a table (CSV, ECSV, FITS, VOTable, ...), or of the FITS files in a folder.

    A table has a column `file`, relative to the table, and may have `name` (the file's name without suffix if there
    is none) and any of `image, noise, psf, mask, noise_file, psf_file, mask_file, pixel_scale`, as in `Input`; an
    empty cell takes the default. Other columns are left alone. Files are not opened here.

    Raises:
        ParameterError: the catalogue does not exist, cannot be read, is empty, lacks `file`, or a name occurs twice or
            cannot be that of a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder) / "lenses.csv"
        ...     _ = table.write_text("name,file,pixel_scale\\nJ0252,j0252.fits,0.05\\nJ0728,j0728.fits,\\n")
        ...     [(entry.name, entry.input.pixel_scale) for entry in read_catalogue(table)]
        [('J0252', 0.05), ('J0728', None)]
    """
    path = Path(path)
    if not path.exists():
        raise ParameterError(f"{path}: the catalogue does not exist. Give a table or a folder of FITS files.")
    entries = _of_folder(path) if path.is_dir() else _of_table(path)
    if not entries:
        kind = "folder without FITS files (*.fits, *.fits.gz)" if path.is_dir() else "table without rows"
        raise ParameterError(f"{path}: the catalogue must hold a lens at least, but it is a {kind}.")
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise ParameterError(f"{path}: names must be unique, but {name!r} occurs {count} times.")
        if not re.fullmatch(r"[^/\\\0]+", name) or name.startswith(".") or name in _TAKEN:
            raise ParameterError(f"{path}: a name must be one that a folder can have, got {name!r}.")
    return entries


def _of_folder(path: Path) -> list[Entry]:
    files = sorted(file for file in path.iterdir() if file.name.endswith((".fits", ".fits.gz")))
    return [Entry(_stem(file), Input(str(file))) for file in files]


def _of_table(path: Path) -> list[Entry]:
    from astropy.table import Table  # the slowest import of all, which the processes that fit can do without

    try:
        # Names like 0252 are names.
        converters = {"converters": {"name": str, "file": str}} if path.suffix == ".csv" else {}
        table = Table.read(path, **converters)
    except Exception as error:  # astropy's readers raise what they please
        raise ParameterError(f"{path}: the catalogue must be a table that astropy can read, but {error}") from None
    if "file" not in table.colnames:
        raise ParameterError(f'{path}: the catalogue must have a column "file", it has {", ".join(table.colnames)}.')
    entries = []
    for number, row in enumerate(table, start=1):
        try:
            entries.append(_entry(row, path.parent))
        except ParameterError as error:
            raise ParameterError(f"{path}: row {number}: {error}") from None
    return entries


def _entry(row: "Row", folder: Path) -> Entry:
    given = {name: _cell(row, name) for name in _COLUMNS if name in row.colnames}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("file", "noise_file", "psf_file", "mask_file"):
        if name in given:
            given[name] = str(folder / given[name])
    if "file" not in given:
        raise ParameterError("file must not be empty. Give the FITS file of the lens.")
    file = given["file"]
    name = _cell(row, "name") if "name" in row.colnames else None
    return Entry(str(name) if name is not None else _stem(Path(file)), Input(**given))


def _cell(row: "Row", name: str) -> str | float | None:
    value = row[name]
    if np.ma.is_masked(value) or str(value).strip() == "":
        return None
    if name != "pixel_scale":
        return str(value).strip()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must be a number, arcsec per pixel, got {str(value)!r}") from None


def _stem(file: Path) -> str:
    return re.sub(r"\.fits(\.gz)?(\[.*\])?$", "", file.name)


_COLUMNS = [item.name for item in fields(Input) if item.name != "sha256"]
_TAKEN = ("summary.csv",)
