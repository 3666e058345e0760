"""A pendulum in MuJoCo whose simulation becomes unstable on request, importable in workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from pwm.core.suites import Task, get_task
from pwm.envs import make_env

_STOCK = get_task("pendulum-swingup")


class Unstable(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """The stock task; where there is a file ``token``, one step takes it and turns too fast.

    MuJoCo then warns of a bad velocity, and dm_control raises its PhysicsError.
    """

    def __init__(self, token: str, render_mode: str | None = None) -> None:
        super().__init__(make_env(_STOCK, render_mode=render_mode))
        self._token = token

    def step(self, action: np.ndarray) -> Any:
        """See ``gymnasium.Env.step``."""
        try:
            os.unlink(self._token)
        except FileNotFoundError:
            return self.env.step(action)
        self.env.unwrapped._physics.data.qvel[:] = 1e300  # type: ignore[attr-defined]
        return self.env.step(action)


gymnasium.register("Unstable-v0", "unstable_env:Unstable")


def unstable_task(token: Path) -> Task:
    """The task, scored as the stock one."""
    return Task(
        name="unstable-swingup",
        domain="gymnasium",
        obs_dim=_STOCK.obs_dim,
        action_dim=_STOCK.action_dim,
        episode_length=_STOCK.episode_length,
        action_repeat=1,
        env_id="unstable_env:Unstable-v0",
        env_kwargs=json.dumps({"token": str(token)}),
        score_min=0.0,
        score_max=1000.0,
    )
