"""Writing files so that a crash leaves either the old or the new content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from pwm.core.errors import PwmError, explain_unwritten


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError, such as of a full disk, into a PwmError of one sentence.

    Also where ``torch.save`` hides one: it goes on to close its archive, and raises the
    RuntimeError that this gives.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refused = error if isinstance(error, OSError) else error.__context__
        if not isinstance(refused, OSError):
            raise
        raise PwmError(explain_unwritten(path, refused)) from error


def fsync_directory(directory: Path) -> None:
    """Makes the directory's entries (created and renamed files) durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Makes a directory and those above it, durably; raises PwmError if it cannot be made."""
    if not path.is_dir():
        make_directory(path.parent)
        with writing(path):
            path.mkdir(exist_ok=True)
            fsync_directory(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Replaces a file by what is written inside, in one durable step when that has ended.

    The data go to ``path`` + ``.tmp`` in the same directory, which is fsynced and renamed over
    ``path``. Callers make sure that one process at a time writes a given path. Raises PwmError.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)  # a killed writer's; never written through a link
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except Exception:
            temporary.unlink(missing_ok=True)  # on a full disk its room is wanted
            raise
        fsync_directory(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file's content as :func:`replacing` does; raises PwmError if it cannot."""
    with replacing(path) as file:
        file.write(data)


def write_all(file: RawIOBase, data: bytes) -> None:
    """Writes all of the data, where one call of an unbuffered file's ``write`` may do a part.

    A file whose last write failed, with an OSError, keeps nothing back to try again on closing.
    """
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def unfinished_path(path: Path) -> Path:
    """Where a directory is made that gets its own name, ``path``, only when it is whole."""
    return path.parent / f"{path.name}.unfinished"


def file_sha256(path: Path) -> str:
    """Of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def directory_sha256(directory: Path) -> str:
    """A name for the content of all files under a directory and where they are in it."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(path.relative_to(directory).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
