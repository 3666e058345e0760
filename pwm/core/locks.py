"""A lock on a directory that vanishes with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from pwm.core.errors import PwmError
from pwm.core.files import writing

LOCK_NAME = ".lock"


class DirectoryLock:
    """An exclusive advisory lock on a directory (``flock`` on ``DIR/.lock``).

    The file names the holder by process id and host, for the message to a second writer, which
    waits ``patience`` seconds. The kernel drops the lock when the holder ends, however it ends.
    Spawned processes do not inherit it.
    """

    def __init__(self, directory: str | os.PathLike[str], patience: float = 0.0) -> None:
        self.directory = Path(directory)
        self.patience = patience
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    def acquire(self) -> None:
        """Locks the directory, without waiting unless there is patience.

        Raises PwmError if another writer holds it, with its pid and host, or it cannot be written.
        """
        path = self.directory / LOCK_NAME
        with writing(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        with ExitStack() as on_error:
            on_error.callback(os.close, fd)
            try:
                _flock(fd, self.patience)
            except BlockingIOError as error:
                raise PwmError(
                    f"{self.directory} is being written by {_read_holder(fd)}; one writer at a "
                    "time is allowed: wait until it ends, or stop it."
                ) from error
            except OSError as error:
                raise PwmError(
                    f"cannot lock {path} ({error.strerror}); the store needs a file system with "
                    "flock: put it on a local disk."
                ) from error
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            with writing(path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, holder.encode(), 0)
            on_error.pop_all()
        self._fd = fd

    def release(self) -> None:
        """Gives the lock back; does nothing where it is not held."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def _flock(fd: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.05)


def is_locked(directory: Path) -> bool:
    """Whether a process holds a directory's lock; on a network file system, one of any host."""
    try:
        fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


def _read_holder(fd: int) -> str:
    try:
        note = json.loads(os.pread(fd, 4096, 0))
        return f"process {int(note['pid'])} on host {str(note['host'])!r}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has not yet written its name
