"""Which tasks to draw windows of: those whose losses change."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pwm.multitask.task_losses import TaskLosses


class LearningProgress(nn.Module):
    """Shares of tasks in a batch by the absolute change of their smoothed losses over a period.

    A part of every batch, ``floor``, is divided evenly among the tasks, so that one that comes to
    be learned later is noticed; the rest goes by change. Shares are even until losses of two
    periods can be compared, and stay as they are in between.
    """

    smoothed: Tensor
    before: Tensor
    change: Tensor
    seen: Tensor

    def __init__(self, tasks: int, period: int, smoothing: float, floor: float) -> None:
        super().__init__()
        self.register_buffer("smoothed", torch.full((tasks,), torch.nan))
        self.register_buffer("before", torch.full((tasks,), torch.nan))
        self.register_buffer("change", torch.ones(tasks, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(tasks, dtype=torch.bool))
        self.period, self.smoothing, self.floor = period, smoothing, floor

    @torch.no_grad()
    def observe(self, losses: TaskLosses, skip: Tensor) -> None:
        """Smooth the first of some losses, unless ``skip``, () bool; without waiting for it."""
        there = (losses.counts > 0) & ~skip
        loss = losses.means()[0]
        following = self.smoothed * self.smoothing + loss * (1 - self.smoothing)
        following = torch.where(self.seen, following, loss)
        self.smoothed.copy_(torch.where(there, following, self.smoothed))
        self.seen |= there

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(first, end) of the updates from ``start`` on that are drawn with the same shares."""
        while start < end:
            following = min(end, (start // self.period + 1) * self.period)
            yield start, following
            start = following

    def renew(self, step: int) -> None:
        """To be called before every span of updates: shares change where a period ends.

        A checkpoint of that moment is from before it, so a run that goes on calls it again.
        """
        if step == 0 or step % self.period:
            return
        change = (self.smoothed - self.before).abs().double()
        known = change.isfinite()
        if known.any():  # a task that has just come in counts as an average one
            self.change.copy_(torch.where(known, change, change[known].mean()))
        self.before.copy_(self.smoothed)

    def shares(self, ids: list[int]) -> Tensor:
        """Shares of some tasks in a batch, (tasks,) float64 on the CPU; they sum to 1."""
        change = self.change[ids].cpu()
        even = torch.full_like(change, 1 / len(ids))
        if not change.sum() > 0:
            return even
        return self.floor * even + (1 - self.floor) * change / change.sum()
