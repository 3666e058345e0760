"""Networks of K tasks side by side: each has weights and a gradient norm of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pwm.runtime.clipping import clip_by_task


def clipped_step(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    grads: Sequence[Tensor],
    limit: float,
    tasks: int,
) -> Tensor:
    """One step of stacked networks; (tasks,) norms before each task's were clipped to ``limit``."""
    clipped, norm = clip_by_task(grads, limit, tasks)
    for parameter, grad in zip(parameters, clipped, strict=True):
        parameter.grad = grad
    optimizer.step()
    return norm


@torch.no_grad()
def assign_task(stacked: nn.Module, single: nn.Module, k: int, tasks: int) -> None:
    """Give task k of a stack the weights of a network of one task."""
    for ours, theirs in zip(stacked.parameters(), single.parameters(), strict=True):
        ours.view(tasks, -1, *ours.shape[1:])[k].copy_(theirs.view(-1, *ours.shape[1:]))


@torch.no_grad()
def keep_tasks(stacked: nn.Module, other: nn.Module, which: Tensor) -> None:
    """Give the tasks that ``which`` (tasks,) marks the weights of another stack of equal size."""
    for ours, theirs in zip(stacked.parameters(), other.parameters(), strict=True):
        chosen = which.view(-1, *[1] * (ours.dim() - 1))
        ours.copy_(torch.where(chosen, theirs, ours))
