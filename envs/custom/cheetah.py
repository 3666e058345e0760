"""The cheetah running backwards, running on one pair of feet, and jumping."""

from __future__ import annotations

from functools import partial
from math import inf

from dm_control.suite import cheetah
from dm_control.utils.rewards import tolerance

from envs.custom.base import Random, loader


def _height(physics: cheetah.Physics, body: str) -> float:
    return physics.named.data.xpos[body, "z"]


def _raised(height: float) -> float:
    return tolerance(height, (1.2, inf), margin=0.6)


class RunBackwards(cheetah.Cheetah):
    """Run backwards at 8 m/s."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of a control step, in 0..1."""
        return tolerance(physics.speed(), (-inf, -8), margin=8, value_at_margin=0, sigmoid="linear")


class RunOneFooted(cheetah.Cheetah):
    """Run forwards at 6 m/s with one foot held up."""

    def __init__(self, raised_foot: str, random: Random = None) -> None:
        """Makes the task.

        Args:
            raised_foot: the body that must be off the ground, ``"bfoot"`` or ``"ffoot"``.
            random: as dm_control takes it.
        """
        super().__init__(random=random)
        self._raised_foot = raised_foot

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of a control step, in 0..1."""
        torso_up = _raised(_height(physics, "torso"))
        foot_up = _raised(_height(physics, self._raised_foot))
        up = (3 * foot_up + 2 * torso_up) / 5
        fast = tolerance(physics.speed(), (6, inf), margin=6, value_at_margin=0, sigmoid="linear")
        return up * (5 * fast + 1) / 6


class Jump(cheetah.Cheetah):
    """Get the torso and both feet high, without travelling."""

    def get_reward(self, physics: cheetah.Physics) -> float:
        """Reward of a control step, in 0..1."""
        torso = _height(physics, "torso")
        back, front = (_raised((torso + _height(physics, foot)) / 2) for foot in ("bfoot", "ffoot"))
        still = tolerance(
            physics.speed(), (-0.5, 0.5), margin=0.5, value_at_margin=0, sigmoid="linear"
        )
        return ((5 * back + still) / 6 + (5 * front + still) / 6) / 2


TASKS = {
    "cheetah-run-backwards": loader(cheetah.run, RunBackwards),
    "cheetah-run-front": loader(cheetah.run, partial(RunOneFooted, "bfoot")),
    "cheetah-run-back": loader(cheetah.run, partial(RunOneFooted, "ffoot")),
    "cheetah-jump": loader(cheetah.run, Jump),
}
