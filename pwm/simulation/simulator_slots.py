"""Simulators that wait for each other: a worker holds some slots, of which each plays episodes.

The caller says what each slot does next, for all slots at once, and keeps the episodes. A worker
that is replaced plays the episodes that were under way again, from their seeds and actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pwm.core.suites import Task
from pwm.core.worker_pool import Caller
from pwm.simulation.watched_env import WatchedEnv


class Begin(NamedTuple):
    """An episode from its seed, and its first ``actions``, (n, action_dim), at once."""

    slot: int
    seed: int
    actions: Sequence[np.ndarray]


class Act(NamedTuple):
    """One step of a slot's episode."""

    slot: int
    action: np.ndarray


class Begun(NamedTuple):
    """The observation, (obs_dim,), that a slot's episode has come to."""

    slot: int
    obs: np.ndarray


class Stepped(NamedTuple):
    """What a step led to; ``success`` is None where the environment does not say."""

    slot: int
    obs: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    success: bool | None


Order = Begin | Act
Outcome = Begun | Stepped


def play_slots(caller: Caller, tasks: Mapping[int, Task]) -> None:
    """Does what the caller says until it says None.

    The first question is None: nothing is known of the slots. The others are lists of `Outcome`,
    and every answer is a list of `Order`, which may be empty.

    Args:
        caller: the worker's line to its caller.
        tasks: by slot, in the order of the job's parts.
    """
    envs = {slot: WatchedEnv(task, caller, part) for part, (slot, task) in enumerate(tasks.items())}
    orders: list[Order] | None = caller.ask(None)
    while orders is not None:
        orders = caller.ask([_done(envs[order.slot], order) for order in orders])


def _done(env: WatchedEnv, order: Order) -> Outcome:
    if isinstance(order, Begin):
        obs = env.reset(seed=order.seed)[0]
        for action in order.actions:
            obs = env.step(action)[0]
        return Begun(order.slot, obs)
    obs, reward, terminated, truncated, info = env.step(order.action)
    success = bool(info["success"] > 0) if info.get("success_known", True) else None
    return Stepped(order.slot, obs, float(reward), bool(terminated), bool(truncated), success)
