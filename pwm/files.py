"""Writing files so that a crash leaves either the old or the new content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def fsync_directory(directory: Path) -> None:
    """Makes the directory's entries (created and renamed files) durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file's content in one durable step.

    The data go to ``path`` + ``.tmp`` in the same directory, which is fsynced and renamed over
    ``path``. Callers see to it that one process at a time writes a given path.
    """
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    fsync_directory(path.parent)


def unfinished_path(path: Path) -> Path:
    """Where a directory is made that gets its own name, ``path``, only when it is whole."""
    return path.parent / f"{path.name}.unfinished"


def directory_sha256(directory: Path) -> str:
    """A name for the content of all files under a directory and where they are in it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
