"""An environment in a worker process, which signals the pool at every step that it is alive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np

from pwm.core.progress import console
from pwm.core.suites import Task
from pwm.core.worker_pool import Caller

_IGNORES_SEEDS = (
    "{0} ignores seeds: two episodes of '{1}' that were reset with seed 0 begin differently. So no "
    "episode can be repeated, and methods are not compared on the same ones; in its reset call "
    "super().reset(seed=seed) and draw from self.np_random."
)


class WatchedEnv(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray]):
    """A task's environment that signals its worker's caller before it resets or steps.

    ``part`` is which of the job's parts this environment's episode is.
    """

    def __init__(self, task: Task, caller: Caller, part: int = 0) -> None:
        from pwm.envs import make_env

        self._caller, self._part = caller, part
        super().__init__(make_env(task))

    def reset(self, **options: Any) -> Any:
        """See ``gymnasium.Env.reset``."""
        self._caller.at(self._part)
        return self.env.reset(**options)

    def step(self, action: np.ndarray) -> Any:
        """See ``gymnasium.Env.step``."""
        self._caller.at(self._part)
        return self.env.step(action)


def require_environments(tasks: Iterable[Task]) -> tuple[Task, ...]:
    """The tasks, those that are user-defined with their environments' action bounds.

    An environment whose episodes do not follow from their seeds is named in a line.

    Raises:
        PwmError: if the environment of a user-defined task cannot be made or does not fit it.
            Those of the suites are this project's own and are not tried.
    """
    return tuple(_tried(task) if task.domain == "gymnasium" else task for task in tasks)


def _tried(task: Task) -> Task:
    from pwm.envs import follows_seeds, make_env

    env = make_env(task)
    try:
        if not follows_seeds(env):
            console.print(_IGNORES_SEEDS.format(task.env_id, task.name), markup=False)
    finally:
        env.close()
    return env.task
