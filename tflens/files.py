"""Files that are whole or not there at all, and text from others that is read without harm."""

import json
import os
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path in the same folder and renames the result to `path`.

    A reader, or a run that is killed, never sees a half-written file. The temporary name keeps the suffix, from which
    some writers tell the format.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name) / "note.txt"
        >>> write_atomically(target, lambda temporary: temporary.write_text("done"))
        >>> target.read_text()
        'done'
        >>> folder.cleanup()
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files private; what the user asked for gets the mode a plain open() would give.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_there(path: Path) -> bool:
    """Whether a path exists; one that cannot be a path, such as a very long one, does not.

    Example:
        >>> is_there(Path("/")), is_there(Path("n" * 5000))
        (True, False)
    """
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a path is that of a file, as `is_there`."""
    return is_there(path) and path.is_file()


def parse_json(text: str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: it is no JSON, or is nested more deeply than Python can follow.

    Example:
        >>> parse_json('{"a": [1, null]}')
        {'a': [1, None]}
    """
    return _parsed(json.loads, text)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: as `parse_json`.
    """
    return _parsed(tomllib.loads, text)


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
