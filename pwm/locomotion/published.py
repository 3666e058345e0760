"""Published returns on locomotion tasks, as reference figures.

They (``published_curves.csv`` beside this file) follow from the result files of PWM's authors
(github.com/imgeorgiev/PWM, ``results``, MIT license): interquartile means of five seeds of PWM and
TD-MPC2 in 25 parts of each run, and the best interquartile means of PPO, SAC and SHAC, ten seeds
each, that their notebook prints, SAC's and SHAC's to two digits of PPO's. Their simulator, rewards
and episodes are others than those here, so figures are to be compared within either alone.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

_LABELS = {"pwm": "PWM", "tdmpc2": "TD-MPC2", "ppo": "PPO", "sac": "SAC", "shac": "SHAC"}


@dataclass(frozen=True)
class Published:
    """A method's published figures on a task.

    Attributes:
        label: the method.
        seeds: how many runs they are of.
        steps: of the simulator at each point of its curve; empty where only the best is known.
        returns: interquartile means there.
        best: the highest.
    """

    label: str
    seeds: int
    steps: tuple[int, ...]
    returns: tuple[float, ...]

    @property
    def best(self) -> float:
        """See the class."""
        return max(self.returns)


def published_curves(task: str) -> list[Published]:
    """What is published on a task; nothing for one that others do not have."""
    rows = [row for row in _rows() if row["task"] == task]
    return [
        _of(method, [row for row in rows if row["method"] == method]) for method in _methods(rows)
    ]


def _methods(rows: Iterable[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def _of(method: str, rows: list[dict[str, str]]) -> Published:
    steps = tuple(int(row["steps"]) for row in rows if row["steps"])
    returns = tuple(float(row["iqm"]) for row in rows)
    return Published(_LABELS[method], int(rows[0]["seeds"]), steps, returns)


@cache
def _rows() -> list[dict[str, str]]:
    source = resources.files("pwm.locomotion") / "published_curves.csv"
    return list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
