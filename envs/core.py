"""What all environments share: spaces, decision steps, the time limit and seeds."""

from __future__ import annotations

from abc import abstractmethod
from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from pwm.core.errors import PwmError, SimulatorError
from pwm.core.suites import Task

from .rendering import Renderer, render_backend

if TYPE_CHECKING:
    import mujoco

Observation = np.ndarray
Action = np.ndarray

MAX_SEED = 2**32 - 1
"""Largest seed: what NumPy's RandomState, and so dm_control, accepts."""


def check_seed(seed: int) -> int:
    """Returns the seed as an int, or raises PwmError if it is no integer in 0..2**32-1."""
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer):
        raise PwmError(f"a seed must be an integer, got {seed!r}; use one in 0..{MAX_SEED}.")
    if not 0 <= seed <= MAX_SEED:
        raise PwmError(f"seed {seed} is out of range; use an integer in 0..{MAX_SEED}.")
    return int(seed)


class TaskEnv(gymnasium.Env[Observation, Action]):
    """One task; a subclass builds its simulator before it calls the constructor.

    Arguments and errors are those of ``make_env``.

    Attributes:
        task: the task's facts (sizes, episode length, how it is scored).
        observation_space: unbounded float32 box of shape ``(obs_dim,)``.
        action_space: float32 box of shape ``(action_dim,)`` in [-1, 1].
        success: 1.0 if the last decision step ended in success, else 0.0.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space: Box
    action_space: Box

    def __init__(self, task: Task, seed: int | None, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise PwmError(
                f"unknown render mode '{render_mode}'; use 'rgb_array', or None to render nothing."
            )
        self.task = task
        self.render_mode = render_mode
        self.observation_space = Box(-np.inf, np.inf, (task.obs_dim,), np.float32)
        self.action_space = Box(-1.0, 1.0, (task.action_dim,), np.float32)
        self._action_shape = (task.action_dim,)
        self._zeros = np.zeros(task.obs_dim, np.float32)
        self._steps_left = 0
        self.success = 0.0
        if seed is not None:
            self._start_stream(check_seed(seed))

    @abstractmethod
    def _start_stream(self, seed: int) -> None:
        """Starts the simulator's random stream at the seed."""

    @abstractmethod
    def _begin(self) -> Observation:
        """Begins an episode and returns the first observation, ``(obs_dim,)`` float32."""

    @abstractmethod
    def _advance(self, action: Action) -> tuple[Observation, float, float]:
        """Applies a valid action for one decision step: observation, summed reward, success."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode: the first observation, ``(obs_dim,)`` float32, and a success of 0.

        A seed starts the random stream anew; without one it goes on, so that the episodes after
        ``reset(seed=s)`` are a reproducible sequence. Options are unused.

        Raises:
            PwmError: if the seed is not an integer in 0..2**32-1.
            SimulatorError: if the simulator's numbers are not finite.
        """
        if seed is not None:
            seed = check_seed(seed)
            super().reset(seed=seed)
            self._start_stream(seed)
        observation = self._begin()
        self._require_finite(observation, 0.0)
        self.success = 0.0
        self._steps_left = self.task.episode_length
        return observation, {"success": 0.0}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one decision step with an action ``(action_dim,)``, which is clipped to [-1, 1].

        Returns:
            Observation ``(obs_dim,)`` float32, reward summed over the control steps, False (no
            task of a suite terminates), whether the time limit was reached, and
            ``{"success": 0.0 or 1.0}``.

        Raises:
            PwmError: for an action of another shape or with NaN in it, or without an episode.
            SimulatorError: if the simulator's numbers are not finite.
        """
        action = np.minimum(np.maximum(action, -1.0), 1.0)
        if action.shape != self._action_shape:
            raise PwmError(
                f"task '{self.task.name}' takes an action of shape {self._action_shape}, "
                f"got {action.shape}; give one number per actuator."
            )
        # Clipped entries are finite or NaN, and NaN carries over to the dot product, which is
        # several times cheaper here than np.isnan(action).any().
        if isnan(action.dot(action)):
            raise PwmError(
                f"the action for task '{self.task.name}' contains NaN; "
                "give finite numbers in [-1, 1] (did the policy diverge?)."
            )
        if not self._steps_left:
            raise PwmError(f"no episode of '{self.task.name}' is under way; call reset() first.")
        observation, reward, self.success = self._advance(action)
        self._require_finite(observation, reward)
        self._steps_left -= 1
        return observation, reward, False, not self._steps_left, {"success": self.success}

    def _require_finite(self, observation: Observation, reward: float) -> None:
        # Zero times NaN or infinity is NaN; again several times cheaper than np.isfinite.
        if not isfinite(reward + float(observation.dot(self._zeros))):
            raise SimulatorError(
                f"the simulator of '{self.task.name}' gave an observation or reward that is not "
                "finite: the simulation is unstable, perhaps for the actions it was given."
            )


class SimulatorEnv(TaskEnv):
    """One task of a suite, in MuJoCo."""

    def __init__(self, task: Task, seed: int | None, render_mode: str | None) -> None:
        if render_mode == "rgb_array":
            render_backend()
        self._renderer: Renderer | None = None
        super().__init__(task, seed, render_mode)

    @abstractmethod
    def _scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, int | mujoco.MjvCamera]:
        """The MuJoCo model and data to draw, and the camera to draw them from."""

    def render(self) -> np.ndarray | None:
        """The current frame, ``(240, 320, 3)`` uint8, or None without a render mode."""
        if self.render_mode is None:
            return None
        model, data, camera = self._scene()
        if self._renderer is None:
            self._renderer = Renderer(model)
        return self._renderer.frame(data, camera)

    def close(self) -> None:
        """Frees what rendering holds; may be called more than once."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
