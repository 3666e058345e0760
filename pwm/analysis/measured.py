"""Measurements on disk, from which an analysis that was stopped goes on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically

Arrays = dict[str, np.ndarray]


class Measured:
    """Named arrays by the name of a measurement, a file each.

    Args:
        directory: where they are; made with the first.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def any(self) -> bool:
        """Whether there is a measurement."""
        return any(self._directory.glob("*.npz"))

    def get(self, name: str) -> Arrays | None:
        """The arrays of a measurement; None if it was not made.

        Raises:
            PwmError: if its file is damaged.
        """
        file = self._directory / f"{name}.npz"
        if not file.is_file():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, BadZipFile) as error:
            raise PwmError(f"{file} is damaged ({error}); delete it to measure it anew.") from error

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Keep a measurement; returns it."""
        make_directory(self._directory)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(self._directory / f"{name}.npz", buffer.getvalue())
        return dict(arrays)
