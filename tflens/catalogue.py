"""Catalogues of observations: a table with a row for each lens, or a folder of FITS files."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tflens.config import Input
from tflens.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Entry:
    """One lens of a catalogue.

    Attributes:
        name: of its results, unique in the catalogue.
        input: where its observation is.
    """

    name: str
    input: Input


class Catalogue(Sequence[Entry]):
    """The entries of a catalogue, each made when it is asked for: of a hundred thousand lenses, that is most of them.

    Args:
        folder: that files are relative to.
        cells: of each column, `[rows]`, as encoded text without blanks at its ends; what is missing is empty.
    """

    def __init__(self, folder: Path, cells: Mapping[str, "NDArray[np.bytes_]"]) -> None:
        self._folder, self._cells = folder, cells

    def __len__(self) -> int:
        return len(self._cells["file"])

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> "Catalogue": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return Catalogue(self._folder, {name: cells[index] for name, cells in self._cells.items()})
        given = {name: cells[index].decode() for name, cells in self._cells.items() if cells[index]}
        name = given.pop("name", None)
        for file in ("file", "noise_file", "psf_file", "mask_file"):
            if file in given:
                given[file] = str(self._folder / given[file])
        if "file" not in given:
            raise ParameterError("file must not be empty. Give the FITS file of the lens.")
        if "pixel_scale" in given:
            given["pixel_scale"] = _number("pixel_scale", given["pixel_scale"])
        return Entry(name or _stem(Path(given["file"])), Input(**given))


def read_catalogue(path: str | Path) -> Catalogue:
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
    catalogue = _of_folder(path) if path.is_dir() else _of_table(path)
    if not len(catalogue):
        kind = "folder without FITS files (*.fits, *.fits.gz)" if path.is_dir() else "table without rows"
        raise ParameterError(f"{path}: the catalogue must hold a lens at least, but it is a {kind}.")
    names = _packed(_names(path, catalogue))
    for name in map(bytes.decode, names):
        if not re.fullmatch(r"[^/\\\0]+", name) or name.startswith(".") or name in _TAKEN:
            raise ParameterError(f"{path}: a name must be one that a folder can have, got {name!r}.")
    names.sort()
    if (twice := names[1:][names[1:] == names[:-1]]).size:
        count = np.count_nonzero(names == twice[0])
        raise ParameterError(f"{path}: names must be unique, but {twice[0].decode()!r} occurs {count} times.")
    return catalogue


def _names(path: Path, catalogue: Catalogue) -> Iterator[str]:
    for number in range(len(catalogue)):
        try:
            yield catalogue[number].name
        except ParameterError as error:
            raise ParameterError(f"{path}: row {number + 1}: {error}") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ParameterError(f"{name} must be a number, arcsec per pixel, got {text!r}") from None


def _of_folder(path: Path) -> Catalogue:
    with os.scandir(path) as found:
        names = sorted(entry.name for entry in found if entry.name.endswith((".fits", ".fits.gz")))
    return Catalogue(path, {"file": _packed(names)})


def _of_table(path: Path) -> Catalogue:
    from astropy.table import Table  # the slowest import of all, which the processes that fit can do without

    try:
        # Names like 0252 are names.
        converters = {"converters": {"name": str, "file": str}} if path.suffix == ".csv" else {}
        table = Table.read(path, **converters)
    except Exception as error:  # astropy's readers raise what they please
        raise ParameterError(f"{path}: the catalogue must be a table that astropy can read, but {error}") from None
    if "file" not in table.colnames:
        raise ParameterError(f'{path}: the catalogue must have a column "file", it has {", ".join(table.colnames)}.')
    columns = [name for name in ("name", *_COLUMNS) if name in table.colnames]
    return Catalogue(path.parent, {name: _packed(map(_text, table[name])) for name in columns})


def _packed(cells: Iterable[str]) -> "NDArray[np.bytes_]":
    """Texts as one block of memory, a tenth of what they take each by itself."""
    return np.array([cell.encode() for cell in cells], np.bytes_)


def _text(value: Any) -> str:
    return "" if np.ma.is_masked(value) else str(value).strip()


def _stem(file: Path) -> str:
    return re.sub(r"\.fits(\.gz)?(\[.*\])?$", "", file.name)


_COLUMNS = [item.name for item in fields(Input) if item.name != "sha256"]
_TAKEN = ("summary.csv", "summary.parquet")  # by the tables of all results
