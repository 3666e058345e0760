"""Updates of a world model that has changes for each of several tasks by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pwm.data.windows.sampler import Batch
from pwm.models.world_model import WorldModel
from pwm.multitask.stacked_low_rank import StackedLowRankDeltas
from pwm.multitask.task_losses import TaskLosses
from pwm.pretraining.learner import LearnerConfig, WorldModelLearner
from pwm.pretraining.losses import LatentRollout, PriorNoise
from pwm.pretraining.task_gradients import Gradients
from pwm.runtime.acceleration import Accelerator, Metrics
from pwm.runtime.checkpoint import Checkpoint


class PerTaskLearner(WorldModelLearner):
    """A learner that does for each of K tasks what the plain one does for that task alone.

    Each task has its own mean loss and its own gradient norm. Where a task's are not finite its
    gradient counts as zero, and the update is skipped if all are.

    Args:
        model: as for the plain learner.
        config: as for it.
        discount: as for it.
        accelerator: as for it.
        deltas: what trains; batches are as it says.
    """

    def __init__(
        self,
        model: WorldModel,
        config: LearnerConfig,
        discount: Tensor,
        accelerator: Accelerator,
        deltas: StackedLowRankDeltas,
    ) -> None:
        super().__init__(model, config, discount, accelerator, deltas)
        self._deltas = deltas
        self._spoilt = torch.zeros(len(deltas.tasks), dtype=torch.int64, device=discount.device)

    def _loss(
        self, batch: Batch, noise: PriorNoise | None, weights: Tensor | None = None
    ) -> tuple[Tensor, Metrics, LatentRollout, TaskLosses]:
        """As the plain learner's; the sum over tasks of each one's mean, whatever balances them."""
        tasks = torch.full_like(batch.reward[0], len(self._deltas.tasks))
        return super()._loss(batch, noise, tasks if weights is None else tasks * weights)

    def _gradients(self, batch: Batch, noise: PriorNoise | None) -> Gradients:
        found = super()._gradients(batch, noise)
        losses = found.losses.means()[0, self._deltas.tasks]
        return found._replace(loss=_mean_of_finite(losses))

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        norms = self._deltas.clip(parameters, self.config.grad_clip)
        self._spoilt.add_(1).mul_(~norms.isfinite())
        return _mean_of_finite(norms)

    def _update(self, batch: Batch, noise: PriorNoise | None) -> tuple[Metrics, TaskLosses]:
        found = super()._update(batch, noise)
        self.skipped_in_a_row.copy_(self._spoilt.max())
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """As the plain learner's."""
        groups = super().tensors()
        groups["skipped"]["by_task"] = self._spoilt
        return groups

    def load(self, checkpoint: Checkpoint) -> None:
        """As the plain learner's."""
        super().load(checkpoint)
        self._spoilt.copy_(checkpoint.tensors["skipped"]["by_task"])


def _mean_of_finite(values: Tensor) -> Tensor:
    """Not a number if none is finite."""
    return values.where(values.isfinite(), torch.nan).nanmean()
