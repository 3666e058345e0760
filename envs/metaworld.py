"""Meta-World's fifty tasks: v3 environments, goal observable, reward version v2."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from pwm.core.suites import Task

from .core import Action, Observation, SimulatorEnv
from .rendering import simulator_import

with simulator_import():
    import mujoco
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

if TYPE_CHECKING:
    from metaworld.sawyer_xyz_env import SawyerXYZEnv

_CONTROL_HZ = 80

_compiled: dict[str, mujoco.MjModel] = {}


class _CompiledOnce:
    """Copies the compiled model of the task's last environment, which takes a tenth of the time.

    An environment changes its model at resets, so each has its own.
    """

    fullpath: str

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        if self.fullpath not in _compiled:
            model, _ = super()._initialize_simulation()  # type: ignore[misc]
            _compiled.clear()
            _compiled[self.fullpath] = model
        model = copy.copy(_compiled[self.fullpath])
        return model, mujoco.MjData(model)


def load(task: str) -> SawyerXYZEnv:
    """The bare Meta-World environment of a task such as ``"mw-push"``, unseeded.

    A new goal and object position are drawn at every reset from the environment's own generator,
    which its ``seed()`` method starts; global NumPy state plays no part.
    """
    stock = ALL_V3_ENVIRONMENTS[f"{task.removeprefix('mw-')}-v3"]
    env = type(stock.__name__, (_CompiledOnce, stock), {})(reward_function_version="v2")
    env._partially_observable = False
    # Cached while the goal was hidden, with bounds that would clip the goal to zero.
    del env.sawyer_observation_space
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._set_task_called = True
    return env


class MetaWorldEnv(SimulatorEnv):
    """A Meta-World task: 18 numbers of now, 18 of the previous control step, the goal's 3.

    Arguments and errors are those of ``make_env``.
    """

    def __init__(self, task: Task, seed: int | None = None, render_mode: str | None = None) -> None:
        self._env = load(task.name)
        self._control_steps = range(task.action_repeat)
        self.metadata = {**self.metadata, "render_fps": _CONTROL_HZ // task.action_repeat}
        super().__init__(task, seed, render_mode)

    def _start_stream(self, seed: int) -> None:
        self._env.seed(seed)

    def _begin(self) -> Observation:
        observation, _ = self._env.reset()
        return observation.astype(np.float32)

    def _advance(self, action: Action) -> tuple[Observation, float, float]:
        total = 0.0
        for _ in self._control_steps:
            observation, reward, _, _, info = self._env.step(action)
            total += float(reward)
        return observation.astype(np.float32), total, float(info["success"])

    def _scene(self) -> tuple[mujoco.MjModel, mujoco.MjData, int | mujoco.MjvCamera]:
        # The simulator's own corner cameras are upside down.
        camera = mujoco.MjvCamera()
        camera.lookat[:] = (0.0, 0.65, 0.15)
        camera.azimuth, camera.elevation, camera.distance = 135.0, -25.0, 1.3
        return self._env.model, self._env.data, camera

    def close(self) -> None:
        """Frees the simulator and what rendering holds; may be called more than once."""
        super().close()
        self._env.close()
