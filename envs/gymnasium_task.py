"""A user-defined task: any Gymnasium environment with numbers in and numbers out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, RescaleAction

from pwm.core.action_bounds import with_bounds
from pwm.core.errors import PwmError, SimulatorError, what_was_raised
from pwm.core.precision import lost_in_float32, lost_sentence
from pwm.core.suites import Task

from .core import Action, Observation, TaskEnv
from .seeding import seed_layers, seeded_globals

_LARGEST = 1 + 1e-6
_CLIPPED = (
    "an action for '{0}' lies beyond [-1, 1] and is clipped: this environment scales actions from "
    "[-1, 1] to its own bounds, so give it normalized ones, of a policy "
    "policy.act(obs, normalized=True)."
)


class GymnasiumEnv(TaskEnv):
    """An environment that ``gymnasium.make`` makes, with the interface of a suite's task.

    The observation is flattened as Gymnasium's own FlattenObservation does, the action is rescaled
    from [-1, 1] to the environment's bounds, and an action is repeated with the rewards summed. An
    episode ends where the environment ends it, and is truncated after the task's episode length;
    the time limit that the environment is registered with does not apply. Success is what the
    environment's info has under ``success`` or ``is_success``, else 0; the info of a step has
    ``success_known``, whether it was there at this step. A seed is also given to the
    environment's ``seed`` method, if it has one, and for the time of the reset to the global
    generators of NumPy and Python. Arguments and errors are those of ``make_env``.

    Attributes:
        task: as given, with the bounds of the environment's own actions.
        action_bounds: these bounds, the lowest and the highest action, (action_dim,) each.
        native_observation_space: of the environment, before its observations are flattened.
        made_with: the arguments that the environment was made with, defaults included.
    """

    def __init__(self, task: Task, seed: int | None = None, render_mode: str | None = None) -> None:
        self._seed: int | None = None
        self._ends = (False, False)
        self._success_known = self._has_warned = self._has_told = False
        super().__init__(task, seed, render_mode)
        env = _make(task, render_mode)
        try:
            bounds = check_spaces(
                task, env.observation_space, env.action_space, f"environment {task.env_id}"
            )
            self.task = with_bounds(task, *bounds)  # raises where the task states others
        except PwmError:
            env.close()
            raise
        self._env = RescaleAction(FlattenObservation(env), np.float32(-1), np.float32(1))
        self.action_bounds = bounds
        self.native_observation_space = env.observation_space
        self.made_with = dict(env.spec.kwargs) if env.spec is not None else {}
        self.metadata = {**self.metadata, "render_fps": env.metadata.get("render_fps", 20)}

    def _start_stream(self, seed: int) -> None:
        self._seed = seed

    def _begin(self) -> Observation:
        self._success_known = False
        self._range: tuple[np.ndarray, np.ndarray] | None = None
        with self._named("reset"):
            if self._seed is None:
                observation, _ = self._env.reset()
            else:
                with seeded_globals(self._seed):
                    seed_layers(self._env, self._seed)
                    observation, _ = self._env.reset(seed=self._seed)
                self._seed = None
        return self._observed(observation)

    def _advance(self, action: Action) -> tuple[Observation, float, float]:
        total = 0.0
        action = np.asarray(action, np.float32)
        for _ in range(self.task.action_repeat):
            with self._named("step"):
                observation, reward, terminated, truncated, info = self._env.step(action)
            total += self._number(reward)
            if terminated or truncated:
                break
        self._ends = bool(terminated), bool(truncated)
        success = self._reported_success(info)
        self._success_known = success is not None
        return self._observed(observation), total, success or 0.0

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """What the environment raises becomes a sentence that names the environment."""
        try:
            yield
        except PwmError:
            raise
        except Exception as error:
            raise SimulatorError(
                f"environment {self.task.env_id} failed in {what}() ({what_was_raised(error)})."
            ) from error

    def _observed(self, observation: Any) -> Observation:
        found = np.array(observation, np.float32)
        if found.shape != self._zeros.shape:
            raise PwmError(
                f"environment {self.task.env_id} gave an observation of {found.size} numbers, and "
                f"its observation_space has {self.task.obs_dim}; correct one of the two."
            )
        if not self._has_told and getattr(observation, "dtype", None) == np.float64:
            lowest, highest = self._range or (observation, observation)
            self._range = np.minimum(lowest, observation), np.maximum(highest, observation)
        return found

    def _tell_what_is_lost(self) -> None:
        """Warns once, at the end of an episode, of observations that float32 cannot tell apart."""
        if self._range is not None and (lost := lost_in_float32(*self._range)):
            self._has_told = True
            warnings.warn(lost_sentence(self.task.name, lost), stacklevel=2)
        self._range = None

    def _number(self, reward: Any) -> float:
        """A reward that is a number, or an array that holds one alone."""
        values = np.asarray(reward)
        if values.size != 1 or values.dtype.kind not in "biuf":
            raise PwmError(
                f"environment {self.task.env_id} gave a reward {reward!s:.100} of shape "
                f"{values.shape}; step() must return one number as its reward."
            )
        return float(values.item())

    def _reported_success(self, info: dict[str, Any]) -> float | None:
        """1.0 or 0.0 as an environment's info says, or None if it says nothing."""
        for key in ("success", "is_success"):
            if (value := info.get(key)) is None:
                continue
            given = np.asarray(value)
            if given.size != 1 or given.dtype.kind not in "biuf" or given.item() not in (0, 1):
                if given.dtype.kind == "f" and np.isnan(given).all():
                    continue
                raise PwmError(
                    f"environment {self.task.env_id} reports {key}={value!r:.100} in its info, and "
                    "True, False, 0 or 1 was expected (NaN or nothing where it is not known)."
                )
            return float(given.item())
        return None

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """As :meth:`TaskEnv.step`; it ends early with the episode, which may be terminated.

        The first action beyond [-1, 1] is warned of: it may be in the environment's own units.
        """
        if not self._has_warned and np.max(np.abs(action), initial=0.0) > _LARGEST:
            self._has_warned = True
            warnings.warn(_CLIPPED.format(self.task.name), stacklevel=2)
        observation, reward, _, out_of_time, info = super().step(action)
        terminated, truncated = self._ends
        if terminated or truncated:
            self._steps_left = 0
        if not self._steps_left:
            self._tell_what_is_lost()
        info["success_known"] = self._success_known
        return observation, reward, terminated, truncated or out_of_time, info

    def render(self) -> np.ndarray | None:
        """The current frame, (height, width, 3) uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        try:
            frame = np.asarray(self._env.render())
        except Exception as error:
            raise PwmError(
                f"environment {self.task.env_id} cannot draw a frame ({what_was_raised(error)}); "
                "install what it draws with (pygame for several of Gymnasium's), or go without "
                "videos and strips."
            ) from error
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise PwmError(
                f"environment {self.task.env_id} drew a frame of shape {frame.shape} and type "
                f"{frame.dtype}; with render_mode='rgb_array' render() must return (height, width, "
                "3) uint8, or go without videos and strips."
            )
        return frame

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()


def _make(task: Task, render_mode: str | None) -> gymnasium.Env[Any, Any]:
    arguments = json.loads(task.env_kwargs)
    if render_mode is not None:
        arguments["render_mode"] = render_mode
    try:
        with seeded_globals(0):  # by which Meta-World draws its goals when it is made
            return gymnasium.make(
                task.env_id, max_episode_steps=-1, disable_env_checker=True, **arguments
            )
    except (Exception, SystemExit) as error:  # its module and its constructor are a user's code
        given = "" if render_mode is None else f" with render_mode='{render_mode}'"
        raise PwmError(
            f"task '{task.name}' needs the Gymnasium environment {task.env_id}, which cannot be "
            f"made{given} ({what_was_raised(error)}); correct env_id, env_kwargs or the environment"
            " itself, or install its package."
        ) from error


def check_spaces(
    task: Task, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], owner: str
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest action, (action_dim,) each, of ``owner``'s spaces.

    Raises PwmError unless observations are a box, or a dictionary or tuple of boxes, actions are a
    bounded box, and both have the task's sizes.
    """
    _require_boxes(task, observation_space, owner)
    size = spaces.flatdim(observation_space)
    if size != task.obs_dim:
        raise PwmError(
            f"the flattened observation of {owner} has {size} entries, and task '{task.name}' "
            f"states obs_dim {task.obs_dim}; correct obs_dim."
        )
    if not isinstance(action_space, spaces.Box) or action_space.dtype.kind != "f":
        raise PwmError(
            f"the action space of {owner} is {action_space}; task '{task.name}' needs continuous "
            "actions, a Box of floating-point numbers."
        )
    if action_space.shape != (task.action_dim,):
        mend = "correct action_dim"
        if len(action_space.shape) != 1:
            mend = "wrap the environment such that its action is one row of numbers"
        raise PwmError(
            f"the action of {owner} has shape {action_space.shape}, and task '{task.name}' states "
            f"action_dim {task.action_dim}; {mend}."
        )
    low, high = action_space.low, action_space.high
    if (fixed := np.flatnonzero(low >= high)).size:
        raise PwmError(
            f"the action space of {owner} is {action_space}: entry {fixed[0]} of its actions has "
            f"no room between its bounds, and '{task.name}' needs some to scale by; wrap the "
            "environment such that it fills in this entry itself."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise PwmError(
            f"the action space of {owner} is {action_space}; task '{task.name}' needs bounds to "
            "scale actions by, so wrap the environment such that its actions have some."
        )
    return low, high


def _require_boxes(task: Task, space: spaces.Space[Any], owner: str) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.spaces
        for part in parts.values() if isinstance(parts, dict) else parts:
            _require_boxes(task, part, owner)
    elif not isinstance(space, spaces.Box):
        raise PwmError(
            f"the observation of {owner} has a part {space}; task '{task.name}' needs continuous "
            "observations, a Box or a dictionary of them."
        )
