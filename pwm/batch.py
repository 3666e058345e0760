"""What the world model trains on: windows of several tasks, padded, time first."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pwm.buffers import BufferPool
from pwm.suites import Suite


class Batch(NamedTuple):
    """B windows of H steps, time first, zero-padded to the suite's largest sizes.

    Attributes:
        obs: (H+1, B, obs_dim) float32.
        action: (H, B, action_dim) float32; ``action[t]`` leads from ``obs[t]`` to ``obs[t+1]``.
        reward: (H, B) float32, the reward of that step.
        task: (B,) int64, ids in the suite.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    task: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))


def batch_shapes(suite: Suite, horizon: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of a batch's ``obs``, ``action`` and ``reward``."""
    return (horizon + 1, size, suite.obs_dim), (horizon, size, suite.action_dim), (horizon, size)


def batch_bytes(suite: Suite, horizon: int, size: int) -> int:
    """Bytes of a batch's ``obs``, ``action`` and ``reward``."""
    return 4 * sum(math.prod(shape) for shape in batch_shapes(suite, horizon, size))


def blank_arrays(buffers: BufferPool, suite: Suite, horizon: int, size: int) -> list[np.ndarray]:
    """A batch's ``obs``, ``action`` and ``reward`` with anything in them, in one buffer."""
    shapes = batch_shapes(suite, horizon, size)
    block = buffers.take(batch_bytes(suite, horizon, size)).view(np.float32)
    parts = np.split(block, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
