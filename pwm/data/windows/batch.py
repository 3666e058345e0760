"""What the world model trains on: windows of several tasks, padded, time first."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pwm.core.suites import Suite


class Batch(NamedTuple):
    """B windows of H steps, time first, zero-padded to the suite's largest sizes.

    Attributes:
        obs: (H+1, B, obs_dim) float32.
        action: (H, B, action_dim) float32; ``action[t]`` leads from ``obs[t]`` to ``obs[t+1]``.
        reward: (H, B) float32, the reward of that step.
        task: (B,) int64, ids in the suite.
        terminated: (H, B) bool, whether the episode ended with that step by itself and not by a
            time limit; None where it was not asked for.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    task: Tensor
    terminated: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device."""
        obs, action, reward, task = (
            tensor.to(device, non_blocking=non_blocking)
            for tensor in (self.obs, self.action, self.reward, self.task)
        )
        terminated = self.terminated
        if terminated is not None:
            terminated = terminated.to(device, non_blocking=non_blocking)
        return Batch(obs, action, reward, task, terminated)

    def part(self, windows: slice | Tensor) -> Batch:
        """Some of the windows, by a slice or their numbers."""
        terminated = None if self.terminated is None else self.terminated[:, windows]
        return Batch(
            self.obs[:, windows],
            self.action[:, windows],
            self.reward[:, windows],
            self.task[windows],
            terminated,
        )


def joined(batches: Sequence[Batch]) -> Batch:
    """The windows of several batches of one length as one, in their order."""
    obs, action, reward = (
        torch.cat([getattr(batch, name) for batch in batches], 1)
        for name in ("obs", "action", "reward")
    )
    terminated = [batch.terminated for batch in batches if batch.terminated is not None]
    return Batch(
        obs,
        action,
        reward,
        torch.cat([batch.task for batch in batches]),
        torch.cat(terminated, 1) if terminated else None,
    )


def batch_bytes(suite: Suite, horizon: int, size: int) -> int:
    """Bytes of the buffer that a batch's ``obs``, ``action`` and ``reward`` take."""
    return sum(map(_aligned_bytes, _shapes(suite, horizon, size)))


def blank_arrays(buffers: BufferPool, suite: Suite, horizon: int, size: int) -> list[np.ndarray]:
    """A batch's ``obs``, ``action`` and ``reward`` with anything in them, in one buffer."""
    buffer = buffers.take(batch_bytes(suite, horizon, size))
    arrays, begin = [], 0
    for shape in _shapes(suite, horizon, size):
        part = buffer[begin : begin + 4 * math.prod(shape)]
        arrays.append(part.view(np.float32).reshape(shape))
        begin += _aligned_bytes(shape)
    return arrays


def _shapes(suite: Suite, horizon: int, size: int) -> tuple[tuple[int, ...], ...]:
    return (horizon + 1, size, suite.obs_dim), (horizon, size, suite.action_dim), (horizon, size)


def _aligned_bytes(shape: tuple[int, ...]) -> int:
    return math.ceil(4 * math.prod(shape) / ALIGNMENT) * ALIGNMENT


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
