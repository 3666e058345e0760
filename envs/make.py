"""One environment of a task, whichever simulator runs it."""

from __future__ import annotations

from pwm.core.errors import PwmError
from pwm.core.suites import Task, get_task

from .core import SimulatorEnv, TaskEnv


def make_env(task: str | Task, seed: int | None = None, render_mode: str | None = None) -> TaskEnv:
    """Makes one environment with the task's own, unpadded spaces.

    Observations are float32 of shape ``(obs_dim,)``, actions lie in [-1, 1] with shape
    ``(action_dim,)``. A step is a decision step (in the suites two simulator control steps,
    rewards summed). An episode is truncated after the task's episode length; only a
    user-defined task may terminate it before.

    Args:
        task: a task name such as ``"walker-run"`` or ``"mw-push"``, the path of a file that
            describes one (:mod:`pwm.core.task_files`), or a task.
        seed: starts the random stream as ``reset(seed=seed)`` would; None takes entropy.
        render_mode: ``"rgb_array"`` for ``render()`` to return ``(240, 320, 3)`` uint8 frames.

    Raises:
        PwmError: for an unknown task or render mode, a seed out of range, when rendering is
            asked for and no OpenGL backend works, or when a user-defined task's environment cannot
            be made or has other sizes than the task.
    """
    spec = task if isinstance(task, Task) else get_task(task)
    if spec.domain == "gymnasium":
        from .gymnasium_task import GymnasiumEnv

        return GymnasiumEnv(spec, seed, render_mode)
    return _simulator(spec)(spec, seed, render_mode)


def _simulator(task: Task) -> type[SimulatorEnv]:
    try:
        if task.domain == "dmcontrol":
            from .dmcontrol import DmControlEnv

            return DmControlEnv
        from .metaworld import MetaWorldEnv

        return MetaWorldEnv
    except ModuleNotFoundError as error:
        raise PwmError(
            f"{task.name} is played in a simulator, and {error.name} is not installed; "
            "pip install 'pwm-worldmodels[sim]'."
        ) from error
