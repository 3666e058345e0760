"""How a custom task takes the place of a stock one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from dm_control.rl import control
from dm_control.suite.base import Task

Random: TypeAlias = np.random.RandomState | int | None
TaskLoader: TypeAlias = Callable[[Random], control.Environment]

_CONTROL_STEPS = 1000


def loader(stock: Callable[[], control.Environment], task: Callable[[Random], Task]) -> TaskLoader:
    """A loader of an environment with a stock one's physics and timing and another task.

    Args:
        stock: makes the stock environment; its episodes are 1000 control steps long.
        task: makes the task from ``random``.
    """

    def load(random: Random) -> control.Environment:
        env = stock()
        timestep = env.control_timestep()
        return control.Environment(
            env.physics,
            task(random),
            time_limit=_CONTROL_STEPS * timestep,
            control_timestep=timestep,
        )

    return load
