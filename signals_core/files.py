"""The one atomic write and the one lock: readers see the old file or the new one, never half of either."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK_TIMEOUT_SECONDS = 120


def write_atomic(path: Path, write: Callable[[Path], object], durable: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and rename it over `path`.

    Args:
        durable: False leaves the flush to the system: for what has checksums and can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        if durable:
            _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """`write_atomic` for content that is already in memory."""
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill, renamed to `path` on success and removed on failure.

    Raises:
        FileExistsError: `path` exists already; folders made here are never overwritten.
    """
    import shutil

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        temporary.rename(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Remove a folder: it is gone at once for readers, and its content after that. Its absence is no error."""
    import shutil

    hidden = path.with_name(f".{path.name}.removed.tmp")
    shutil.rmtree(hidden, ignore_errors=True)  # of a removal that was cut short
    if path.is_dir():
        path.rename(hidden)
        _sync(path.parent)
        shutil.rmtree(hidden)


def append_line(path: Path, line: str) -> None:
    """Append one line and flush it to disk. The caller holds a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    truncate_torn_line(path)
    with path.open("ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:  # else the file's name could be lost with the power
        _sync(path.parent)


def truncate_torn_line(path: Path) -> None:
    """Remove a last line cut short by a power failure (no newline at its end): it was never acknowledged."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes on `path` (a lock file; it stays, empty)."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=_LOCK_TIMEOUT_SECONDS):
        yield


def sweep_temporaries(folder: Path, older_than_seconds: float = 3600) -> int:
    """Remove temporaries that a killed process left under `folder`; returns how many."""
    import shutil
    import time

    removed = 0
    for leftover in folder.rglob(".*.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime < older_than_seconds:
                continue
        except FileNotFoundError:  # its writer has just renamed it
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
        removed += 1
    return removed


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
