"""Observations that are angles and grow without bound, of which only the direction matters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch

from pwm.core.suites import Task

_ENTRIES = {"reacher": 0, "cheetah": 1, "hopper": 1}
"""Of dm_control's domains: the shoulder, and the pitch of the torso."""

_Array = TypeVar("_Array", np.ndarray, torch.Tensor)


def angle_periods(tasks: Iterable[Task], obs_dim: int) -> torch.Tensor:
    """What may be added to each entry of an observation without a change of meaning.

    Args:
        tasks: the rows of the result.
        obs_dim: its columns; an observation is padded to them.

    Returns:
        (tasks, obs_dim) float32, 2 pi where an entry is an unbounded angle, and 0 elsewhere.
    """
    rows = list(tasks)
    periods = torch.zeros(len(rows), obs_dim)
    for row, task in enumerate(rows):
        body = task.name.split("-", 1)[0]
        if task.domain == "dmcontrol" and body in _ENTRIES:
            periods[row, _ENTRIES[body]] = 2 * math.pi
    return periods


def wrapped(obs: _Array, period: _Array) -> _Array:
    """Angles within half a period of 0, and all other entries as they are.

    Args:
        obs: (..., obs_dim).
        period: of each entry, as :func:`angle_periods` gives it; broadcast.
    """
    return obs - period * (obs / period.clip(1)).round()
