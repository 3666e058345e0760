"""Settings of going from many tasks to some of them, and how the others fade from batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_positive,
    require_share,
    require_valid,
)
from pwm.multitask.config import DRAWING

FINETUNES = ("none", "full", "diminish", "switch", "adaptive", "lora")
FADING = ("diminish", "switch")
"""Those that begin with batches of all tasks."""

PARTS = ("layer", "unit")

_FADING_SHARE = 0.5
_SPAN = 50  # updates with batches of one composition


@dataclass
class Finetuning:
    """What the ways of fine-tuning depend on, each on some of it.

    Attributes:
        rate, power: of ``diminish``: after a fraction t of all updates the other tasks' share of a
            batch is its first times exp(-rate * t^power).
        switch: of ``switch``: the fraction of all updates after which the other tasks are left out.
        part: of ``adaptive``: the share of the weights that is trained.
        by: of ``adaptive``: whether whole layers are chosen, or each ``unit`` of a layer by itself.
        windows: of ``adaptive``: of the target tasks, and as many of the others, from which the
            importance of weights is measured.
        rank: of ``lora``: of the changes of each layer's weights.
        scale: of ``lora``: a factor on the changes.
        per_task: of ``lora`` when pretraining: changes for each target by itself, trained side by
            side, each as if it were the only target; a batch is then of each of them.
    """

    rate: float = 5.0
    power: float = 1.0
    switch: float = 0.5
    part: float = 0.3
    by: str = "unit"
    windows: int = 64
    rank: int = 8
    scale: float = 1.0
    per_task: bool = False

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "rate")
        require_positive(self, "power", "part", "scale")
        require_share(self, "switch", "part")
        require_choice(self, "by", PARTS)
        require_at_least(self, 1, "windows", "rank")


def require_finetuning(config: Any) -> None:
    """Raise PwmError unless a config's settings of fine-tuning and its balance go together."""
    require_choice(config, "finetune", FINETUNES)
    require_valid("finetuning", config.finetuning)
    _require_replay(config.finetune, config.replay)
    if config.finetuning.per_task and (config.finetune != "lora" or config.replay):
        raise PwmError(
            "finetuning.per_task=true is of finetune=lora without replay=, where each target has "
            f"changes of its own; finetune={config.finetune} and replay={config.replay} were given."
        )
    if config.finetune != "none" and config.balance in DRAWING:
        raise PwmError(
            f"finetune={config.finetune} does not go with balance={config.balance}: both say how "
            "often tasks are drawn; leave one of them out."
        )


def first_share(finetune: str, replay: float | None) -> float:
    """The other tasks' share of the first batches: ``replay``, by default half where it fades."""
    if replay is not None:
        return replay
    return _FADING_SHARE if finetune in FADING else 0.0


def _require_replay(finetune: str, replay: float | None) -> None:
    if replay is not None and not 0 <= replay < 1:
        raise PwmError(f"replay={replay:g} must be at least 0 and below 1: a share of each batch.")
    if finetune in FADING and replay == 0:
        raise PwmError(
            f"finetune={finetune} begins with batches of all tasks, and replay=0 leaves the others "
            "out; give finetune=full, or another replay."
        )


@dataclass(frozen=True)
class OthersShare:
    """The share that tasks other than the targets have of a batch, as training goes on.

    Attributes:
        finetune: one of `FINETUNES`.
        first: the share at the beginning.
        settings: of the schedule.
        steps: updates in all.
    """

    finetune: str
    first: float
    settings: Finetuning
    steps: int

    def at(self, step: int) -> float:
        """The share in the batch of an update."""
        done = step / self.steps
        if self.finetune == "diminish":
            return self.first * math.exp(-self.settings.rate * done**self.settings.power)
        if self.finetune == "switch":
            return self.first if step < self._switch else 0.0
        return self.first

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, float]]:
        """(first, end, share) of successive updates from ``start`` on with one share each.

        Where a span begins does not depend on ``start``, so a run that goes on has the same.
        """
        while start < end:
            following = min(self._next_change(start), end)
            yield start, following, self.at(start - start % _SPAN if self._fades else start)
            start = following

    @property
    def _switch(self) -> int:
        return round(self.settings.switch * self.steps)

    @property
    def _fades(self) -> bool:
        return self.finetune == "diminish"

    def _next_change(self, step: int) -> int:
        if self._fades:
            return (step // _SPAN + 1) * _SPAN
        if self.finetune == "switch" and step < self._switch:
            return self._switch
        return self.steps


def task_shares(is_target: np.ndarray, others: float) -> np.ndarray:
    """Shares of tasks in a batch, (tasks,), that sum to 1.

    Args:
        is_target: (tasks,) bool; the targets have equal shares, and so have the others.
        others: the share of all others together, if there are any.
    """
    rest = int((~is_target).sum())
    share = others if rest else 0.0
    return np.where(is_target, (1 - share) / is_target.sum(), share / max(rest, 1))
