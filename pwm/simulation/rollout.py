"""One collected episode: a seed, a behaviour drawn from it, and a run through the simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from pwm.core.suites import Task
from pwm.core.worker_pool import Caller
from pwm.data.episode import Episode
from pwm.data.episode_recorder import EpisodeRecorder
from pwm.simulation.behaviors import (
    Behaviour,
    PolicyNoise,
    default_mixture,
    draw_name,
    make_behaviour,
)
from pwm.simulation.simulator_mpc import SimulatorMPCConfig


@dataclass(frozen=True)
class Recipe:
    """What a collected episode follows from, beside its task and index.

    Attributes:
        seed: the collection's seed.
        behaviour: ``"mixed"`` for each task's default mixture, or one behaviour's name.
        policy, policy_noise, planner: as for `pwm.simulation.behaviors.make_behaviour`.
    """

    seed: int
    behaviour: str
    policy: str | None = None
    policy_noise: PolicyNoise | None = None
    planner: SimulatorMPCConfig = field(default_factory=SimulatorMPCConfig, compare=False)

    def mixture(self, task: Task) -> dict[str, float]:
        """The share of a task's episodes that each behaviour gets."""
        return default_mixture(task) if self.behaviour == "mixed" else {self.behaviour: 1.0}

    def make(self, name: str, task: Task, env: Any = None) -> Behaviour:
        """A behaviour of the mixture for an environment; raises PwmError if it cannot be."""
        return make_behaviour(name, task, self.policy, self.policy_noise, env, self.planner)


def episode_seed(seed: int, task: str, index: int) -> int:
    """The seed, in 0..2**32-1, from which all of a collected episode follows."""
    name = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "little")
    return int(np.random.SeedSequence([seed, name, index]).generate_state(1)[0])


def run_episode(
    env: Any,
    task: Task,
    seed: int,
    mixture: Mapping[str, float],
    behaviour_named: Callable[[str], Behaviour],
) -> Episode:
    """Acts through one episode in a task's environment, with ``success`` in its info.

    All randomness follows from the seed: of the environment, and of the generator that draws the
    behaviour from the ``mixture`` of shares, and its noise.
    """
    rng = np.random.default_rng(seed)
    name = draw_name(mixture, rng)
    behaviour = behaviour_named(name)
    behaviour.reset(rng)
    obs = env.reset(seed=seed)[0]
    recorder, over = EpisodeRecorder(obs), False
    while not over and len(recorder) < task.episode_length:
        action = behaviour.act(obs)
        obs, reward, terminated, truncated, info = env.step(action)
        recorder.add(action, obs, reward, terminated, info)
        over = terminated or truncated
    return recorder.episode(seed, name)


def collect_episode(caller: Caller, recipe: Recipe, task: Task, seed: int) -> Episode:
    """An episode of a collection, in a worker that keeps its last environments for the next."""
    return _episode_maker(caller, recipe, task)(seed)


@lru_cache(maxsize=2)  # jobs come task after task; two tasks meet where one ends
def _episode_maker(caller: Caller, recipe: Recipe, task: Task) -> Callable[[int], Episode]:
    from pwm.simulation.watched_env import WatchedEnv

    env, mixture = WatchedEnv(task, caller), recipe.mixture(task)
    behaviour_named = cache(lambda name: recipe.make(name, task, env.unwrapped))
    return lambda seed: run_episode(env, task, seed, mixture, behaviour_named)
