"""The eleven tasks of the benchmark that dm_control does not have, one file per domain.

Physics, initial states, observations, time limits and control timesteps are those of the stock
domain unless the domain's file says otherwise. A control step's reward is in 0..1.
"""

from __future__ import annotations

from . import ball_in_cup, cheetah, hopper, pendulum, reacher, walker
from .base import TaskLoader

CUSTOM_TASKS: dict[str, TaskLoader] = {
    **walker.TASKS,
    **cheetah.TASKS,
    **hopper.TASKS,
    **reacher.TASKS,
    **ball_in_cup.TASKS,
    **pendulum.TASKS,
}
"""Task name to a function from ``random`` (as dm_control takes it) to the environment."""
