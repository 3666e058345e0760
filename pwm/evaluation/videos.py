"""Videos of episodes, and strips of a few frames side by side."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically, writing
from pwm.core.progress import progress_bar
from pwm.core.suites import Task
from pwm.evaluation.agents import AnyAgent, BatchedAgent, act_function

_STRIP_FRAMES = 8
_JPEG_QUALITY = 80


def require_video() -> None:
    """Raise PwmError if imageio is missing or no OpenGL backend works."""
    from pwm.envs import render_backend

    require_writer()
    render_backend()


def require_writer() -> None:
    """Raise PwmError if imageio, which videos are written with, is missing."""
    try:
        import imageio.v3  # noqa: F401
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise PwmError(
            "writing videos needs imageio and imageio-ffmpeg; pip install 'pwm-worldmodels[video]'."
        ) from error


def require_frames(tasks: Iterable[Task]) -> None:
    """Raise PwmError for the first user-defined task whose environment cannot draw a frame."""
    from pwm.envs import make_env

    for task in tasks:
        if task.domain == "gymnasium":
            env = make_env(task, render_mode="rgb_array")
            try:
                env.reset(seed=0)
                env.render()
            finally:
                env.close()


def write_videos(
    agent: AnyAgent, tasks: Sequence[Task], seeds: Sequence[int], directory: Path
) -> None:
    """Write one MP4 per episode, ``<task>_<i>.mp4``, at the environment's frame size.

    Raises:
        PwmError: if imageio is missing, no OpenGL backend works, or a file cannot be written.
    """
    require_video()
    make_directory(directory)
    for task, seed, name in _episodes("videos", tasks, seeds):
        write_video(directory / f"{name}.mp4", _film(agent, task, seed))


def write_strips(
    agent: AnyAgent, tasks: Sequence[Task], seeds: Sequence[int], directory: Path
) -> None:
    """Write one JPEG per episode, ``<task>_<i>.jpg``: 8 frames, at half their size, side by side.

    They reach from the first to the last, closer together at the start, where most happens.

    Raises:
        PwmError: as :func:`write_videos`.
    """
    require_video()
    make_directory(directory)
    for task, seed, name in _episodes("strips", tasks, seeds):
        write_atomically(directory / f"{name}.jpg", _jpeg(_episode_strip(agent, task, seed)))


def episode_strips(
    agent: AnyAgent, tasks: Sequence[Task], seed: int
) -> Iterator[tuple[Task, np.ndarray]]:
    """Each task with the strip of its episode of a seed, a picture (height, width, 3) uint8.

    Raises:
        PwmError: if no OpenGL backend works, or an environment cannot draw itself.
    """
    for task, _, _ in _episodes("strips", tasks, [seed]):
        yield task, _episode_strip(agent, task, seed)


def _episode_strip(agent: AnyAgent, task: Task, seed: int) -> np.ndarray:
    shares = np.linspace(0, 1, _STRIP_FRAMES) ** 2
    steps = np.round(shares * task.episode_length).astype(int).tolist()
    return strip(_film(agent, task, seed, steps))


def _episodes(
    what: str, tasks: Sequence[Task], seeds: Sequence[int]
) -> Iterator[tuple[Task, int, str]]:
    """Every task with every seed, and its file's name without the ending, under a progress bar."""
    with progress_bar() as progress:
        bar = progress.add_task(what, total=len(tasks) * len(seeds), note="")
        for task, (i, seed) in itertools.product(tasks, enumerate(seeds)):
            progress.update(bar, note=task.name)
            yield task, seed, f"{task.name}_{i}"
            progress.advance(bar)


def strip(frames: np.ndarray) -> np.ndarray:
    """Frames side by side at half their size: (n, height, width, 3) uint8 to one such picture."""
    even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2].astype(np.float32)
    blocks = even.reshape(len(even), even.shape[1] // 2, 2, even.shape[2] // 2, 2, 3)
    return np.concatenate(list(blocks.mean((2, 4)).round().astype(np.uint8)), axis=1)


def side_by_side(frames: np.ndarray) -> bytes:
    """A PNG of :func:`strip`."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", strip(frames), extension=".png")


def _jpeg(picture: np.ndarray) -> bytes:
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", picture, extension=".jpg", quality=_JPEG_QUALITY)


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Write an MP4 of 25 frames a second, which gets its name when it is whole.

    Args:
        path: the file.
        frames: each (height, width, 3) uint8; written as they come.

    Raises:
        PwmError: if it cannot be written.
    """
    import imageio.v2 as iio

    unfinished, made = path.with_name(f"unfinished_{path.name}"), 0
    with writing(path):
        try:
            settings: dict[str, Any] = {"fps": 25, "codec": "libx264"}
            quiet = {"ffmpeg_log_level": "quiet"}
            writer: Any = iio.get_writer(unfinished, "FFMPEG", **settings, **quiet)
            with writer:
                for made, frame in enumerate(frames, 1):  # noqa: B007 - counts them
                    writer.append_data(frame)
            kept = _count_frames(unfinished)
            if kept != made:  # ffmpeg does not always say that it could not write
                raise PwmError(
                    f"cannot write {path}: {kept} of its {made} frames were kept, as on a "
                    "full disk; free some space there, and give the same command again to go on."
                )
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _count_frames(path: Path) -> int:
    from imageio_ffmpeg import count_frames_and_secs

    try:
        return int(count_frames_and_secs(str(path))[0])
    except RuntimeError:  # not a whole MP4
        return 0


def _film(agent: AnyAgent, task: Task, seed: int, steps: Sequence[int] | None = None) -> np.ndarray:
    """The frames of an episode, all of them or those after some numbers of steps, and its last."""
    from pwm.envs import make_env

    env = make_env(task, render_mode="rgb_array")
    try:
        obs, _ = env.reset(seed=seed)
        frames: list[Any] = [env.render()]
        with one_thread(agent):
            act = act_function(agent, task, [seed])
            for step in itertools.count(1):
                obs, _, terminated, truncated, _ = env.step(act(obs[None])[0])
                done = terminated or truncated
                if steps is None or done or step in steps:
                    frames.append(env.render())
                if done:
                    break
    finally:
        env.close()
    return np.stack(frames)


@contextmanager
def one_thread(agent: AnyAgent) -> Iterator[None]:
    """Inside, torch has one thread, as in the workers; two wait for each other on a busy machine.

    A batched agent, which plans, keeps all.
    """
    import torch

    before = torch.get_num_threads()
    if not isinstance(agent, BatchedAgent):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
