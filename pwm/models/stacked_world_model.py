"""World models of many tasks that differ by low-rank changes alone, called side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch

from pwm.core.suites import Task
from pwm.models.grouped_weights import TASK_GROUPS, of_tasks, task_groups
from pwm.models.layers import NormedLinear, OutputLinear
from pwm.models.low_rank import FACTORS, scale_of
from pwm.models.stacked_deltas import StackedDeltas, each_with_its_own
from pwm.models.world_model import WorldModel, model_of
from pwm.runtime.checkpoint import Checkpoint


class StackedWorldModel:
    """The weights that all tasks share, once, and the changes of each group of tasks.

    Args:
        checkpoint: of a world model whose weights differ by low-rank changes.
        device: where it runs.

    Attributes:
        shared: the world model without changes.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device) -> None:
        self._checkpoint, self._device = checkpoint, device
        state = checkpoint.tensors["model"]
        self._factors = {name: state[name] for name in state if name.endswith(FACTORS)}
        plain = {name: tensor for name, tensor in state.items() if name not in self._factors}
        meta = {name: value for name, value in checkpoint.meta.items() if name != TASK_GROUPS}
        self.shared = model_of(replace(checkpoint, tensors={"model": plain}, meta=meta), device)

    def together(self, tasks: Sequence[Task]) -> WorldModel:
        """The world models of K tasks as one, which is called with (..., K, n, size).

        The tasks' rows are in this order in the last dimension but two.
        """
        groups = task_groups(self._checkpoint.meta)
        which = [
            next(number for number, names in enumerate(groups) if task.name in names)
            for task in tasks
        ]
        model, scale = copy.deepcopy(self.shared), scale_of(self._checkpoint.meta)
        into, out = (f".weight{factor}" for factor in FACTORS)
        for name in [name.removesuffix(into) for name in self._factors if name.endswith(into)]:
            layer = model.get_submodule(name)
            assert isinstance(layer, NormedLinear | OutputLinear)
            factors = self._factors[name + into][which], self._factors[name + out][which]
            layer.change = StackedDeltas(*factors, scale, each_with_its_own)
        return model.to(self._device).requires_grad_(False)

    def alone(self, task: str) -> WorldModel:
        """The plain world model of a task."""
        return model_of(of_tasks(self._checkpoint, [task]), self._device)
