"""What a learner holds of a way of balancing tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pwm.multitask.config import Balancing
from pwm.multitask.gradient_norms import LayerGradients
from pwm.multitask.progress import LearningProgress
from pwm.multitask.task_losses import TaskLosses
from pwm.multitask.weights import (
    DynamicWeightAverage,
    GradNormWeights,
    TaskWeights,
    UncertaintyWeights,
)
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors


class TaskBalance:
    """Weights and shares of K tasks, as some settings have them, and what they learn from.

    Args:
        balance: one of :data:`pwm.multitask.config.BALANCES`.
        settings: of the methods.
        tasks: K.
        accelerator: for the device and the optimizer of learned weights.
        last_shared: the last layer that every loss of every task goes through.

    Attributes:
        weights: of tasks in the loss; None if all weigh the same.
        progress: how often tasks are drawn; None if that does not change.
    """

    def __init__(
        self,
        balance: str,
        settings: Balancing,
        tasks: int,
        accelerator: Accelerator,
        last_shared: nn.Module,
    ) -> None:
        self._tasks = tasks
        self.weights = _weights(balance, settings, tasks)
        self.progress = None
        if balance == "progress":
            self.progress = LearningProgress(
                tasks, settings.period, settings.smoothing, settings.floor
            ).to(accelerator.device)
        self._gradients: LayerGradients | None = None
        if self.weights is not None:
            self.weights.to(accelerator.device)
            if learned := list(self.weights.parameters()):
                self.weights.optimizer = accelerator.adam(learned, lr=settings.lr)
        if isinstance(self.weights, GradNormWeights):
            assert isinstance(last_shared, nn.Linear)
            self._gradients = LayerGradients(last_shared)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """Of learned weights."""
        return None if self.weights is None else self.weights.optimizer

    def of_each_task(self) -> Tensor | None:
        """Weights of tasks, (K,); None if all are 1."""
        return None if self.weights is None else self.weights.weights()

    def of_windows(self, task: Tensor) -> Tensor | None:
        """Weights of windows in the mean of losses, (B,), by their tasks; None if all are 1."""
        weights = self.of_each_task()
        return None if weights is None else weights[task]

    def shown(self) -> dict[str, Tensor]:
        """What changes of a task in training, (K,) each, by name."""
        shown = {}
        if (weights := self.of_each_task()) is not None:
            shown["weight"] = weights
        if self.progress is not None:
            shown["progress"] = self.progress.change
        return shown

    def gradient_norms(
        self, task: Tensor, gather: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor | None:
        """What the weights learn from beside losses; to be called after every backward pass.

        For the arguments see :meth:`pwm.multitask.gradient_norms.LayerGradients.norms`.
        """
        if self._gradients is None:
            return None
        return self._gradients.norms(task, self._tasks, gather)

    def observe(self, losses: TaskLosses, skip: Tensor, gradient_norms: Tensor | None) -> None:
        """Learn from the losses of an update, of which the first is the whole loss."""
        if self.weights is not None:
            self.weights.observe(losses, skip, gradient_norms)
        if self.progress is not None:
            self.progress.observe(losses, skip)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state, for a checkpoint; nothing if there is none."""
        groups: dict[str, dict[str, Tensor]] = {}
        for module in (self.weights, self.progress):
            if module is not None:
                groups["balance"] = module.state_dict()
        if self.optimizer is not None:
            groups["balance_optimizer"] = optimizer_tensors(self.optimizer)
        return groups

    def load(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what :meth:`tensors` gave."""
        for module in (self.weights, self.progress):
            if module is not None:
                module.load_state_dict(groups["balance"])
        if self.optimizer is not None:
            load_optimizer_tensors(self.optimizer, groups["balance_optimizer"])


def _weights(balance: str, settings: Balancing, tasks: int) -> TaskWeights | None:
    if balance == "uncertainty":
        return UncertaintyWeights(tasks)
    if balance == "gradnorm":
        return GradNormWeights(tasks, settings.alpha)
    if balance == "dwa":
        return DynamicWeightAverage(tasks, settings.temperature, settings.period)
    return None
