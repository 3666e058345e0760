"""A suite of three tasks of two sizes, a small world model's size, and batches of windows."""

from __future__ import annotations

import torch

from pwm.core.suites import Suite, Task
from pwm.data.windows.batch import Batch
from pwm.models.world_model import ModelSize
from pwm.multitask.config import Balancing
from pwm.pretraining.learner import LearnerConfig

SUITE = Suite(
    "three",
    (
        Task("narrow", "dmcontrol", 3, 1, 20),
        Task("wide", "metaworld", 5, 2, 20),
        Task("other", "metaworld", 4, 2, 20),
    ),
)
SIZE = ModelSize(
    encoder_dim=16, mlp_dim=16, latent_dim=16, task_dim=4, num_q=3, num_bins=11, dropout=0.0
)
CONFIG = LearnerConfig(
    steps=100, lr=1e-3, warmup=0, balancing=Balancing(lr=0.05, period=2, smoothing=0.5)
)


def make_batch(seed: int = 0, size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    task = torch.randint(3, (size,), generator=generator)
    task[:3] = torch.arange(3)
    obs = torch.randn(4, size, 5, generator=generator)
    action = torch.rand(3, size, 2, generator=generator) * 2 - 1
    reward = torch.randn(3, size, generator=generator) * (1 + task)
    return Batch(obs, action, reward, task)
