"""Gradients of several tasks, each clipped by itself, and steps that may be left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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


def step_unless(skip: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Step a fused optimizer, or where ``skip`` is true leave weights, moments and count alone.

    The fused kernels look at ``found_inf`` on the device, as they do for `torch.amp.GradScaler`.
    """
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
    optimizer.step()
