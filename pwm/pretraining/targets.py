"""Windows of the tasks that a world model is fine-tuned for, and of the others in its data."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.data.windows.batch import Batch, joined
from pwm.data.windows.sampler import WindowSampler
from pwm.multitask.finetuning import FADING, OthersShare, first_share, task_shares
from pwm.pretraining.finetune import Windows

if TYPE_CHECKING:
    from pwm.pretraining.config import PretrainConfig

_APART = 2**40  # the first number of batches that no training comes to


class Targets:
    """The tasks that ``target`` names among those that a sampler draws from.

    Args:
        config: of the fine-tuning.
        sampler: of the tasks; it is changed.

    Attributes:
        ids: of the target tasks in the sampler's suite.

    Raises:
        PwmError: if a target has no data, or there are none of others that are to be there.
    """

    def __init__(self, config: PretrainConfig, sampler: WindowSampler) -> None:
        self._sampler = sampler
        known = [task.name for task in sampler.tasks]
        wanted = known if config.target == "all" else config.target
        names = get_suite(wanted, sampler.suite).names
        if missing := [name for name in names if name not in known]:
            raise PwmError(
                f"target={missing[0]} is no task that {config.init} knows and {config.data} has; "
                f"those are {', '.join(known)}."
            )
        self._is_target = np.array([name in names for name in known])
        first = first_share(config.finetune, config.replay)
        if first and self._is_target.all():
            how = f"finetune={config.finetune}" if config.finetune in FADING else "replay="
            raise PwmError(
                f"{how} needs data of other tasks than target=, and {config.data} has none that "
                f"{config.init} knows; give such data, or finetune=full without replay=."
            )
        self.ids = [sampler.suite.id(name) for name in names]
        self._per_task = config.finetuning.per_task
        self._share = OthersShare(config.finetune, first, config.finetuning, config.steps)

    def batches(self, start: int, end: int, horizon: int) -> Iterator[Batch]:
        """The batches of some updates."""
        if self._per_task:
            yield from self._each(start, end, horizon)
            return
        for first, last, others in self._share.spans(start, end):
            self._sampler.task_shares = task_shares(self._is_target, others)
            yield from self._sampler.iterate(first, last, horizon=horizon)

    def _each(self, start: int, end: int, horizon: int) -> Iterator[Batch]:
        """Batches with those side by side that each target would get as the only one."""
        names = [task.name for task in self._sampler.tasks]
        samplers = []
        for task in self.ids:
            alone = copy.copy(self._sampler)
            target = self._sampler.suite.tasks[task].name
            alone.task_shares = np.array([float(name == target) for name in names])
            samplers.append(alone)
        for step in range(start, end):
            yield joined([alone.batch(step, horizon) for alone in samplers])

    def windows(self, count: int) -> Windows:
        """So many windows of the targets, and of the others if they have data."""
        shares = self._is_target.astype(float)
        target = some_windows(self._sampler, count, shares)
        others = None
        if not self._is_target.all():
            others = some_windows(self._sampler, count, 1 - shares)
        return Windows(target, others)


def some_windows(sampler: WindowSampler, count: int, shares: np.ndarray | None = None) -> Batch:
    """So many windows that no training sees at its time, of tasks by their shares."""
    sampler.task_shares = None if shares is None else shares / shares.sum()
    number = -(-count // sampler.batch_size)
    batch = joined([sampler.batch(_APART + i) for i in range(number)])
    every = len(batch.task) / count  # evenly, since batches are in the order of tasks
    chosen = (np.arange(count) * every).astype(int)
    return batch.part(torch.as_tensor(chosen, device=batch.task.device))
