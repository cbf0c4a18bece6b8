"""Files that appear whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .errors import InputError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside ``path`` and rename it: a reader sees the old content or the new, whatever is killed when.

    Raises:
        InputError: the folder does not exist or cannot be written to, or the disk is full; the old file is as it was.
    """
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
