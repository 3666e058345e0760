"""Which values the rows of an episode may hold."""

from __future__ import annotations

import numpy as np

ACTION_LIMIT = 1 + 1e-6  # actions lie in [-1, 1] but for rounding


def all_good(obs: np.ndarray, action: np.ndarray, reward: np.ndarray) -> bool:
    """Whether contiguous arrays hold no bad value for sure; False calls for a closer look.

    It takes a tenth of the time of looking at each value: a sum of squares is finite if all values
    are and none is huge.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sums = [np.dot(values.ravel(), values.ravel()) for values in (obs, reward)]
        inside = action.min() >= -ACTION_LIMIT and action.max() <= ACTION_LIMIT
    return bool(np.isfinite(sums).all() and inside)


def bad_observations(obs: np.ndarray) -> np.ndarray:
    """Which observations (..., obs_dim) no row may hold, (...) bool."""
    return ~np.isfinite(obs).all(-1)


def bad_steps(action: np.ndarray, reward: np.ndarray) -> np.ndarray:
    """Which actions (..., action_dim) and rewards (...) no step may have, (...) bool."""
    return ~((np.abs(action) <= ACTION_LIMIT).all(-1) & np.isfinite(reward))
