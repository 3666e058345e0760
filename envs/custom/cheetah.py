"""The cheetah running backwards, running on one pair of feet, and jumping."""

from __future__ import annotations

from functools import partial
from math import inf

from dm_control.suite import cheetah
from dm_control.utils.rewards import tolerance

from .base import Random, loader


def _height(physics: cheetah.Physics, body: str) -> float:
    return physics.named.data.xpos[body, "z"]


def _raised(height: float) -> float:
    return tolerance(height, (1.2, inf), margin=0.6)


class _RunBackwards(cheetah.Cheetah):
    """Run backwards at 8 m/s."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        return tolerance(physics.speed(), (-inf, -8), margin=8, value_at_margin=0, sigmoid="linear")


class _RunOneFooted(cheetah.Cheetah):
    """Run forwards at 6 m/s with one foot, the body ``"bfoot"`` or ``"ffoot"``, held up."""

    def __init__(self, raised_foot: str, random: Random = None) -> None:
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        torso_up = _raised(_height(physics, "torso"))
        foot_up = _raised(_height(physics, self._raised_foot))
        up = (3 * foot_up + 2 * torso_up) / 5
        fast = tolerance(physics.speed(), (6, inf), margin=6, value_at_margin=0, sigmoid="linear")
        return up * (5 * fast + 1) / 6


class _Jump(cheetah.Cheetah):
    """Get the torso and both feet high, without travelling."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        torso = _height(physics, "torso")
        back, front = (_raised((torso + _height(physics, foot)) / 2) for foot in ("bfoot", "ffoot"))
        still = tolerance(
            physics.speed(), (-0.5, 0.5), margin=0.5, value_at_margin=0, sigmoid="linear"
        )
        return ((5 * back + still) / 6 + (5 * front + still) / 6) / 2


TASKS = {
    "cheetah-run-backwards": loader(cheetah.run, _RunBackwards),
    "cheetah-run-front": loader(cheetah.run, partial(_RunOneFooted, "bfoot")),
    "cheetah-run-back": loader(cheetah.run, partial(_RunOneFooted, "ffoot")),
    "cheetah-jump": loader(cheetah.run, _Jump),
}
