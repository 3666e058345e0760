"""Environments over worker processes."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

import envs
from pwm.core.errors import PwmError
from pwm.core.suites import Task

MIXED = ("walker-run", "mw-reach")  # one has more actions, the other more observations
# What workers of it import is light.
PENDULUM = Task("light", "gymnasium", 3, 1, 200, 1, "Pendulum-v1", "{}", -1500.0, 0.0)


def children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers begin with what this process has imported, which takes a fresh one seconds."""
    begin = AsyncVectorEnv.__init__

    def begin_forked(env: AsyncVectorEnv, makers: Any, context: str, **more: Any) -> None:
        begin(env, makers, context="fork" if sys.platform == "linux" else context, **more)

    monkeypatch.setattr(AsyncVectorEnv, "__init__", begin_forked)


@pytest.mark.usefixtures("forked")
def test_equals_single_environments_step_by_step_and_freezes() -> None:
    vector = envs.make_vector_env(MIXED, n=2)
    assert isinstance(vector, VectorEnv)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    names = [task.name for task in vector.slot_tasks]
    assert names == ["walker-run"] * 2 + ["mw-reach"] * 2
    assert vector.observation_space.shape == (4, 39)
    assert vector.action_space.shape == (4, 6)

    seeds = [5, 6, 7, 8]
    singles = [envs.make_env(name) for name in names]
    observations, infos = vector.reset(seed=seeds)
    expected = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    rng = np.random.default_rng(0)
    last = {}
    for step in range(1, 111):
        for slot, one in enumerate(expected):
            np.testing.assert_array_equal(observations[slot, : one.size], one)
            assert not observations[slot, one.size :].any()
        actions = rng.uniform(-1, 1, (4, 6)).astype(np.float32)
        observations, rewards, terminated, truncated, infos = vector.step(actions)
        assert observations.dtype == np.float32
        assert not terminated.any()
        for slot, env in enumerate(singles):
            if slot in last:
                assert rewards[slot] == 0
                assert truncated[slot]
                assert infos["success"][slot] == last[slot]
                continue
            one = env.step(actions[slot, : env.task.action_dim])
            expected[slot] = one[0]
            assert rewards[slot] == one[1]
            assert truncated[slot] == one[3]
            assert infos["success"][slot] == one[4]["success"]
            if one[3]:
                last[slot] = one[4]["success"]
        assert (set(last) == {2, 3}) == (step >= 100)

    # Only the masked slots begin again, and they continue their own stream.
    mask = np.array([False, False, True, False])
    again, _ = vector.reset(options={"reset_mask": mask})
    np.testing.assert_array_equal(again[2], singles[2].reset()[0])
    np.testing.assert_array_equal(again[~mask], observations[~mask])
    _, _, _, truncated, _ = vector.step(actions)
    assert truncated.tolist() == [False, False, False, True]
    vector.close()


@pytest.mark.usefixtures("forked")
def test_seeds() -> None:
    vector = envs.make_vector_env([PENDULUM], n=3, seed=40)
    singles = [envs.make_env(PENDULUM, seed=40 + slot) for slot in range(3)]
    for _ in range(2):
        observations, _ = vector.reset()
        np.testing.assert_array_equal(observations, [env.reset()[0] for env in singles])
    observations, _ = vector.reset(seed=[None, 3, None])
    expected = [singles[0].reset()[0], singles[1].reset(seed=3)[0], singles[2].reset()[0]]
    np.testing.assert_array_equal(observations, expected)
    observations, _ = vector.reset(seed=11)
    expected = [env.reset(seed=11 + slot)[0] for slot, env in enumerate(singles)]
    np.testing.assert_array_equal(observations, expected)
    vector.close()


@pytest.mark.usefixtures("forked")
def test_mistakes_leave_it_usable_and_closing_leaves_nothing() -> None:
    before = children()
    vector = envs.make_vector_env([PENDULUM], n=2)
    assert len(children() - before) == 2
    vector.reset(seed=0)
    with pytest.raises(PwmError, match=r"shape \(2, 1\)"):
        vector.step(np.zeros((2, 2)))
    with pytest.raises(PwmError, match="3 seeds for 2 slots"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(PwmError, match="seed"):
        vector.reset(seed=[1, -2])
    with pytest.raises(PwmError, match="reset_mask"):
        vector.reset(options={"reset_mask": np.array([1, 0])})
    vector.step(np.zeros((2, 1)))
    vector.close()
    vector.close()
    assert children() == before
    with pytest.raises(PwmError, match="closed"):
        vector.step(np.zeros((2, 1)))


def test_arguments() -> None:
    with pytest.raises(PwmError, match="unknown task"):
        envs.make_vector_env(["walker-run", "nonsense"])
    with pytest.raises(PwmError, match="at least one"):
        envs.make_vector_env(["walker-run"], n=0)
    with pytest.raises(PwmError, match="list of task names"):
        envs.make_vector_env("walker-run")
    with pytest.raises(PwmError, match="list of task names"):
        envs.make_vector_env([])


@pytest.mark.usefixtures("forked")
def test_a_step_before_the_first_reset_is_refused() -> None:
    vector = envs.make_vector_env([PENDULUM])
    with pytest.raises(PwmError, match="call reset"):
        vector.step(np.zeros((1, 1)))


@pytest.mark.usefixtures("forked")
def test_a_fault_in_a_worker_names_task_and_seed() -> None:
    before = children()
    vector = envs.make_vector_env([PENDULUM, "mw-push"])
    vector.reset(seed=[1, 23])
    actions = np.zeros((2, 4))
    actions[1, 2] = np.nan
    with pytest.raises(PwmError, match=r"'mw-push' \(slot 1, seed 23\).*NaN"):
        vector.step(actions)
    assert vector.closed
    assert children() == before


@pytest.mark.usefixtures("forked")
def test_a_worker_that_dies_is_reported() -> None:
    before = children()
    vector = envs.make_vector_env([PENDULUM])
    vector.reset(seed=[6])
    (pid,) = children() - before
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(PwmError, match=r"worker process of 'light' \(slot 0\)"):
        vector.step(np.zeros((1, 1)))
    assert vector.closed
    assert children() == before


def test_interrupts_do_not_reach_the_workers() -> None:
    before = children()
    vector = envs.make_vector_env([PENDULUM])
    vector.reset(seed=[0])
    for pid in children() - before:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    vector.step(np.zeros((1, 1)))
    vector.close()


def test_dropping_it_ends_the_workers() -> None:
    before = children()
    vector = envs.make_vector_env([PENDULUM])
    assert children() != before
    del vector
    gc.collect()
    assert children() == before


# No __name__ guard, a module that stands for torch, and no close().
_SCRIPT = """
import sys, types
print("imported")
sys.modules["torch"] = types.ModuleType("torch")
import envs
vector = envs.make_vector_env(["pendulum-swingup"], seed=0)
print(vector.reset()[0].shape)
"""


def test_workers_do_not_run_the_callers_script_and_exit_is_silent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    root = Path(envs.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n(1, 3)\n", "")


def test_workers_end_when_the_caller_is_killed(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, os, signal, envs;"
        "vector = envs.make_vector_env(['pendulum-swingup'], n=2);"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    alive = {int(pid) for pid in done.stdout.split()}
    assert len(alive) == 2
    while alive and time.monotonic() < deadline:
        alive = {pid for pid in alive if running(pid)}
        time.sleep(0.05)
    assert not alive


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie that its new parent has yet to reap."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
