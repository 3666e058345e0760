"""The simulators behind one Gymnasium interface.

``make_env`` makes one of the 80 tasks or a user's own, ``make_vector_env`` many of them in worker
processes. Importing this package registers every task as ``gymnasium.make("pwm/<task>")``, and
imports no simulator: the first environment that is made does.
"""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium

from pwm.core.suites import SUITES

from .core import SimulatorEnv, TaskEnv
from .gymnasium_task import GymnasiumEnv, check_spaces
from .make import make_env
from .rendering import render_backend, render_candidates
from .seeding import follows_seeds
from .sources import environment_sources
from .vector import TaskVectorEnv, make_vector_env

__all__ = [
    "GymnasiumEnv",
    "SimulatorEnv",
    "TaskEnv",
    "TaskVectorEnv",
    "check_spaces",
    "environment_sources",
    "follows_seeds",
    "make_env",
    "make_vector_env",
    "register_tasks",
    "render_backend",
    "render_candidates",
]


def register_tasks() -> None:
    """Registers the 80 tasks with Gymnasium as ``pwm/<task>``; a repeated call does nothing."""
    for task in SUITES["mt80"]:
        name = f"pwm/{task.name}"
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{__name__}:make_env", kwargs={"task": task.name})


def __getattr__(name: str) -> Any:
    """The name that TaskVectorEnv had before, with a warning."""
    if name != "ProcessVectorEnv":
        raise AttributeError(f"module 'envs' has no attribute '{name}'")
    warnings.warn(
        "envs.ProcessVectorEnv goes with version 0.3; use envs.TaskVectorEnv.",
        DeprecationWarning,
        stacklevel=2,
    )
    return TaskVectorEnv


register_tasks()
