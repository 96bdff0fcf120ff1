"""Records of what was measured, in a JSON file: from these, tables of the documentation are made."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tflens.errors import ParameterError
from tflens.files import write_atomically

Record = dict[str, Any]


def keep_records(path: str | Path, records: Sequence[Record], by: Sequence[str] = ("id", "variant")) -> None:
    """Writes records to a JSON file, in place of those that are alike; all others in it stay.

    Args:
        path: of the file; made if missing, its folder too.
        records: each with an `id` and a `variant`.
        by: what records are alike in: all of these.

    Raises:
        ParameterError: the file exists and does not hold a list of records.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "bench.json"
        ...     keep_records(path, [{"id": "G1", "variant": "a", "value": 1}, {"id": "G1", "variant": "b", "value": 2}])
        ...     keep_records(path, [{"id": "G1", "variant": "a", "value": 3}])
        ...     [record["value"] for record in json.loads(path.read_text())]
        [2, 3]
    """
    path = Path(path)
    kept = []
    if path.exists():
        try:
            kept = json.loads(path.read_text())
            replaced = {tuple(record[name] for name in by) for record in records}
            kept = [record for record in kept if tuple(record[name] for name in by) not in replaced]
        except (ValueError, TypeError, KeyError) as error:
            raise ParameterError(
                f"{path}: must hold a list of records, but it holds none ({type(error).__name__}: {error}). Mend it, "
                "or move it away."
            ) from None
    text = json.dumps([*kept, *records], indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_text(text))
