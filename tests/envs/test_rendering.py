"""Frames without a display, for both simulators."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import envs
from envs import rendering
from pwm.core.errors import PwmError


@pytest.fixture(scope="module")
def backend() -> str:
    try:
        return envs.render_backend()
    except PwmError as fault:
        pytest.skip(str(fault))


@pytest.mark.parametrize("task", ["walker-run", "reacher-three-hard", "mw-push"])
def test_frames(backend: str, task: str) -> None:
    assert backend in ("egl", "osmesa", "cgl")
    silent = envs.make_env(task, seed=0)
    assert silent.render() is None
    env = envs.make_env(task, seed=0, render_mode="rgb_array")
    env.reset()
    silent.reset()
    first = env.render()
    assert first is not None
    assert first.shape == (240, 320, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10
    action = np.full(env.action_space.shape, 0.9, np.float32)
    for _ in range(4):
        rendered, plain = env.step(action), silent.step(action)
        env.render()
        np.testing.assert_array_equal(rendered[0], plain[0])
        assert rendered[1] == plain[1]
    assert not np.array_equal(env.render(), first)
    env.close()
    env.close()


_UNCLOSED = """
import envs
plain = envs.make_env("mw-reach", seed=0)
plain.reset()
for task in ("mw-reach", "walker-run"):
    env = envs.make_env(task, seed=0, render_mode="rgb_array")
    env.reset()
    assert env.render().std() > 10
    if task == "walker-run":
        kept = env
print(envs.render_backend())
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["egl", "osmesa"])
def test_each_backend_from_a_fresh_process_that_closes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set by PyOpenGL's users in this process once they have chosen.
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    if not rendering._works(name):
        pytest.skip(f"{name} does not work on this machine")
    done = subprocess.run(
        [sys.executable, "-c", _UNCLOSED],
        env={**os.environ, "MUJOCO_GL": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, name, "")


def test_no_backend_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.render_backend.cache_clear()
    monkeypatch.setattr(rendering, "_works", lambda backend, **_: False)
    with pytest.raises(PwmError, match=r"apt-get install libegl1 libgl1-mesa-dri.*libosmesa6"):
        envs.make_env("walker-run", render_mode="rgb_array")


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.render_backend.cache_clear()
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    monkeypatch.setattr(rendering, "_BACKENDS", ("egl", "osmesa"))
    monkeypatch.setattr(
        rendering, "_works", lambda backend, without="": bool(without) and backend == "egl"
    )
    with pytest.raises(PwmError, match=r"MUJOCO_EGL_DEVICE_ID=99 is set, .* or unset it"):
        rendering.render_backend()


def test_osmesa_when_egl_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.render_backend.cache_clear()
    monkeypatch.setattr(rendering, "_BACKENDS", ("egl", "osmesa"))
    monkeypatch.setattr(rendering, "_works", lambda backend, **_: backend == "osmesa")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert envs.render_backend() == "osmesa"
    rendering.render_backend.cache_clear()


@pytest.fixture(autouse=True)
def forget_choice() -> object:
    """A faked choice of backend must not outlive its test."""
    kept = rendering._works
    yield
    if rendering._works is not kept:
        rendering.render_backend.cache_clear()
