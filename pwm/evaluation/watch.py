"""``pwm watch``: a policy in the simulator, and what the world model predicts that it will do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import MISSING

from pwm.core.errors import PwmError
from pwm.core.files import make_directory
from pwm.core.progress import console, progress_bar
from pwm.core.settings import require_inputs, setting
from pwm.core.suites import Task
from pwm.core.validation import require_at_least, require_seed, require_writable
from pwm.evaluation.agents import SavedPolicies, act_function
from pwm.evaluation.predictions import Predictor, world_model_of
from pwm.evaluation.videos import one_thread, require_frames, require_video, write_video
from pwm.evaluation.watch_picture import Moment, Picture
from pwm.models.actor_critic import load_critic
from pwm.models.policy import load_policy
from pwm.models.policy_directory import policy_path, policy_tasks, require_policy
from pwm.runtime.checkpoint import read_meta

_FILE = "watch.mp4"


@dataclass
class WatchConfig:
    """Settings of ``pwm watch``.

    Attributes:
        policy: a policy's directory, or a directory of policies, one per task.
        task: whose policy, where there are several.
        checkpoint: the world model that the policy was extracted from; null for the one that the
            policy's record names, or the one beside the directory of policies.
        out: an MP4 file. null for a window where there is a display, else for watch.mp4.
        horizon: decision steps that the world model looks ahead.
        seed: of the episode; the first of ``pwm evaluate`` by default.
        steps: decision steps that are shown; null for the whole episode.
    """

    policy: str = setting(MISSING, input_path=True)
    task: str | None = None
    checkpoint: str | None = setting(None, input_path=True)
    out: str | None = None
    horizon: int = 16
    seed: int = 1000
    steps: int | None = None

    def validate(self) -> None:
        """Raise PwmError for settings that cannot work."""
        require_at_least(self, 1, "horizon", *(["steps"] if self.steps is not None else []))
        require_seed(self.seed)
        if self.out is not None:
            if Path(self.out).suffix != ".mp4":
                raise PwmError(f"out={self.out} must be an MP4 file, such as out={_FILE}.")
            require_writable(str(Path(self.out).parent))


def watch(config: WatchConfig) -> Path | None:
    """Play a policy in the simulator, over the world model's prediction of reward and return.

    Returns:
        The MP4 file, or None if it was shown in a window.

    Raises:
        PwmError: if there is no such policy or world model, or no frame can be drawn.
    """
    config.validate()
    require_inputs(config)
    task = _task(config)
    show = _Show(config, task)
    figure = None if config.out else window_figure()
    if figure is None:
        out = Path(config.out or _FILE)
        require_video()
        require_frames([task])
        make_directory(out.parent)
        write_video(out, show.pixels(Figure()))
        console.print(f"Video: {out}", soft_wrap=True)
        return out
    require_frames([task])
    show.in_window(figure)
    return None


class _Show:
    """An episode of a task's policy, with predictions."""

    def __init__(self, config: WatchConfig, task: Task) -> None:
        path = policy_path(Path(config.policy), task.name)
        policy = load_policy(path)
        model = world_model_of(policy, path, config.checkpoint)
        critic = load_critic(path) if "critic" in read_meta(path, "policy") else None
        self._values = None
        if critic is not None:
            self._values = f"discounted by {critic.discount:g}, {critic.reward_units} rewards"
        self._predict = Predictor(model, policy, critic, config.horizon)
        self._agent = SavedPolicies.at({task.name: path})
        self._task, self._seed, self._horizon = task, config.seed, config.horizon
        self._steps = min(task.episode_length, config.steps or task.episode_length)

    def pixels(self, figure: Figure) -> Iterator[np.ndarray]:
        """A picture (height, width, 3) uint8 per moment of the episode."""
        canvas = FigureCanvasAgg(figure)
        picture = self._picture(figure)
        with progress_bar() as progress:
            bar = progress.add_task("video", total=self._steps + 1, note=self._task.name)
            for moment in self._moments():
                picture.show(moment)
                canvas.draw()
                yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
                progress.advance(bar)

    def in_window(self, figure: Figure) -> None:
        """Show the episode as it is played, until its window is closed."""
        from matplotlib import pyplot

        picture = self._picture(figure)
        if figure.canvas.manager is not None:
            figure.canvas.manager.set_window_title(f"pwm watch: {self._task.name}")
        for moment in self._moments():
            picture.show(moment)
            figure.canvas.draw_idle()
            pyplot.pause(0.001)
            if not pyplot.fignum_exists(figure.number):
                return
        pyplot.show()

    def _picture(self, figure: Figure) -> Picture:
        heading = f"{self._task.name}, seed {self._seed}"
        return Picture(figure, heading, self._steps, self._horizon, self._values)

    def _moments(self) -> Iterator[Moment]:
        from pwm.envs import make_env

        env: Any = make_env(self._task, render_mode="rgb_array")
        rewards: list[float] = []
        try:
            obs, _ = env.reset(seed=self._seed)
            with one_thread(self._agent):
                act = act_function(self._agent, self._task, [self._seed])
                predictions = [self._predict(obs)]
                over = False
                while not over:
                    yield Moment(env.render(), rewards, predictions, over)
                    obs, reward, terminated, truncated, _ = env.step(act(obs[None])[0])
                    rewards.append(float(reward))
                    predictions.append(self._predict(obs))
                    over = terminated or truncated or len(rewards) == self._steps
                yield Moment(env.render(), rewards, predictions, over)
        finally:
            env.close()


def _task(config: WatchConfig) -> Task:
    known = policy_tasks(Path(config.policy))
    if config.task is None and len(known) == 1:
        return next(iter(known.values()))
    if config.task is None:
        names = ", ".join(known)
        raise PwmError(f"{config.policy} has {len(known)} policies; give task=, one of {names}.")
    require_policy(Path(config.policy), known, config.task)
    return known[config.task]


def window_figure() -> Any:
    """A figure in a window of its own, or None where there is no display or no window toolkit."""
    if not has_display():
        return None
    from matplotlib import pyplot

    figure = pyplot.figure()  # with the toolkit that matplotlib finds, or none
    if figure.canvas.required_interactive_framework is None:
        pyplot.close(figure)
        console.print(
            "There is a display, but matplotlib can open no window on it, so an MP4 is written; a "
            "window needs a toolkit such as tkinter, and a display that answers.",
            soft_wrap=True,
        )
        return None
    return figure


def has_display() -> bool:
    """Whether windows can be shown."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
