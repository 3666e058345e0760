"""Low-rank changes for each of several tasks by itself, trained side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from pwm.models.grouped_weights import TASK_GROUPS
from pwm.models.stacked_deltas import RowGroups, StackedDeltas
from pwm.multitask.low_rank import LowRankDeltas
from pwm.runtime.clipping import clip_by_task


class StackedLowRankDeltas(LowRankDeltas):
    """As :class:`LowRankDeltas`, but each task's windows are computed with changes of its own.

    A batch of training has as many windows of each task, in the order of ``tasks``.

    Args:
        model: as for :class:`LowRankDeltas`.
        layers: as for it.
        rank: as for it.
        base: as for it.
        small: as for it.
        tasks: ids of the K tasks.
        names: of all tasks by id.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        rank: int,
        base: Mapping[str, Any],
        small: Collection[str],
        tasks: Sequence[int],
        names: Sequence[str],
    ) -> None:
        self.tasks, self._rows = list(tasks), RowGroups(len(tasks))
        self._set = torch.full((len(names),), len(tasks))
        self._set[self.tasks] = torch.arange(len(tasks))
        super().__init__(model, layers, rank, base, small)
        self.meta[TASK_GROUPS] = [[names[task]] for task in tasks]

    def _change(self, layer: nn.Module, rank: int, scale: float) -> StackedDeltas:
        assert isinstance(layer.weight, Tensor)
        weight = layer.weight.detach()
        delta = StackedDeltas.none_yet(weight, len(self.tasks), rank, scale, self._rows.product)
        layer.change = delta
        return delta

    def of_tasks(self, task: Tensor) -> AbstractContextManager[None]:
        """As that of what it is a kind of; other tasks have no changes."""
        return self._rows.of(self._set.to(task.device)[task])

    def of_batch(self, task: Tensor) -> AbstractContextManager[None]:
        """As that of what it is a kind of."""
        return self._rows.of(task, even=True)

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Clip the gradients of each task apart; a task with a non-finite one gets zeros.

        Args:
            parameters: factors of changes, and such as have a row for every task of the model.
            limit: largest norm.

        Returns:
            (K,) norms before clipping.
        """
        factors = {p for delta in self._deltas.values() for p in delta.parameters()}
        trained = [(p, p.grad) for p in parameters if p.grad is not None]
        rows = [grad if p in factors else grad[self.tasks] for p, grad in trained]
        clipped, norms = clip_by_task(rows, limit, len(self.tasks))
        for (parameter, grad), new in zip(trained, clipped, strict=True):
            if parameter in factors:
                parameter.grad = new
            else:
                grad[self.tasks] = new
        return norms
