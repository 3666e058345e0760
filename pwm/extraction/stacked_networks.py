"""Networks of K tasks side by side: each has weights and a gradient norm of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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


def clip_by_task(grads: Sequence[Tensor], limit: float, tasks: int) -> tuple[list[Tensor], Tensor]:
    """Clip gradients for each task apart; a task with a non-finite one gets zeros.

    Returns:
        The gradients, and (tasks,) norms before clipping.
    """
    flat = torch.cat([grad.reshape(tasks, -1) for grad in grads], 1)
    norm = torch.linalg.vector_norm(flat, dim=1)
    factor = (limit / norm.clamp(min=1e-6)).clamp(max=1.0).unsqueeze(1)
    clipped = torch.where(norm.isfinite().unsqueeze(1), flat * factor, 0.0)
    parts = clipped.split([grad.numel() // tasks for grad in grads], 1)
    return [p.contiguous().view_as(g) for p, g in zip(parts, grads, strict=True)], norm


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
