"""Filming episodes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm.errors import PwmError
from pwm.methods import Method, ServedMethod, controller
from pwm.progress import progress_bar
from pwm.suites import Task


def require_video() -> None:
    """Raise PwmError if imageio is missing or no OpenGL backend works."""
    from envs import render_backend

    try:
        import imageio.v3  # noqa: F401
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise PwmError(
            "writing videos needs imageio and imageio-ffmpeg; pip install 'pwm[video]'."
        ) from error
    render_backend()


def write_videos(
    method: Method | ServedMethod, tasks: Sequence[Task], seeds: Sequence[int], directory: Path
) -> None:
    """One MP4 an episode, ``<task>_<i>.mp4``, at the environment's frame size.

    Raises:
        PwmError: if imageio is missing or no OpenGL backend works.
    """
    require_video()
    import imageio.v3 as iio

    directory.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        bar = progress.add_task("videos", total=len(tasks) * len(seeds), note="")
        for task, (i, seed) in itertools.product(tasks, enumerate(seeds)):
            progress.update(bar, note=task.name)
            frames = _film(method, task, seed)
            iio.imwrite(directory / f"{task.name}_{i}.mp4", frames, fps=25, codec="libx264")
            progress.advance(bar)


def _film(method: Method | ServedMethod, task: Task, seed: int) -> np.ndarray:
    from envs import make_env

    env = make_env(task, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed)
        act = controller(method, task, [seed])
        frames: list[Any] = [env.render()]
        done = False
        while not done:
            obs, _, terminated, truncated, _ = env.step(act(obs[None])[0])
            frames.append(env.render())
            done = terminated or truncated
    finally:
        env.close()
    return np.stack(frames)
