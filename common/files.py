"""Files that are whole or absent, and private where they must be."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ZEROS_BYTES = 1 << 20


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, owner: tuple[int, int] = (-1, -1)) -> None:
    """Replace ``path`` by ``data`` so that a reader, or a crash, sees the old file or the new one, never a part.

    The data and the directory entry are on disk when this returns. Keys are written with ``mode=0o600``. ``owner`` is the number of
    a user and of a group; -1: who writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold ``path`` as a lock that one process at a time can have; it is free again when that process ends, however it ends.

    Raises BlockingIOError where another has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def erase(path: Path) -> None:
    """Overwrite a file, or all files of a folder, with zeros, and then remove it; nothing is said where there is none.

    The zeros are on disk before the name is gone. A disk that writes elsewhere than it is told (flash, copy on write) may keep the old
    blocks until it needs them: there, only encryption of the whole disk takes the data away.
    """
    if path.is_dir() and not path.is_symlink():
        for inner in path.iterdir():
            erase(inner)
        shutil.rmtree(path)
        return
    if not path.is_symlink():
        try:
            with path.open("r+b", buffering=0) as file:
                left = os.fstat(file.fileno()).st_size
                while left > 0:
                    left -= file.write(bytes(min(left, _ZEROS_BYTES)))
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
    path.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Put the directory's entries on disk: a rename is durable only after this."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
