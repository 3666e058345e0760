"""What a policy takes as observations: the environment's own, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.suites import Task


def as_observations(obs: Any, task: Task) -> Tensor:
    """Observations of a task as float32, (obs_dim,) or (..., obs_dim), on the device they are on.

    Raises:
        PwmError: for what is no array of numbers of this size, or is not finite.
    """
    given = obs.float() if isinstance(obs, Tensor) else _from_numpy(obs, task)
    if given.shape[-1:] != (task.obs_dim,):
        raise PwmError(
            f"the policy of {task.name} takes observations of size {task.obs_dim}, "
            f"got an array of shape {tuple(given.shape)}."
        )
    if bad := _not_finite(given):
        raise PwmError(
            f"the observation for the policy of {task.name} has {bad} of {given.numel()} entries "
            "that are NaN or infinite; give finite numbers (did the simulation become unstable?)."
        )
    return given


def require_finite_action(action: Tensor, obs: Tensor, task: Task) -> None:
    """Raise PwmError for an action that is not finite, of observations that are."""
    if _not_finite(action):
        raise PwmError(
            f"the policy of {task.name} gives NaN for observations of up to {obs.abs().max():.3g}; "
            "give observations such as it was trained on, or a policy whose training converged."
        )


def _not_finite(values: Tensor) -> int:
    return int((~torch.isfinite(values)).sum())


def _from_numpy(obs: Any, task: Task) -> Tensor:
    if isinstance(obs, Mapping):
        raise PwmError(
            f"the policy of {task.name} takes one array of {task.obs_dim} numbers, got a "
            f"dictionary of {', '.join(map(str, obs)) or 'nothing'}; flatten it as the data were: "
            "gymnasium.spaces.flatten(env.observation_space, obs)."
        )
    if isinstance(obs, tuple) and any(isinstance(part, Mapping) for part in obs):
        raise PwmError(
            f"the policy of {task.name} takes the observation alone, got a tuple with a "
            "dictionary, such as env.reset() returns: obs, info = env.reset()."
        )
    try:
        # A copy: torch takes no read-only or reversed arrays, which simulators and users have.
        return torch.from_numpy(np.array(obs, np.float32))
    except (TypeError, ValueError) as error:
        raise PwmError(
            f"the policy of {task.name} takes an array of {task.obs_dim} numbers, and what it got "
            f"({type(obs).__name__}) is none; give env.step's or env.reset's observation."
        ) from error
