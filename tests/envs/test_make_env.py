"""Making environments: registration, lazy imports, and mistakes answered with one sentence."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import envs
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES


def test_every_task_is_registered() -> None:
    registered = {name for name in gymnasium.registry if name.startswith("pwm/")}
    assert registered == {f"pwm/{name}" for name in SUITES["mt80"].names}
    envs.register_tasks()


@pytest.mark.parametrize("task", ["walker-run", "mw-push"])
def test_gymnasium_make(task: str) -> None:
    made, ours = gymnasium.make(f"pwm/{task}"), envs.make_env(task)
    np.testing.assert_array_equal(made.reset(seed=3)[0], ours.reset(seed=3)[0])
    action = np.full(made.action_space.shape, 0.3, np.float32)
    np.testing.assert_array_equal(made.step(action)[0], ours.step(action)[0])
    assert made.spec is not None
    assert made.spec.id == f"pwm/{task}"
    made.close()
    ours.close()


def test_importing_registers_without_a_simulator_or_torch() -> None:
    code = (
        "import sys, envs, gymnasium;"
        "assert gymnasium.spec('pwm/mw-push');"
        "print([m for m in ('dm_control', 'mujoco', 'metaworld', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_environment_variable_is_left_alone() -> None:
    code = (
        "import os, envs; envs.make_env('pendulum-spin'); envs.make_env('mw-reach');"
        "print('MUJOCO_GL' in os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_seed_at_construction_equals_seed_at_reset() -> None:
    early, late = envs.make_env("walker-run", seed=5), envs.make_env("walker-run")
    np.testing.assert_array_equal(early.reset()[0], late.reset(seed=5)[0])
    np.testing.assert_array_equal(early.reset()[0], late.reset()[0])


def test_without_a_seed_episodes_differ_between_environments() -> None:
    for task in ("walker-run", "mw-push"):
        starts = [envs.make_env(task).reset()[0] for _ in range(2)]
        assert not np.array_equal(*starts)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True])
def test_bad_seeds(seed: object) -> None:
    env = envs.make_env("pendulum-swingup")
    with pytest.raises(PwmError, match="seed"):
        env.reset(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(PwmError, match="seed"):
        envs.make_env("mw-reach", seed=seed)  # type: ignore[arg-type]


def test_the_largest_seed() -> None:
    for task in ("pendulum-swingup", "mw-reach"):
        envs.make_env(task, seed=2**32 - 1).reset()


@pytest.mark.parametrize("task", ["cartpole-balance", "mw-reach"])
def test_mistakes_in_stepping(task: str) -> None:
    env = envs.make_env(task, seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    with pytest.raises(PwmError, match="call reset"):
        env.step(action)
    env.reset()
    with pytest.raises(PwmError, match="shape"):
        env.step(np.zeros(7))
    with pytest.raises(PwmError, match="NaN"):
        env.step(action * np.nan)
    for _ in range(env.task.episode_length):
        _, _, _, truncated, _ = env.step(action)
    assert truncated
    with pytest.raises(PwmError, match="call reset"):
        env.step(action)
    env.close()


def test_infinite_actions_are_clipped() -> None:
    env = envs.make_env("cartpole-balance", seed=0)
    env.reset()
    infinite = env.step(np.array([np.inf]))[0]
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.array([1.0]))[0], infinite)


def test_unknown_names() -> None:
    with pytest.raises(PwmError, match="did you mean 'walker-run'"):
        envs.make_env("walker-runn")
    with pytest.raises(PwmError, match="rgb_array"):
        envs.make_env("walker-run", render_mode="human")


def test_closing_twice() -> None:
    for task in ("walker-run", "mw-push"):
        env = envs.make_env(task)
        env.reset()
        env.close()
        env.close()
