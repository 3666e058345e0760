"""What acts in evaluation: a controller a task, or one for the episodes of many tasks at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from pwm.suites import Task

Controller = Callable[[np.ndarray], np.ndarray]
"""Observations (n, obs_dim) of one task's n running episodes to actions (n, action_dim)."""


class Method(Protocol):
    """What acts in the episodes of many tasks, which advance together."""

    def begin(self, tasks: Sequence[Task], seeds: Sequence[int]) -> None:
        """Start an episode a task and seed."""

    def act(self, obs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Actions from observations, by name of each task whose episodes still run."""


class Separate:
    """A method that acts in each task by a controller of its own."""

    def __init__(self, controllers: Mapping[str, Controller]) -> None:
        self.controllers = controllers

    def begin(self, tasks: Sequence[Task], seeds: Sequence[int]) -> None:
        """See :class:`Method`."""

    def act(self, obs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See :class:`Method`."""
        return {task: self.controllers[task](rows) for task, rows in obs.items()}


class Timed:
    """A method whose time is taken.

    Attributes:
        seconds: spent in acting.
        decisions: made, one an environment and step.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.seconds, self.decisions = 0.0, 0

    def begin(self, tasks: Sequence[Task], seeds: Sequence[int]) -> None:
        """See :class:`Method`."""
        self.method.begin(tasks, seeds)

    def act(self, obs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See :class:`Method`."""
        started = time.perf_counter()
        actions = self.method.act(obs)
        self.seconds += time.perf_counter() - started
        self.decisions += sum(map(len, obs.values()))
        return actions

    @property
    def milliseconds(self) -> float:
        """Of a decision, mean; environments that act together share the time."""
        return 1000 * self.seconds / max(self.decisions, 1)


def random_controller(task: Task, seeds: Sequence[int]) -> Controller:
    """Uniform actions, each episode from its own stream."""
    streams = itertools.cycle([np.random.default_rng([seed, 1]) for seed in seeds])

    def act(obs: np.ndarray) -> np.ndarray:
        draws = [next(streams).uniform(-1, 1, task.action_dim) for _ in obs]
        return np.asarray(draws, np.float32)

    return act
