"""Files that are whole or not there at all, in folders of one writer; full disks; text that is read without harm."""

import errno
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tflens.errors import ParameterError, StorageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path in the same folder and renames the result to `path`.

    A reader, or a run that is killed, never sees a half-written file. The temporary name keeps the ending, from which
    some writers tell the format; `remove_leftovers` finds it.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name) / "note.txt"
        >>> write_atomically(target, lambda temporary: temporary.write_text("done"))
        >>> target.read_text()
        'done'
        >>> folder.cleanup()
    """
    stem, ending = _parts(path)
    handle, name = tempfile.mkstemp(prefix=f".{stem}-", suffix=ending, dir=path.parent)
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


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` with the path of an empty folder beside `path`, which then takes the place of `path`.

    A folder that was there goes; only between its going and the coming of the new one is there none.

    Example:
        >>> parent = tempfile.TemporaryDirectory()
        >>> target = Path(parent.name) / "model"
        >>> write_folder(target, lambda new: (new / "weights").touch())
        >>> [file.name for file in target.iterdir()]
        ['weights']
        >>> parent.cleanup()
    """
    # A name with a dot is none of a model's versions to a server that looks.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as place:
        written = Path(place) / "new"
        written.mkdir()
        write(written)
        if path.exists():
            path.rename(Path(place) / "old")
        written.rename(path)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Removes what `write_atomically` has left of files of these names, in a process that was killed meanwhile.

    Only for a folder that nobody else writes to.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> leftover = Path(folder.name) / ".note-k3j.txt"
        >>> leftover.touch()
        >>> remove_leftovers(Path(folder.name), ["note.txt"])
        >>> leftover.exists()
        False
        >>> folder.cleanup()
    """
    for name in names:
        stem, ending = _parts(Path(name))
        for leftover in folder.glob(f".{stem}-*{ending}"):
            leftover.unlink()


def make_writable(folder: Path) -> None:
    """Makes a folder, or makes sure that one can write to it, before hours are spent on what goes there.

    Raises:
        StorageError: it cannot be made, or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b" ")
            file.flush()
    except OSError as error:
        raise StorageError(
            f"{folder}: the output folder must be writable, but {error.strerror or error}. Choose another place."
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time: two would remove each other's files. The lock ends with the process, however it ends.

    Raises:
        ParameterError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - not a POSIX system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParameterError(f"{folder}: another process is writing to it; wait for it, or end it") from None
        except OSError:  # pragma: no cover - a file system without locks, as some networks' are
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def telling_of_full_disks(folder: Path, kept: str) -> Iterator[None]:
    """Turns the error of a disk that takes no more into one that says what to do.

    Args:
        folder: that is written to.
        kept: a sentence on what is not lost.

    Raises:
        StorageError: instead of the error of a full or read-only disk, whichever library it comes from.

    Example:
        >>> with telling_of_full_disks(Path("out"), "Finished lenses are kept."):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        ...
        tflens.errors.StorageError: out: cannot be written to any more, No space left on device. Finished lenses are
        kept. Make room, and give the same command again: it goes on from there.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if (cause := storage_cause(error)) is None:
            raise
        raise StorageError(
            f"{folder}: cannot be written to any more, {cause}. {kept} Make room, and give the same command again: it "
            "goes on from there."
        ) from error


def storage_cause(error: BaseException) -> str | None:
    """What a disk says that takes no more, if that is what an error comes from; else None.

    Example:
        >>> storage_cause(RuntimeError("Can't write data (No space left on device)"))
        'No space left on device'
        >>> storage_cause(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
        True
    """
    number = getattr(error, "errno", None)
    if number in _OF_STORAGE:
        return os.strerror(number)
    # HDF5 and TensorFlow pass on the system's words alone.
    return next((words for words in map(os.strerror, _OF_STORAGE) if words in str(error)), None)


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


def _parts(path: Path) -> tuple[str, str]:
    """Name and ending of a file; Keras asks for one of two parts."""
    ending = _OF_WEIGHTS if path.name.endswith(_OF_WEIGHTS) else path.suffix
    return path.name.removesuffix(ending), ending


def _parsed(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


_OF_WEIGHTS = ".weights.h5"
_OF_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
