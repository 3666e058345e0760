"""How far a world model can be trusted: open-loop errors on held-out episodes, per task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pwm.dataset import EpisodeStore
from pwm.math import symexp
from pwm.sampler import WindowSampler
from pwm.world_model import WorldModel, roll_out

STEPS = (1, 4, 16)
_WINDOWS_PER_TASK = 256


@torch.no_grad()
def diagnose(model: WorldModel, store: EpisodeStore, seed: int) -> dict[str, Any]:
    """Open-loop prediction quality at 1, 4 and 16 steps on held-out windows.

    Returns:
        ``{"steps": [...], "tasks": {name: {"latent_error": {k: x}, "reward_r2": {k: x}}}}`` where
        the latent error at k is the mean squared distance between the k-step prediction and the
        encoded observation over the variance of the encoded observations, and the reward R2 is that
        of the reward predicted for the k-th step (None where rewards do not vary).
    """
    suite, device = model.suite, model.bins.device
    sampler = WindowSampler(
        store, max(STEPS), _WINDOWS_PER_TASK * len(suite), seed, split="held_out", suite=suite,
        device=device,
    )
    batch = sampler.batch(0)
    latents, targets = roll_out(model, batch)
    rewards = symexp(model.symlog_reward(latents[:-1], batch.action, batch.task))
    tasks = {}
    for index, task in enumerate(suite):
        rows = (batch.task == index).nonzero().squeeze(1)
        tasks[task.name] = {
            "latent_error": _latent_errors(latents[1:, rows], targets[:, rows]),
            "reward_r2": _reward_r2(rewards[:, rows], batch.reward[:, rows]),
        }
    return {"steps": list(STEPS), "tasks": tasks}


def _latent_errors(predicted: Tensor, target: Tensor) -> dict[str, float]:
    variance = target.flatten(0, 1).var(0, correction=0).sum()
    errors = (predicted - target).square().sum(-1).mean(1) / variance
    return {str(k): float(errors[k - 1]) for k in STEPS}


def _reward_r2(predicted: Tensor, target: Tensor) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for k in STEPS:
        residual = (predicted[k - 1] - target[k - 1]).square().mean()
        variance = target[k - 1].var(correction=0)
        result[str(k)] = float(1 - residual / variance) if variance > 1e-8 else None
    return result
