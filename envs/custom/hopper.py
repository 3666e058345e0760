"""The hopper, hopping backwards."""

from __future__ import annotations

from math import inf

from dm_control.suite import hopper
from dm_control.utils.rewards import tolerance

from envs.custom.base import Random, loader


class HopBackwards(hopper.Hopper):
    """Stand, and hop backwards at 1 m/s."""

    def __init__(self, random: Random = None) -> None:
        """Makes the task; ``random`` is as dm_control takes it."""
        super().__init__(hopping=True, random=random)

    def get_reward(self, physics: hopper.Physics) -> float:
        """Reward of a control step, in 0..1."""
        standing = tolerance(physics.height(), (0.6, 2))
        hopping = tolerance(
            physics.speed(), (-inf, -1), margin=0.5, value_at_margin=0.5, sigmoid="linear"
        )
        return standing * hopping


TASKS = {"hopper-hop-backwards": loader(hopper.hop, HopBackwards)}
