"""Saving as often as a run can afford: a save that takes long waits until it is worth it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_SHARE = 0.05  # of a run's time that saves may take
_SLOW = 1.0  # seconds; shorter saves are made whenever they are asked for


class SpacedSaves:
    """Keeps slow saves apart, by how long the last one took."""

    def __init__(self) -> None:
        self._took, self._ended = 0.0, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last save."""
        wait = self._took / _SHARE if self._took >= _SLOW else 0.0
        return time.monotonic() - self._ended >= wait

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save."""
        began = time.monotonic()
        yield
        self._ended = time.monotonic()
        self._took = self._ended - began
