"""Memory that is used again: fresh megabytes for each batch cost more than filling them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

ALIGNMENT = 64  # bytes: rounding in a matrix product may depend on where its operands lie

_MOST_FREE = 16


class BufferPool:
    """Hands out byte buffers and takes them back by itself when nothing refers to them any more.

    May be shared by threads.
    """

    def __init__(self, blocks: Sequence[np.ndarray] = ()) -> None:
        """Begins with some blocks of memory, uint8; others are made as they are needed."""
        self._free = list(blocks)

    def take(self, size: int) -> np.ndarray:
        """A buffer with anything in it, (size,) uint8, aligned; views of it keep it in use."""
        try:
            block = self._free.pop()
        except IndexError:
            block = np.empty(0, np.uint8)
        offset = -block.ctypes.data % ALIGNMENT
        if len(block) < offset + size:
            block = np.empty(size + ALIGNMENT, np.uint8)
            offset = -block.ctypes.data % ALIGNMENT
        # An array over a memoryview is the base of all its views, so it outlives them.
        buffer = np.frombuffer(block.data, np.uint8, size, offset)
        weakref.finalize(buffer, self._give_back, block).atexit = False
        return buffer

    def _give_back(self, block: np.ndarray) -> None:
        if len(self._free) < _MOST_FREE:
            self._free.append(block)
