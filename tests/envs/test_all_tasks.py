"""All 80 tasks: sizes, a full episode, Gymnasium's checker, seeds; fast, one of each robot."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from pwm.core.suites import SUITES, Task

TASKS = SUITES["mt80"].tasks
FAST = (
    "acrobot-swingup", "cartpole-balance-sparse", "cheetah-jump", "cup-spin", "finger-spin",
    "fish-swim", "hopper-stand", "pendulum-spin", "reacher-three-hard", "walker-run",
    "mw-push",
)  # fmt: skip
ALL = [
    pytest.param(task, id=task.name, marks=() if task.name in FAST else pytest.mark.slow)
    for task in TASKS
]


def actions_for(task: Task, steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, task.action_dim)).astype(np.float32)


def test_there_are_eighty() -> None:
    assert len(TASKS) == 80
    assert set(FAST) <= {task.name for task in TASKS}


@pytest.mark.parametrize("task", ALL)
def test_task(task: Task) -> None:
    env = envs.make_env(task.name, seed=1)
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.action_dim,)
    actions = actions_for(task, task.episode_length)
    first = check_full_episode(env, actions)
    second, _ = env.reset()
    assert not np.array_equal(second, first), "a later reset draws a new start"

    # A seed gives the same episodes in a fresh environment and in one with a past.
    fresh = envs.make_env(task.name, seed=1)
    for seed, start in ((1, first), (None, second)):
        for observation in (env.reset(seed=seed)[0], fresh.reset()[0]):
            np.testing.assert_array_equal(observation, start)
        for action in actions[:5]:
            left, right = env.step(action), fresh.step(action)
            np.testing.assert_array_equal(left[0], right[0])
            assert left[1] == right[1]
    fresh.close()

    with warnings.catch_warnings():
        # The checker's advice: unbounded observation boxes.
        warnings.simplefilter("ignore")
        check_env(env)
    env.close()


def check_full_episode(env: envs.SimulatorEnv, actions: np.ndarray) -> np.ndarray:
    """Steps through an episode and returns its first observation."""
    task = env.task
    first, info = env.reset()
    assert info == {"success": 0.0}
    total = 0.0
    for step, action in enumerate(actions, 1):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation.shape == (task.obs_dim,)
        assert observation.dtype == np.float32
        assert np.isfinite(observation).all()
        assert type(reward) is float
        assert np.isfinite(reward)
        assert not terminated
        assert truncated == (step == task.episode_length)
        assert info["success"] in (0.0, 1.0)
        if task.domain == "metaworld":
            assert observation[-3:].any(), "the goal is observed"
        total += reward
    assert 0 <= total <= (1000 if task.domain == "dmcontrol" else 2000)
    return first
