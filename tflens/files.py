"""Files, and folders of them, that are whole or not there at all."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


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
        move_whole(temporary, path)
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
        move_whole(written, path)


def move_whole(source: Path, target: Path) -> None:
    """Renames a file or a folder, in the same folder, so that not even a loss of power leaves the name of a half one.

    What it holds is on the disk before it gets the name, and the name is before this returns.

    Raises:
        OSError: it cannot be renamed, for example since `target` is a folder with content.

    Example:
        >>> folder = tempfile.TemporaryDirectory()
        >>> source = Path(folder.name) / "in work"
        >>> source.touch()
        >>> move_whole(source, Path(folder.name) / "done")
        >>> [file.name for file in Path(folder.name).iterdir()]
        ['done']
        >>> folder.cleanup()
    """
    for each in (*source.rglob("*"), source):
        _flush(each)
    source.replace(target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    """Waits until the disk has a file, or which names a folder holds."""
    if os.name != "posix" and path.is_dir():  # pragma: no cover - folders cannot be opened there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some file systems of networks flush no folders
            raise
    finally:
        os.close(handle)


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


def _parts(path: Path) -> tuple[str, str]:
    """Name and ending of a file; Keras asks for one of two parts."""
    ending = _OF_WEIGHTS if path.name.endswith(_OF_WEIGHTS) else path.suffix
    return path.name.removesuffix(ending), ending


_OF_WEIGHTS = ".weights.h5"
