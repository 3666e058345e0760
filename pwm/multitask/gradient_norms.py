"""Norms of every task's gradient of one layer's weights, from a single backward pass.

The gradient of a linear layer's weight is a sum over windows of outer products, d_b x_b^T, of the
gradient at the layer's output with its input. So the squared norm of a task's part of it is the sum
of (d_b . d_c)(x_b . x_c) over all pairs b, c of the task's windows, and no task's gradient is ever
formed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def squared_norms(inputs: Tensor, grads: Tensor, task: Tensor, tasks: int) -> Tensor:
    """Squared Frobenius norms of sum_b grads_b inputs_b^T over each task's windows.

    Args:
        inputs: (B, m).
        grads: (B, n).
        task: (B,) ids below ``tasks``.
        tasks: K.

    Returns:
        (K,).
    """
    pairs = (grads @ grads.T) * (inputs @ inputs.T) * (task == task.unsqueeze(1))
    belongs = task == torch.arange(tasks, device=task.device).unsqueeze(1)
    return torch.where(belongs, pairs.sum(1), 0.0).sum(1).clamp(min=0.0)


class LayerGradients:
    """Watches a normed linear layer through forward and backward passes.

    Args:
        layer: linear, then ``layer.ln`` and ``layer.act``. It is to be called once with gradients
            in every pass; calls without gradients do not count.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._calls: list[tuple[Tensor, Tensor]] = []
        layer.register_forward_hook(self._note)

    def _note(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            self._calls.append((inputs[0].detach(), output))

    def norms(
        self, task: Tensor, tasks: int, gather: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor:
        """Norms of the gradients of the tasks' mean losses by the layer's weight, (K,).

        Of all calls since the last time, whose windows are all of a batch, in the order of
        ``task``, and whose backward passes were of a mean over all of them.

        Args:
            task: (B,) ids below ``tasks``.
            tasks: K.
            gather: brings together what ranks have of a batch, along the first dimension.
        """
        calls, self._calls = self._calls, []
        inputs = gather(torch.cat([x for x, _ in calls]).float())
        grads = gather(torch.cat([self._before_norm(x, z) for x, z in calls]) * len(task))
        task = gather(task)
        counts = (task == torch.arange(tasks, device=task.device).unsqueeze(1)).sum(1)
        return squared_norms(inputs, grads, task, tasks).sqrt() / counts.clamp(min=1)

    def _before_norm(self, x: Tensor, output: Tensor) -> Tensor:
        """The gradient at the result of the linear map, (B, n), from that at the layer's output."""
        assert output.grad is not None
        layer = self._layer
        assert isinstance(layer.ln, nn.LayerNorm) and isinstance(layer.act, nn.Module)
        with torch.enable_grad():
            y = F.linear(x.float(), layer.weight.detach(), layer.bias.detach()).requires_grad_()
            z = layer.act(layer.ln(y))
            (grad,) = torch.autograd.grad(z, y, output.grad.float())
        return grad
