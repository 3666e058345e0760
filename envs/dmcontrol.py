"""The thirty dm_control tasks: nineteen of the stock suite and eleven custom ones."""

from __future__ import annotations

import copy
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pwm.core.suites import Task

from .core import Action, Observation, SimulatorEnv
from .rendering import simulator_import

with simulator_import():
    import mujoco
    from dm_control import suite

    from .custom import CUSTOM_TASKS

if TYPE_CHECKING:
    from dm_control.rl import control

_DOMAINS = {"cup": "ball_in_cup"}


def load(task: str, random: np.random.RandomState | int | None) -> control.Environment:
    """The bare dm_control environment of a task.

    Args:
        task: a dm_control task name of the benchmark, such as ``"cup-catch"``.
        random: what dm_control takes as ``task_kwargs={"random": ...}``.
    """
    if task in CUSTOM_TASKS:
        return CUSTOM_TASKS[task](random)
    domain, _, name = task.partition("-")
    return suite.load(
        _DOMAINS.get(domain, domain), name.replace("-", "_"), task_kwargs={"random": random}
    )


@lru_cache(maxsize=1)
def _compiled(task: str) -> control.Environment:
    """What a task's environments are copies of, since compiling takes ten times as long."""
    return load(task, None)


class DmControlEnv(SimulatorEnv):
    """A dm_control task; the observation dict is flattened in its order.

    Arguments and errors are those of ``make_env``.

    Attributes:
        seconds_per_step: simulated seconds of a decision step.
    """

    def __init__(self, task: Task, seed: int | None = None, render_mode: str | None = None) -> None:
        self._env = copy.deepcopy(_compiled(task.name))
        self._dm_task = self._env.task
        self._random = self._dm_task.random
        self._random.seed()
        self._physics = self._env.physics
        self._substeps = round(self._env.control_timestep() / self._physics.timestep())
        self._control_steps = range(task.action_repeat)
        sizes = [int(np.prod(entry.shape)) for entry in self._env.observation_spec().values()]
        self._layout = [slice(*ends) for ends in pairwise([0, *np.cumsum(sizes).tolist()])]
        self.seconds_per_step = task.action_repeat * self._env.control_timestep()
        self.metadata = {**self.metadata, "render_fps": round(1 / self.seconds_per_step)}
        super().__init__(task, seed, render_mode)

    def _start_stream(self, seed: int) -> None:
        self._random.seed(seed)

    def _begin(self) -> Observation:
        return self._flatten(self._env.reset().observation)

    def _advance(self, action: Action) -> tuple[Observation, float, float]:
        # What dm_control's own Environment.step does, without the observation of the control
        # steps before the last: observations are functions of the physics and draw no randomness.
        reward = self._control(action)
        return self._flatten(self._dm_task.get_observation(self._physics)), reward, 0.0

    def _control(self, action: Action) -> float:
        task, physics = self._dm_task, self._physics
        reward = 0.0
        for _ in self._control_steps:
            task.before_step(action, physics)
            physics.step(self._substeps)
            task.after_step(physics)
            reward += task.get_reward(physics)
        return float(reward)

    def lookahead(self, plans: np.ndarray) -> np.ndarray:
        """The sums of rewards, ``(N,)``, that sequences of actions would give from this state.

        ``plans`` is ``(N, H, action_dim)`` in [-1, 1] and may reach beyond the time limit. The
        episode's state is restored, bit for bit.
        """
        model, data = self._physics.model.ptr, self._physics.data.ptr
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        here = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, here, kind)
        returns = np.empty(len(plans))
        for number, plan in enumerate(plans):
            returns[number] = sum(self._control(action) for action in plan)
            mujoco.mj_setState(model, data, here, kind)
            mujoco.mj_step1(model, data)  # what follows from the state, as after a step
        return returns

    def _flatten(self, entries: dict[str, Any]) -> Observation:
        observation = np.empty(self.task.obs_dim, np.float32)
        for part, entry in zip(self._layout, entries.values(), strict=True):
            observation[part] = entry
        return observation

    def _scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, int | mujoco.MjvCamera]:
        return self._physics.model.ptr, self._physics.data.ptr, 0

    def close(self) -> None:
        """Frees the simulator and what rendering holds; may be called more than once."""
        super().close()
        self._physics.free()
