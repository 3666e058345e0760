"""The same windows of every task, held out and of training, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch
from pwm.models.world_model import WorldModel
from pwm.pretraining.diagnostics import held_out_windows
from pwm.pretraining.learner import LearnerConfig
from pwm.pretraining.losses import Term, roll_out, termination_loss, total_loss, world_model_loss


class TaskWindows(NamedTuple):
    """Windows by task, in the order of the tasks, each as long as its held-out episodes allow.

    Attributes:
        names: of the K tasks.
        held_out: K batches.
        train: K batches of windows of training.
    """

    names: tuple[str, ...]
    held_out: list[Batch]
    train: list[Batch]

    @classmethod
    def drawn(
        cls,
        store: EpisodeStore,
        model: WorldModel,
        names: Sequence[str],
        windows: int,
        seed: int,
        bad: BadData,
    ) -> TaskWindows:
        """As many windows of each task from either split, on the model's device."""
        both = [
            held_out_windows(
                store, model.suite, seed, model.bins.device, names, bad, model.episodic,
                per_task=windows, split=split,
            )
            for split in ("held_out", "train")
        ]  # fmt: skip
        held_out, train = (
            [_of(batches, model.suite.id(name), name, windows) for name in names]
            for batches in both
        )
        return cls(tuple(names), held_out, train)


def _of(batches: Sequence[Batch], task: int, name: str, windows: int) -> Batch:
    found = [batch.part((batch.task == task).nonzero().squeeze(1)[:windows]) for batch in batches]
    most = max(found, key=lambda batch: len(batch.task))
    if len(most.task) < windows:  # where bad data are left out
        raise PwmError(
            f"task {name} has too few good windows for windows={windows}; leave it out with tasks=."
        )
    return most


def loss_terms(model: WorldModel, batch: Batch, config: LearnerConfig) -> dict[str, Term]:
    """The terms of the world model's loss; without that of a Q ensemble, which is no prediction."""
    rollout = roll_out(model, batch)
    terms = world_model_loss(model, batch, rollout, config.rho)
    if model.episodic:
        terms["termination"] = termination_loss(model, batch, rollout)
    return terms


def mean_loss(model: WorldModel, batch: Batch, config: LearnerConfig) -> Tensor:
    """The loss of a batch, a scalar with gradients."""
    return total_loss(loss_terms(model, batch, config), config.loss)[0]


@torch.no_grad()
def window_losses(model: WorldModel, batches: Sequence[Batch], config: LearnerConfig) -> Tensor:
    """The losses of the windows of K tasks, (K, windows) float64 on the CPU."""
    found = [total_loss(loss_terms(model, batch, config), config.loss)[1] for batch in batches]
    return torch.stack(found).double().cpu()
