"""How wrong a world model is about each episode of its data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pwm.data.windows.sampler import Batch, WindowSampler
from pwm.models.math import symlog
from pwm.models.world_model import WorldModel
from pwm.pretraining.losses import roll_out
from pwm.runtime.seeding import stream_seed

_WINDOWS = 4  # of an episode
_EPISODES = 512  # of a task
_BATCH = 512
_SMALLEST = 0.01  # of a task's mean


@torch.no_grad()
def prediction_errors(model: WorldModel, sampler: WindowSampler, seed: int) -> np.ndarray:
    """The error of open-loop predictions of each episode, relative to its task's mean.

    It is the mean of the relative errors of latents and of rewards over windows of the sampler's
    horizon, and 1 for an episode that is not measured: of a task with very many only some are.

    Args:
        model: on the sampler's device.
        sampler: of the data.
        seed: of the choice of episodes and windows.

    Returns:
        (all episodes of the sampler's tasks,) positive.
    """
    rng = np.random.default_rng(stream_seed(seed, "prediction errors"))
    errors = np.ones(sum(sampler.store.count(task.name) for task in sampler.tasks))
    for episodes in sampler.episodes_with_windows():
        if len(episodes) > _EPISODES:
            episodes = np.sort(rng.choice(episodes, _EPISODES, replace=False))
        if len(episodes):
            found = _measured(model, sampler, episodes, rng)
            errors[episodes] = np.nan_to_num(found, nan=1.0, posinf=1.0).clip(_SMALLEST)
    return errors


def _measured(
    model: WorldModel, sampler: WindowSampler, episodes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(n,) of one task's episodes; NaN where no window is good."""
    parts, good = [], []
    repeated = np.repeat(episodes, _WINDOWS)
    for begin in range(0, len(repeated), _BATCH):
        batch, bad = sampler.of_episodes(repeated[begin : begin + _BATCH], rng)
        parts.append(_errors(model, batch).cpu().numpy().astype(np.float64))
        good.append(~bad)
    usable = np.concatenate(good).reshape(-1, _WINDOWS)
    both = np.concatenate(parts, 1).reshape(2, -1, _WINDOWS)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(usable, both, 0).sum(-1) / usable.sum(-1)  # (2, n)
        means = each[:, usable.any(-1)].mean(1, keepdims=True)
        relative: np.ndarray = (each / means).mean(0)
    return relative


def _errors(model: WorldModel, batch: Batch) -> Tensor:
    """Squared errors of latents and absolute ones of symlog rewards, (2, B)."""
    latents, targets, _ = roll_out(model, batch)
    rewards = model.symlog_reward(latents[:-1], batch.action, batch.task)
    of_latents = (latents[1:] - targets).square().sum(-1).mean(0)
    return torch.stack([of_latents, (rewards - symlog(batch.reward)).abs().mean(0)])
