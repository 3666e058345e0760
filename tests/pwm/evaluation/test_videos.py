from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import envs
from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.evaluation.agents import UniformActions
from pwm.evaluation.videos import episode_strips, strip, write_strips


def test_frames_stand_side_by_side_at_half_their_size():
    frames = np.stack([np.full((5, 6, 3), value, np.uint8) for value in (10, 200)])
    frames[0, :2, :2] = 50
    picture = strip(frames)
    assert picture.shape == (2, 6, 3)
    assert (picture[0, 0] == 50).all()
    assert (picture[:, 3:] == 200).all()


def test_a_strip_shows_an_episode_from_its_start(tmp_path):
    try:
        envs.render_backend()
    except PwmError as fault:
        pytest.skip(str(fault))
    tasks = get_suite("pendulum-swingup").tasks
    for name in ("a", "b"):
        write_strips(UniformActions(), tasks, [3], tmp_path / name)
    file = tmp_path / "a" / "pendulum-swingup_0.jpg"
    picture = iio.imread(file)
    assert picture.shape == (120, 8 * 160, 3)
    assert file.stat().st_size < 100_000
    assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    first, last = (picture[:, i * 160 : (i + 1) * 160].astype(float) for i in (0, 7))
    assert np.abs(first - last).max() > 50
    env = envs.make_env("pendulum-swingup", render_mode="rgb_array")
    env.reset(seed=3)
    assert np.abs(strip(env.render()[None]) - first).mean() < 5  # but for JPEG's losses
    env.close()


class Threads(UniformActions):
    """Acts with as many threads as it notes."""

    def begin(self, task, seeds):
        act = super().begin(task, seeds)

        def noting(obs):
            threads.append(torch.get_num_threads())
            return act(obs)

        return noting


threads: list[int] = []


def test_what_is_filmed_acts_with_one_thread_as_in_the_workers(monkeypatch):
    monkeypatch.setattr("pwm.envs.make_env", lambda task, render_mode: Still())
    torch.set_num_threads(2)
    try:
        [(_, picture)] = episode_strips(Threads(), get_suite("mw-reach").tasks, seed=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert threads == [1, 1, 1]
    assert picture.shape == (2, 3 * 4, 3)  # at the start, after two steps and at the end


class Still:
    """Three steps long; draws itself in grey."""

    def reset(self, seed):
        self._left = 3
        return np.zeros(39, np.float32), {}

    def step(self, action):
        self._left -= 1
        return np.zeros(39, np.float32), 0.0, False, not self._left, {}

    def render(self):
        return np.full((4, 8, 3), 128, np.uint8)

    def close(self):
        pass
