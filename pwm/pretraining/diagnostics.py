"""How far a world model can be trusted: open-loop errors on held-out episodes, per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from pwm.core.suites import Suite
from pwm.data.problems import BadData
from pwm.data.shared_tasks import shared_tasks
from pwm.data.splits import Split, episodes_in_split
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import Batch, WindowSampler
from pwm.models.math import symexp
from pwm.models.world_model import WorldModel
from pwm.pretraining.losses import roll_out

STEPS = (1, 4, 16)
_WINDOWS_PER_TASK = 256


def held_out_windows(
    store: EpisodeStore,
    suite: Suite,
    seed: int,
    device: torch.device | str,
    tasks: Sequence[str] | None = None,
    bad: BadData | None = None,
    terminations: bool = False,
    *,
    per_task: int = _WINDOWS_PER_TASK,
    split: Split = "held_out",
) -> list[Batch]:
    """The windows of held-out episodes that :func:`diagnose` judges a model by.

    They are of the named tasks of the suite, by default of all that the store has, and as long as
    the longest of `STEPS` that fits into a held-out episode of their task; those of equal length
    are one batch. Windows of the same lengths come from another ``split`` if that is asked for.

    Raises:
        PwmError: if a task has no held-out episode, unless ``bad`` leaves that out.
    """
    bad = bad or BadData()
    by_steps: dict[int, list[str]] = {}
    without: list[str] = []
    for task in shared_tasks(store, suite, tasks):
        fitting = [steps for steps in STEPS if steps <= _longest(store, task.name, bad)]
        (by_steps.setdefault(max(fitting), []) if fitting else without).append(task.name)
    by_steps.setdefault(max(by_steps, default=max(STEPS)), []).extend(without)
    return [
        WindowSampler(
            store, steps, per_task * len(names), seed, split=split, suite=suite, tasks=names,
            device=device, data_device="cpu", memory=0, bad=bad,
            terminations=terminations,
        ).batch(0)
        for steps, names in sorted(by_steps.items())
    ]  # fmt: skip


def _longest(store: EpisodeStore, task: str, bad: BadData) -> int:
    """Steps of the longest held-out episode of a task; 0 if it has none."""
    lengths = store.episodes(task)["length"].astype(int)
    held_out = episodes_in_split(len(lengths), "held_out")
    held_out[bad.episodes(task)] = False
    return int(lengths[held_out].max(initial=1)) - 1


@torch.no_grad()
def diagnose(
    model: WorldModel,
    batches: Iterable[Batch],
    of_tasks: Callable[[Tensor], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Any]:
    """Open-loop prediction quality at 1, 4 and 16 steps, as far as the windows go.

    Args:
        model: the world model.
        batches: windows, of one length in each batch, of some or all of the model's tasks.
        of_tasks: where the model is called with windows (B,) of these tasks.

    Returns:
        ``{"steps": [...], "tasks": {name: {"latent_error": {k: x}, "reward_r2": {k: x}}}}`` where
        the latent error at k is the mean squared distance between the k-step prediction and the
        encoded observation over the variance of the encoded observations, and the reward R2 is that
        of the reward predicted for the k-th step (None where rewards do not vary). A k beyond a
        task's windows is left out. A model with a termination head also gives ``"termination":
        {"at_ends": p, "elsewhere": p}``, the mean probability of an end that it predicts where one
        was recorded (None for none) and elsewhere.
    """
    tasks = {}
    for batch in batches:
        with of_tasks(batch.task):
            latents, targets, _ = roll_out(model, batch)
            rewards = symexp(model.symlog_reward(latents[:-1], batch.action, batch.task))
        for index in batch.task.unique().tolist():
            rows = (batch.task == index).nonzero().squeeze(1)
            quality: dict[str, Any] = {
                "latent_error": _latent_errors(latents[1:, rows], targets[:, rows]),
                "reward_r2": _reward_r2(rewards[:, rows], batch.reward[:, rows]),
            }
            if model.episodic:
                ends = 1 - model.continuation(latents[1:, rows], batch.task[rows])
                quality["termination"] = _by_end(ends, batch, rows)
            tasks[model.suite.tasks[index].name] = quality
    return {"steps": list(STEPS), "tasks": tasks}


def _by_end(predicted: Tensor, batch: Batch, rows: Tensor) -> dict[str, float | None]:
    assert batch.terminated is not None
    terminated = batch.terminated[:, rows]
    parts = {"at_ends": predicted[terminated], "elsewhere": predicted[~terminated]}
    return {name: float(part.mean()) if len(part) else None for name, part in parts.items()}


def _latent_errors(predicted: Tensor, target: Tensor) -> dict[str, float]:
    variance = target.flatten(0, 1).var(0, correction=0).sum().clamp(min=1e-8)
    errors = (predicted - target).square().sum(-1).mean(1) / variance
    return {str(k): float(errors[k - 1]) for k in STEPS if k <= len(target)}


def _reward_r2(predicted: Tensor, target: Tensor) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for k in STEPS:
        if k <= len(target):
            residual = (predicted[k - 1] - target[k - 1]).square().mean()
            variance = target[k - 1].var(correction=0)
            result[str(k)] = float(1 - residual / variance) if variance > 1e-8 else None
    return result
