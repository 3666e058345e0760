"""The planar walker, moving backwards."""

from __future__ import annotations

from functools import partial
from math import inf

from dm_control.suite import walker
from dm_control.utils.rewards import tolerance

from .base import loader


class _Backwards(walker.PlanarWalker):
    """Stand, and move backwards at ``move_speed`` (m/s), above which the movement term is 1."""

    def get_reward(self, physics: walker.Physics) -> float:
        standing = tolerance(physics.torso_height(), (1.2, inf), margin=0.6)
        upright = (1 + physics.torso_upright()) / 2
        stand = (3 * standing + upright) / 4
        move = tolerance(
            physics.horizontal_velocity(),
            (-inf, -self._move_speed),
            margin=self._move_speed / 2,
            value_at_margin=0.5,
            sigmoid="linear",
        )
        return stand * (5 * move + 1) / 6


TASKS = {
    "walker-walk-backwards": loader(walker.walk, partial(_Backwards, 1.0)),
    "walker-run-backwards": loader(walker.run, partial(_Backwards, 8.0)),
}
