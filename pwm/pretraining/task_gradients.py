"""Every task's gradient of the loss apart, and one direction from all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pwm.data.windows.sampler import Batch
from pwm.multitask.aggregation import Aggregator
from pwm.multitask.task_losses import TaskLosses
from pwm.pretraining.losses import LatentRollout, PriorNoise
from pwm.runtime.acceleration import Metrics


class Gradients(NamedTuple):
    """What an update has when gradients are in place, all of it detached."""

    loss: Tensor  # ()
    metrics: Metrics  # means of the loss's terms over windows
    rollout: LatentRollout
    losses: TaskLosses  # the whole loss first, then the terms


def _same(tensor: Tensor) -> Tensor:
    return tensor


class TaskGradients:
    """Goes through a batch task by task.

    Windows do not depend on one another, so this is about the arithmetic of one pass over the whole
    batch, in as many smaller pieces as there are tasks. The gradients take as much memory as the
    weights for every task.

    Args:
        shared: parameters whose gradients are aggregated.
        own: parameters of which every task has a part of its own; their gradients are added up.
        tasks: K.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        shared: list[nn.Parameter],
        own: list[nn.Parameter],
        tasks: int,
    ) -> None:
        self._aggregator, self._tasks = aggregator, tasks
        self._parameters = [*shared, *own]
        self._sizes = [parameter.numel() for parameter in self._parameters]
        self._shared = sum(self._sizes[: len(shared)])
        self._rows = torch.empty(0)

    def take(
        self,
        loss: Callable[[Batch, PriorNoise | None], Any],
        batch: Batch,
        noise: PriorNoise | None,
    ) -> Gradients:
        """Keep the gradient of every task's part in the mean over windows of a loss.

        Args:
            loss: gives what :meth:`pwm.pretraining.learner.WorldModelLearner._loss` does.
            batch: windows of any tasks in any order.
            noise: the update's random numbers, if there are Q and prior.
        """
        order = batch.task.argsort(stable=True)
        counts = torch.bincount(batch.task, minlength=self._tasks).tolist()
        if not len(self._rows):
            device = batch.task.device
            self._rows = torch.empty(self._tasks, sum(self._sizes), device=device)
        self._rows.zero_()
        found = []
        for row, windows in zip(self._rows, order.split(counts), strict=True):
            if len(windows):
                share = len(windows) / len(order)
                part = None if noise is None else noise.part(windows)
                value, *rest = loss(batch.part(windows), part)
                grads = torch.autograd.grad(share * value, self._parameters)
                torch.cat([grad.flatten() for grad in grads], out=row)
                found.append(_Part(share, value.detach(), *rest))
        return _together(found, order.argsort())

    def aggregate(
        self,
        weights: Tensor | None,
        counts: Tensor,
        mean: Callable[[Tensor], object] = _same,
        broadcast: Callable[[Tensor], Tensor] = _same,
    ) -> None:
        """Put the direction that the kept gradients give in the place of the parameters' gradients.

        Args:
            weights: of tasks, (K,), which scale their gradients; None for 1.
            counts: of windows of the whole batch, (K,); the others' gradients do not take part.
            mean: over ranks, of a tensor, in place.
            broadcast: the main rank's tensor, in place.
        """
        mean(self._rows)
        if weights is not None:
            self._rows *= weights.unsqueeze(1)
        there = counts > 0
        rows = self._rows[there] if not there.all() else self._rows
        shared, own = rows.split([self._shared, rows.shape[1] - self._shared], 1)
        # Rows add up to the gradient of the mean over windows; of methods they are to be the mean.
        chosen = broadcast(self._aggregator.weights(shared)) * len(rows)
        direction = torch.cat([chosen @ shared, own.sum(0)])
        for parameter, grad in zip(self._parameters, direction.split(self._sizes), strict=True):
            parameter.grad = grad.view_as(parameter)


class _Part(NamedTuple):
    """What a task's windows gave."""

    share: float
    loss: Tensor
    metrics: Metrics
    rollout: LatentRollout
    losses: TaskLosses


def _together(parts: list[_Part], places: Tensor) -> Gradients:
    """Those of the whole batch, whose windows are at ``places`` in those of the parts."""
    loss = torch.stack([part.share * part.loss for part in parts]).sum()
    metrics = {
        name: torch.stack([part.share * part.metrics[name] for part in parts]).sum()
        for name in parts[0].metrics
    }
    latents = torch.cat([part.rollout.latents.detach() for part in parts], 1)[:, places]
    targets = torch.cat([part.rollout.targets for part in parts], 1)[:, places]
    losses = TaskLosses(
        torch.stack([part.losses.sums for part in parts]).sum(0),
        torch.stack([part.losses.counts for part in parts]).sum(0),
    )
    return Gradients(loss, metrics, LatentRollout(latents, targets), losses)
