"""What became of the lenses of a catalogue, however many: kept on the disk, a few bytes of memory for each."""

import csv
import json
import os
import tempfile
import time
import weakref
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

from tflens.errors import ParameterError
from tflens.files import write_atomically
from tflens.parsing import parse_json

SUMMARY = "summary.csv"
"""The table of all lenses, in the folder of the results."""

PARQUET = "summary.parquet"
"""The same table as Parquet, if that is asked for."""

Status = Literal["fitted", "kept", "refused", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one lens.

    Attributes:
        name: of the lens, and of the folder with its results.
        status: "fitted" now; "kept" from an earlier call; "refused", its input cannot be right; "failed", an error of
            the fit itself, or the death of its processes.
        words: the verdict on the fit, or the error.
        summary: content of the fit's `summary.json`, None without a fit.
    """

    name: str
    status: Status
    words: str
    summary: Mapping[str, Any] | None = None


class Outcomes(Sequence[Outcome]):
    """Outcomes in the order of a catalogue, and the tables of them.

    They are in a nameless file, which ends with the object, and are read from there, each when it is asked for. Those
    that are not known yet are missing from iteration; an index counts all lenses of the catalogue.

    Args:
        folder: of the results, one folder for each lens in it, and the tables.
        count: of lenses.
        parquet: whether to write `PARQUET` beside `SUMMARY`.

    Raises:
        ParameterError: Parquet is asked for, and pyarrow is not installed.
    """

    def __init__(self, folder: Path, count: int, parquet: bool = False) -> None:
        self.counts: Counter[Status] = Counter()
        self._folder, self._parquet = folder, parquet
        if parquet:
            require_pyarrow()
        with tempfile.TemporaryFile(dir=folder) as file:
            self._file, self._end = os.dup(file.fileno()), 0
        weakref.finalize(self, os.close, self._file)
        self._starts, self._lengths = array("q", bytes(8 * count)), array("l", bytes(8 * count))
        self._kinds: dict[str, str] = dict.fromkeys(("name", "status", "words"), "text")
        self._written_at = self._write_took = 0.0

    def settle(self, index: int, outcome: Outcome) -> None:
        """Keeps the outcome of a lens, known by its place in the catalogue."""
        row = row_of(outcome)
        line = json.dumps(row).encode()
        os.pwrite(self._file, line, self._end)
        self._starts[index], self._lengths[index] = self._end, len(line)
        self._end += len(line)
        self.counts[outcome.status] += 1
        for name, value in row.items():
            if (kind := _kind(value)) != self._kinds.get(name):
                self._kinds[name] = _common_kind(self._kinds.get(name), kind)

    def write_tables_in_time(self) -> None:
        """Writes the tables anew: at once while they are short, and later as often as takes a twentieth of the time."""
        idle = time.monotonic() - self._written_at
        if self.counts.total() <= _SHORT or idle >= 19 * self._write_took:
            self.write_tables()

    def write_tables(self) -> None:
        """A row for each lens so far: what became of it, median and 68 % interval of every parameter, diagnostics."""
        began = time.monotonic()
        write_atomically(self._folder / SUMMARY, self._write_csv)
        if self._parquet:
            write_atomically(self._folder / PARQUET, self._write_parquet)
        self._written_at = time.monotonic()
        self._write_took = self._written_at - began

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not self._lengths[index]:
            raise IndexError(f"Outcomes: the lens at {index} has none yet")
        row = self._read(index)
        name, status, words = row["name"], row["status"], row["words"]
        return Outcome(name, status, words, read_summary(self._folder / name) if status in _WITH_FIT else None)

    def __iter__(self) -> Iterator[Outcome]:
        return (self[i] for i, length in enumerate(self._lengths) if length)

    def without_fit(self) -> Iterator[Outcome]:
        """Those that were refused, or failed."""
        if any(self.counts[status] for status in ("refused", "failed")):
            for row in self._rows():
                if row["status"] not in _WITH_FIT:
                    yield Outcome(row["name"], row["status"], row["words"])

    def _rows(self) -> Iterator[dict[str, Any]]:
        return (self._read(i) for i, length in enumerate(self._lengths) if length)

    def _read(self, index: int) -> dict[str, Any]:
        return json.loads(os.pread(self._file, self._lengths[index], self._starts[index]))

    def _write_csv(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self._kinds))
            writer.writeheader()
            writer.writerows(self._rows())

    def _write_parquet(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = {"text": pa.string(), "number": pa.float64(), "truth": pa.bool_(), "nothing": pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, kind in self._kinds.items()])
        with pq.ParquetWriter(path, schema) as writer:
            source = self._rows()
            while rows := list(islice(source, _ROWS_AT_A_TIME)):
                columns = {name: [_as_kind(row.get(name), kind) for row in rows] for name, kind in self._kinds.items()}
                writer.write_table(pa.table(columns, schema))


def read_summary(place: Path) -> dict[str, Any]:
    """The `summary.json` in the folder of a lens."""
    return parse_json((place / "summary.json").read_text())


def row_of(outcome: Outcome) -> dict[str, Any]:
    """The row of a lens in the tables: what became of it, its parameters and diagnostics."""
    row = {"name": outcome.name, "status": outcome.status, "words": outcome.words}
    if outcome.summary is None:
        return row
    for name, parameter in outcome.summary["parameters"].items():
        row |= {f"{name}_{part}": parameter[part] for part in ("median", "low", "high")}
    return row | outcome.summary["diagnostics"] | {"seconds": sum(outcome.summary["seconds"].values())}


def require_pyarrow() -> None:
    """Makes sure that pyarrow is there, which writes Parquet.

    Raises:
        ParameterError: it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ParameterError("tables in Parquet need pyarrow: pip install 'tflens[ray]', or pyarrow alone") from None


_WITH_FIT = ("fitted", "kept")
_SHORT = 100  # rows of a table that is written in milliseconds
_ROWS_AT_A_TIME = 1000


def _kind(value: Any) -> str:
    """Of a cell, as a column of Parquet has one for all rows."""
    if value is None:
        return "nothing"
    return "truth" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"


def _common_kind(earlier: str | None, kind: str) -> str:
    if earlier in (None, "nothing") or earlier == kind:
        return kind
    return earlier if kind == "nothing" else "text" if "text" in (earlier, kind) else "number"


def _as_kind(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text" and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if kind == "number" else value
