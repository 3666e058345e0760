"""Agents: what acts in evaluation.

This module imports no torch: workers that play without a policy do not load it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pwm.core.files import directory_sha256
from pwm.core.suites import Task

ActFunction = Callable[[np.ndarray], np.ndarray]
"""Observations (n, obs_dim) of one task's n episodes to actions (n, action_dim)."""


class Agent(Protocol):
    """An agent that acts in the workers, each of which gets a pickled copy."""

    def identity(self, task: Task) -> dict[str, Any]:
        """Names what its actions in a task depend on, beside observations and seeds, as JSON."""

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        """The function that acts in episodes of these seeds, from their first step on."""


class BatchedAgent(ABC):
    """An agent that is too large for every worker, or needs the GPU: it acts in this process."""

    @abstractmethod
    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`Agent`."""

    @abstractmethod
    def begin(self, task: Task, seeds: Sequence[int]) -> Any:
        """The state of episodes of these seeds before their first step."""

    @abstractmethod
    def act(self, waiting: Sequence[tuple[Any, np.ndarray]]) -> list[np.ndarray]:
        """Actions for all episodes that wait for one.

        Args:
            waiting: pairs of a state, which this updates, and observations (n, obs_dim) of its
                task.

        Returns:
            The actions (n, action_dim) of each pair.
        """


AnyAgent = Agent | BatchedAgent


def act_function(agent: AnyAgent, task: Task, seeds: Sequence[int]) -> ActFunction:
    """The function by which an agent of either kind acts in episodes of one task, in this process.

    Args:
        agent: acts.
        task: the episodes' task.
        seeds: one per episode.
    """
    if not isinstance(agent, BatchedAgent):
        return agent.begin(task, seeds)
    state = agent.begin(task, seeds)
    return lambda obs: agent.act([(state, obs)])[0]


@dataclass(frozen=True)
class SavedPolicies:
    """One policy per task, which workers read from where it is saved."""

    paths: Mapping[str, str]  # by task name, what :func:`pwm.load_policy` opens
    digests: Mapping[str, str]  # by task name, SHA-256 of the content

    @classmethod
    def at(cls, paths: Mapping[str, Path]) -> SavedPolicies:
        """The policies at these places, by task name."""
        digests = {task: directory_sha256(path) for task, path in paths.items()}
        return cls({task: str(path) for task, path in paths.items()}, digests)

    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`Agent`."""
        return {"policy": self.digests[task.name]}

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        """See :class:`Agent`."""
        return _loaded_policy(self.paths[task.name])


@lru_cache(maxsize=2)
def _loaded_policy(path: str) -> ActFunction:
    from pwm.models.flat_policy import FlatPolicy
    from pwm.models.policy import load_policy

    return FlatPolicy(load_policy(path))


@dataclass(frozen=True)
class UniformActions:
    """Uniform actions, each episode from its own random stream."""

    def identity(self, task: Task) -> dict[str, Any]:
        """See :class:`Agent`."""
        return {"actions": "uniform"}

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        """See :class:`Agent`."""
        streams = [np.random.default_rng([seed, 1]) for seed in seeds]

        def act(obs: np.ndarray) -> np.ndarray:
            draws = [stream.uniform(-1, 1, task.action_dim) for stream in streams]
            return np.asarray(draws, np.float32)

        return act
