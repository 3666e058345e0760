"""The simulators behind one Gymnasium face.

``make_env`` builds one of the 80 tasks, ``make_vector_env`` many of them over worker processes.
Importing this package registers every task as ``gymnasium.make("pwm/<task>")`` and imports no
simulator: dm_control and Meta-World are imported when the first environment is made.
"""

from __future__ import annotations

import gymnasium

from envs.core import SimulatorEnv
from envs.rendering import render_backend
from envs.vector import ProcessVectorEnv, make_vector_env
from pwm.suites import SUITES, get_task

__all__ = [
    "ProcessVectorEnv",
    "SimulatorEnv",
    "make_env",
    "make_vector_env",
    "register_tasks",
    "render_backend",
]


def make_env(task: str, seed: int | None = None, render_mode: str | None = None) -> SimulatorEnv:
    """Makes one environment with the task's own, unpadded spaces.

    Observations are float32 of shape ``(obs_dim,)``, actions lie in [-1, 1] with shape
    ``(action_dim,)``. A step is a decision step (two simulator control steps, rewards summed);
    an episode is truncated, never terminated, after the task's episode length.

    Args:
        task: a task name such as ``"walker-run"`` or ``"mw-push"``.
        seed: starts the random stream as ``reset(seed=seed)`` would; None takes entropy.
        render_mode: ``"rgb_array"`` for ``render()`` to return ``(240, 320, 3)`` uint8 frames.

    Raises:
        PwmError: for an unknown task or render mode, a seed out of range, or when rendering is
            asked for and no OpenGL backend works.
    """
    spec = get_task(task)
    if spec.domain == "dmcontrol":
        from envs.dmcontrol import DmControlEnv

        return DmControlEnv(spec, seed, render_mode)
    from envs.metaworld import MetaWorldEnv

    return MetaWorldEnv(spec, seed, render_mode)


def register_tasks() -> None:
    """Registers the 80 tasks with Gymnasium as ``pwm/<task>``; a repeated call does nothing."""
    for task in SUITES["mt80"]:
        name = f"pwm/{task.name}"
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point="envs:make_env", kwargs={"task": task.name})


register_tasks()
