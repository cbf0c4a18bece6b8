"""Files that appear whole or not at all, and folders that one process at a time works in."""

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from .errors import InputError

fcntl: Any = None  # Windows has no such lock on folders: there two runs in one are not noticed
with contextlib.suppress(ImportError):
    import fcntl


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside ``path`` and rename it: a reader sees the old content or the new, whatever is killed when.

    Raises:
        InputError: the folder does not exist or cannot be written to, the disk is full, or ``path`` is a device or a
            folder; the old file is as it was.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"cannot write {path}: it is no ordinary file")
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".part", delete=False
        ) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # gone already when all went well


def remove_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what writers of the files ``names`` left that were killed. None may be at work: see :func:`alone_in`."""
    for name in names:
        for part in folder.glob(f".{name}.*.part"):
            with contextlib.suppress(OSError):
                part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all; NaN, which JSON lacks, is an error."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder and make sure that it can be written to.

    Raises:
        InputError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from None
    check_writable(path)


def check_writable(folder: Path) -> None:
    """Raise an InputError unless files can be written into ``folder``."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into the folder {folder}: {error.strerror}") from None


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, no other process is in ``folder`` by this function. The lock goes with the process, however it ends.

    Raises:
        InputError: another process is there.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):  # a file system without locks
            yield
            return
        raise InputError(f"another run is working in {folder}: wait for it, or choose another folder") from None
    try:
        yield
    finally:
        os.close(handle)
