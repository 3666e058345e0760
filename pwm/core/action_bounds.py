"""The bounds of the actions of a user-defined task's environment.

Everything that learns or acts in this project has actions in [-1, 1]. What these stand for in the
environment is kept in its `pwm.core.suites.Task`, where it is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pwm.core.errors import PwmError

if TYPE_CHECKING:
    from pwm.core.suites import Task

_SAME = 1e-5  # relative; bounds are often float32


def bounds_fault(low: Sequence[float], high: Sequence[float], action_dim: int) -> str | None:
    """Why these are no lowest and highest action of so many entries, or None if they are."""
    if len(low) != action_dim or len(high) != action_dim:
        return f"{len(low)} lowest and {len(high)} highest values for {action_dim} action entries"
    for least, most in zip(low, high, strict=True):
        if not -math.inf < least < most < math.inf:
            return f"{least:g} must be below {most:g}, and both finite"
    return None


def shown(values: Iterable[float] | None) -> str:
    """Bounds in a message, such as ``[-2, 2]``."""
    return "unknown" if values is None else f"[{', '.join(f'{value:g}' for value in values)}]"


def with_bounds(task: Task, low: Any, high: Any) -> Task:
    """A task with the bounds of its environment's actions, sequences of ``action_dim`` numbers.

    Raises:
        PwmError: if they cannot be bounds, or the task states others.
    """
    least, most = (tuple(float(value) for value in bound) for bound in (low, high))
    if fault := bounds_fault(least, most, task.action_dim):
        raise PwmError(
            f"the action bounds given for task '{task.name}' cannot be used ({fault}); give the "
            "low and high of its environment's action space."
        )
    stated = (*(task.action_low or least), *(task.action_high or most))
    if not all(map(_are_same, (*least, *most), stated)):
        raise PwmError(
            f"task '{task.name}' has actions from {shown(least)} to {shown(most)} here and is "
            f"recorded with {shown(task.action_low)} to {shown(task.action_high)}, so the same "
            "number would be another action; use the environment, data and policies of one task."
        )
    return replace(task, action_low=least, action_high=most)


def _are_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)


def as_known_by(task: Task, other: Task) -> Task:
    """A task with the action bounds that another record of it states, if that states any."""
    if other.action_low is None:
        return task
    return with_bounds(task, other.action_low, other.action_high)
