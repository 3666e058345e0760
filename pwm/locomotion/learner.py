"""What is common to the learners: what a run asks of them, and how they are evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pwm.core.suites import Task
from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.runtime.checkpoint import Checkpoint, Groups

FAIR_EPISODES = 20_000
"""The seed of the episodes that all learners are evaluated on; no training begins with it."""


class Learner(Protocol):
    """A method that learns in a simulation which it steps itself.

    Attributes:
        resumes: whether :meth:`tensors` and :meth:`load` take a run up exactly where it was.
    """

    resumes: bool

    @property
    def steps(self) -> int:
        """Control steps of all environments together so far."""
        ...

    def iteration(self) -> dict[str, float]:
        """Step the simulation and learn from it once; metrics."""
        ...

    def act(self, observation: Tensor) -> Tensor:
        """The most likely actions (n, action_size) at observations (n, observation_size)."""
        ...

    def tensors(self) -> Groups:
        """All that an iteration depends on, the simulation included."""
        ...

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        ...

    def save(self, directory: Path) -> None:
        """Write what was learned for others to open."""
        ...


def task_of(simulation: BatchedSimulation) -> Task:
    """A simulation as a task, which networks are made for and policies are saved with."""
    return Task(
        simulation.name,
        "gymnasium",
        simulation.observation_size,
        simulation.action_size,
        simulation.episode_length,
        action_repeat=1,
        env_id=f"pwm-locomotion/{simulation.name}-v0",
        score_min=0.0,
        score_max=1.0,
        action_low=(-1.0,) * simulation.action_size,
        action_high=(1.0,) * simulation.action_size,
    )


@torch.no_grad()
def episode_returns(learner: Learner, simulation: BatchedSimulation) -> Tensor:
    """(N,) returns of one episode in each environment, the same ones whenever it is called."""
    observation = simulation.reset(FAIR_EPISODES)
    total = torch.zeros(simulation.num_envs, device=observation.device)
    running = torch.ones_like(total, dtype=torch.bool)
    for _ in range(simulation.episode_length):
        step = simulation.step(learner.act(observation))
        observation = step.observation
        total += torch.where(running, step.reward, 0.0)
        running &= ~(step.terminated | step.truncated)
        if not running.any():
            break
    return total
