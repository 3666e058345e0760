"""Meta-World: the bare simulator, fresh processes, goals, success."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from metaworld.policies import ENV_POLICY_MAP

import envs
from envs import metaworld
from pwm.core.protocols import with_metaworld
from pwm.core.suites import get_suite

NAMES = ("mw-reach", "mw-push", "mw-drawer-close", "mw-assembly", "mw-door-lock")


@pytest.mark.parametrize("task", NAMES)
def test_equals_the_bare_simulator(task: str) -> None:
    bare, env = metaworld.load(task), envs.make_env(task, seed=9)
    bare.seed(9)
    rng = np.random.default_rng(0)
    for _ in range(2):
        np.testing.assert_array_equal(env.reset()[0], bare.reset()[0].astype(np.float32))
        for _ in range(30):
            action = rng.uniform(-1, 1, 4).astype(np.float32)
            _, first, *_ = bare.step(action)
            expected, second, _, _, info = bare.step(action)
            observation, reward, _, _, ours = env.step(action)
            np.testing.assert_array_equal(observation, expected.astype(np.float32))
            assert reward == float(first) + float(second)
            assert ours["success"] == float(info["success"])
    env.close()
    bare.close()


def test_an_episode_may_be_as_long_as_meta_worlds_own() -> None:
    (task,) = with_metaworld(get_suite("mw-reach"), "500x1")
    env = envs.make_env(task, seed=9)
    env.reset()
    steps = [env.step(np.zeros(4, np.float32)) for _ in range(500)]
    assert [step[3] for step in steps] == [False] * 499 + [True]
    twice = envs.make_env("mw-reach", seed=9)
    twice.reset()
    two = twice.step(np.zeros(4, np.float32))
    np.testing.assert_array_equal(two[0], steps[1][0])
    assert two[1] == pytest.approx(steps[0][1] + steps[1][1])


_EPISODES = """
import json, sys
import numpy as np
import envs

def episodes(task, state):
    np.random.seed(state)
    np.random.uniform(size=state)
    env = envs.make_env(task)
    return [
        [float(x) for x in env.reset(seed=seed)[0]]
        + [float(x) for x in env.step(np.full(4, 0.5, np.float32))[0]]
        for seed in (17, None)
    ]
"""


@pytest.mark.slow
def test_a_seed_means_the_same_in_a_fresh_process_whatever_numpys_global_state() -> None:
    tasks = ("mw-push", "mw-assembly")
    script = f"{_EPISODES}print(json.dumps([episodes(task, 1) for task in {tasks}]))"
    there = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    here: dict[str, Any] = {}
    exec(_EPISODES, here)
    before = np.random.get_state()  # noqa: NPY002 - Meta-World's own code draws from it
    try:
        ours = [here["episodes"](task, 2) for task in tasks]
    finally:
        np.random.set_state(before)  # noqa: NPY002
    assert json.loads(there) == ours
    assert all(first != second for first, second in ours)


@pytest.mark.parametrize("task", NAMES)
def test_goal_is_observed_and_a_reset_draws_a_new_layout(task: str) -> None:
    env = envs.make_env(task, seed=0)
    layouts = []
    for _ in range(2):
        observation, _ = env.reset()
        np.testing.assert_allclose(observation[-3:], env._env._target_pos, rtol=1e-6)
        np.testing.assert_array_equal(observation[18:36], observation[:18])
        observation, *_ = env.step(np.zeros(4, np.float32))
        assert observation[-3:].any(), "the goal stays in the observation after a step"
        layouts.append(tuple(env._env._last_rand_vec))
    env.close()
    assert len(set(layouts)) == 2


@pytest.mark.filterwarnings("ignore:Constant")
@pytest.mark.parametrize("task", ["mw-reach", "mw-drawer-close"])
def test_success_of_a_scripted_policy(task: str) -> None:
    env = envs.make_env(task, seed=0)
    policy = ENV_POLICY_MAP[f"{task.removeprefix('mw-')}-v3"]()
    observation, _ = env.reset()
    successes = []
    truncated = False
    while not truncated:
        observation, _, _, truncated, info = env.step(policy.get_action(observation))
        successes.append(info["success"])
    assert successes[0] == 0.0
    assert successes[-1] == 1.0
    env.close()


def test_out_of_range_actions_are_clipped() -> None:
    wild, clipped = envs.make_env("mw-push", seed=0), envs.make_env("mw-push", seed=0)
    wild.reset()
    clipped.reset()
    action = np.array([3.0, -2.0, 0.5, 4.0])
    for _ in range(5):
        a, b = wild.step(action), clipped.step(np.clip(action, -1, 1))
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1] == b[1]
    wild.close()
    clipped.close()
