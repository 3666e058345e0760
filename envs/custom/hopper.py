"""The hopper, hopping backwards."""

from __future__ import annotations

from functools import partial
from math import inf

from dm_control.suite import hopper
from dm_control.utils.rewards import tolerance

from .base import loader


class _HopBackwards(hopper.Hopper):
    """Stand, and hop backwards at 1 m/s."""

    def get_reward(self, physics: hopper.Physics) -> float:
        standing = tolerance(physics.height(), (0.6, 2))
        hopping = tolerance(
            physics.speed(), (-inf, -1), margin=0.5, value_at_margin=0.5, sigmoid="linear"
        )
        return standing * hopping


TASKS = {"hopper-hop-backwards": loader(hopper.hop, partial(_HopBackwards, True))}
