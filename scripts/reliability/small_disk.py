"""A small disk of its own, a tmpfs, that something else can fill."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path

CAPACITY = 2**27  # bytes
_SECONDS_BETWEEN_LOOKS = 0.001


class Disk:
    """A disk that something else can fill.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Inside, it is there and empty; gives the path for a command's files."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={CAPACITY}", "tmpfs", str(self.path)]
        subprocess.run(mount, check=True)
        try:
            yield self.path / "out"
        finally:
            subprocess.run(["umount", str(self.path)], check=True)

    def fill(self, room: int = 0) -> None:
        """Leave ``room`` bytes free, whatever others write meanwhile."""
        with open(self._ballast, "ab") as file:
            while (free := self._free() - room) > 0:
                size = os.fstat(file.fileno()).st_size
                try:
                    os.posix_fallocate(file.fileno(), size, free)
                except OSError:  # another writer was there first
                    continue

    def make_room(self) -> None:
        """Take away what filled it."""
        self._ballast.unlink()

    @property
    def used(self) -> int:
        """Bytes that are taken."""
        return CAPACITY - self._free()

    def watch(self, process: ForkProcess) -> Iterator[int]:
        """The bytes that are taken, whenever a process is seen to have changed them."""
        before = self.used
        while process.is_alive():
            if (now := self.used) != before:
                yield now
                before = now
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _free(self) -> int:
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize
