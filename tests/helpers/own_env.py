"""An environment of a user's own, in two modules that a test edits."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from pwm.core.suites import get_task
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.policy import Policy

_ENVIRONMENT = """\
import gymnasium
import numpy as np
from gymnasium.spaces import Box

from own_reward import REWARD


class Own(gymnasium.Env):
    observation_space = Box(-9.0, 9.0, (3,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, scale=1.0, model=None, render_mode=None):
        self.scale = scale

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action):
        return np.ones(3, np.float32), REWARD * self.scale, False, False, {}


gymnasium.register("Own-v0", "own_env_source:Own")
"""


class OwnEnv:
    """Each step is rewarded with a number that stands in a module beside the environment's."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory, self._patch = directory, patch
        patch.syspath_prepend(str(directory))
        patch.setattr(sys, "dont_write_bytecode", True)  # two edits in one second look alike
        self.write("own_env_source.py", _ENVIRONMENT)
        self.set_reward("1.0")

    def set_reward(self, reward: str) -> None:
        """Edit the reward, as between two commands."""
        self.write("own_reward.py", f"REWARD = {reward}\n")

    def write(self, name: str, text: str) -> None:
        """Write a file; modules are imported anew, as by a new process."""
        (self.directory / name).write_text(text)
        importlib.invalidate_caches()
        for module in ("own_env_source", "own_reward"):
            self._patch.delitem(sys.modules, module, raising=False)

    def task_file(self, name: str = "own.yaml", scale: float = 1.0, more: str = "") -> str:
        """A file that describes the task ``own``."""
        path = self.directory / name
        path.write_text(
            "name: own\nenv_id: own_env_source:Own-v0\nobs_dim: 3\naction_dim: 1\n"
            f"env_kwargs: {{scale: {scale}}}\n{more or 'episode_length: 5'}\n"
            "score: {min: 0, max: 10}\n"
        )
        return str(path)


def save_policy(file: str, path: Path, seed: int = 0) -> None:
    """Save an untrained policy of the task that a file describes."""
    torch.manual_seed(seed)
    size = ActorCriticSize([8], [])
    actors = Actors(3, torch.ones(1, 1), size)
    mean, scale = torch.zeros(3), torch.ones(3)
    Policy.from_observation_actor(get_task(file), mean, scale, actors, 0, size).save(path)
