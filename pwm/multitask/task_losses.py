"""Losses by task, from those of the windows of a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TaskLosses(NamedTuple):
    """Sums of losses over each task's windows, of which parts of a batch can be added.

    Attributes:
        sums: (losses, K).
        counts: (K,) windows, float.
    """

    sums: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """(losses, K); NaN for a task without windows."""
        return self.sums / self.counts.where(self.counts > 0, torch.nan)


def by_task(losses: Tensor, task: Tensor, tasks: int) -> TaskLosses:
    """Add up losses by task, always in the same order and without waiting for the device.

    Args:
        losses: (losses, B) of windows; one that is not finite spoils that of its task alone.
        task: (B,) ids below ``tasks``.
        tasks: K.
    """
    belongs = task == torch.arange(tasks, device=task.device).unsqueeze(1)
    sums = torch.where(belongs, losses.unsqueeze(1), 0.0).sum(-1)
    return TaskLosses(sums, belongs.sum(-1).to(losses.dtype))
