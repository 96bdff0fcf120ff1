"""Folders that can be written to, by one process at a time, and disks that are full."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tflens.errors import ParameterError, StorageError


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


_OF_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
