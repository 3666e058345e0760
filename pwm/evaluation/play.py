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
from pwm.data.episode import Episode
from pwm.data.episode_recorder import EpisodeRecorder
from pwm.evaluation.agents import ActFunction, Agent
from pwm.evaluation.episode_log import Outcomes

if TYPE_CHECKING:
    from pwm.simulation.watched_env import WatchedEnv


def play(
    caller: Caller,
    agent: Agent | None,
    task: Task,
    seeds: Sequence[int],
    episodes: list[Episode] | None = None,
) -> Outcomes:
    """Play one episode per seed, all in lockstep, with one batch of observations per step.

    The episodes in the batch follow from the arguments alone, and so does the result, bit for bit.

    Args:
        caller: asked for the actions if there is no agent.
        agent: acts.
        task: the episodes' task.
        seeds: of the environments.
        episodes: gets the episodes themselves, in the order of the seeds, if it is given.

    Raises:
        PwmError: if the score is success and the environment does not report it.
    """
    n = len(seeds)
    envs = _environments(caller, task, n)
    act = _asked_for(caller) if agent is None else agent.begin(task, seeds)
    obs = np.array([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    returns, success_last, success_any, steps_to_success = np.zeros((4, n))
    success_known = np.ones(n, bool)
    recorders = [EpisodeRecorder(first) for first in obs] if episodes is not None else []
    steps, acting, simulating = 0, 0.0, 0.0
    running, made = list(range(n)), 0
    while running:
        begun = time.perf_counter()
        action = act(obs)
        acted = time.perf_counter()
        obs, made, over = obs.copy(), made + 1, []
        for i in running:
            obs[i], reward, terminated, truncated, info = envs[i].step(action[i])
            returns[i] += reward
            success_last[i] = info["success"] > 0
            if recorders:
                recorders[i].add(action[i], obs[i], reward, terminated, info)
            if success_last[i] and not success_any[i]:
                success_any[i], steps_to_success[i] = 1, made
            if terminated or truncated:
                success_known[i] = info.get("success_known", True)
                over.append(i)
        acting += acted - begun
        simulating += time.perf_counter() - acted
        steps += len(running)
        running = [i for i in running if i not in over]
    if task.scored_by_success and not success_known.all():
        raise PwmError(
            f"'{task.name}' is scored by success, and its environment {task.env_id} reported none "
            "at the end of an episode; let its step's info have success (or is_success), also "
            "where it is False, or score the task by its return: score: {min: ..., max: ...}."
        )
    if episodes is not None:
        episodes += [
            recorder.episode(seed) for recorder, seed in zip(recorders, seeds, strict=True)
        ]
    successes = success_last, success_any
    return Outcomes(returns, *successes, steps, acting, simulating, steps_to_success)


def play_and_record(
    caller: Caller, agent: Agent | None, task: Task, seeds: Sequence[int]
) -> tuple[Outcomes, list[Episode]]:
    """What :func:`play` gives, and the episodes themselves."""
    episodes: list[Episode] = []
    outcomes = play(caller, agent, task, seeds, episodes)
    return outcomes, episodes


def _asked_for(caller: Caller) -> ActFunction:
    first = True

    def act(obs: np.ndarray) -> np.ndarray:
        nonlocal first
        question, first = (first, obs), False
        return caller.ask(question)

    return act


def _environments(caller: Caller, task: Task, n: int) -> list[WatchedEnv]:
    from pwm.simulation.watched_env import WatchedEnv

    envs = _made_before(caller, task)
    while len(envs) < n:
        envs.append(WatchedEnv(task, caller, part=len(envs)))
    return envs[:n]


@lru_cache(maxsize=1)  # a worker stays with a task while there are jobs of it
def _made_before(caller: Caller, task: Task) -> list[WatchedEnv]:
    """A task's environments, which the next episodes use again."""
    return []
