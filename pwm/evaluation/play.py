"""Episodes of one task played side by side in a worker process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.core.worker_pool import Caller
from pwm.evaluation.agents import ActFunction, Agent
from pwm.evaluation.episode_log import Outcomes

if TYPE_CHECKING:
    from gymnasium.vector import SyncVectorEnv

    from pwm.simulation.watched_env import WatchedEnv


def play(caller: Caller, agent: Agent | None, task: Task, seeds: Sequence[int]) -> Outcomes:
    """Play one episode per seed, all in lockstep, with one batch of observations per step.

    The episodes in the batch follow from the arguments alone, and so does the result, bit for bit.

    Args:
        caller: asked for the actions if there is no agent.
        agent: acts.
        task: the episodes' task.
        seeds: of the environments.

    Raises:
        PwmError: if the score is success and the environment does not report it.
    """
    env = _vector_env(caller, task, len(seeds))
    act = _asked_for(caller) if agent is None else agent.begin(task, seeds)
    obs, _ = env.reset(seed=list(seeds))
    returns = np.zeros(len(seeds))
    success_last, success_any = np.zeros(len(seeds), bool), np.zeros(len(seeds), bool)
    steps_to_success = np.zeros(len(seeds))
    steps, acting, simulating = 0, 0.0, 0.0
    running, made = np.ones(len(seeds), bool), 0
    success_known = np.ones(len(seeds), bool)
    while running.any():
        begun = time.perf_counter()
        action = act(obs)
        acted = time.perf_counter()
        obs, reward, terminated, truncated, info = env.step(action)
        acting += acted - begun
        simulating += time.perf_counter() - acted
        returns[running] += reward[running]
        success_last[running] = info["success"][running] > 0
        success_any |= success_last
        made += 1
        steps_to_success[success_any & (steps_to_success == 0)] = made
        success_known[running] = np.broadcast_to(info.get("success_known", True), len(seeds))[
            running
        ]
        steps += int(running.sum())
        running &= ~(terminated | truncated)
    if task.scored_by_success and not success_known.all():
        raise PwmError(
            f"'{task.name}' is scored by success, and its environment {task.env_id} reported none "
            "at the end of an episode; let its step's info have success (or is_success), also "
            "where it is False, or score the task by its return: score: {min: ..., max: ...}."
        )
    success = success_last.astype(float), success_any.astype(float)
    return Outcomes(returns, *success, steps, acting, simulating, steps_to_success)


def _asked_for(caller: Caller) -> ActFunction:
    first = True

    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal first
        question, first = (first, obs), False
        return caller.ask(question)

    return act


def _vector_env(caller: Caller, task: Task, n: int) -> SyncVectorEnv:
    """N environments as one; where an episode is over another begins, which is not counted."""
    from gymnasium.vector import SyncVectorEnv

    from pwm.simulation.watched_env import WatchedEnv

    envs = _made_before(caller, task)
    while len(envs) < n:
        envs.append(WatchedEnv(task, caller, part=len(envs)))
    ready = iter(envs)
    return SyncVectorEnv([lambda: next(ready)] * n)


@lru_cache(maxsize=1)  # a worker stays with a task while there are jobs of it
def _made_before(caller: Caller, task: Task) -> list[WatchedEnv]:
    """A task's environments, which the next episodes use again."""
    return []
