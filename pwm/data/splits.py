"""Which episodes of a task are for training and which are held out to judge the world model."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from pwm.core.errors import PwmError
from pwm.data.problems import BadData
from pwm.data.store import EpisodeStore

Split = Literal["train", "held_out", "all"]

HELD_OUT_EVERY = 20

_ROWS = 2**17  # of a task are enough; to read all of hundreds of millions takes many minutes


def episodes_in_split(count: int, split: Split) -> np.ndarray:
    """Marks which of a task's ``count`` episodes belong to a split, (count,) bool.

    Every 20th episode is held out, so appending to a store never moves an episode from one side
    to the other; of 2 to 19 episodes the last one is held out.
    """
    if split not in get_args(Split):
        raise PwmError(f"unknown split '{split}'; it is one of {', '.join(get_args(Split))}.")
    if split == "all":
        return np.ones(count, bool)
    held_out = np.zeros(count, bool)
    held_out[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] = True
    if 2 <= count < HELD_OUT_EVERY:
        held_out[-1] = True
    return held_out if split == "held_out" else ~held_out


def spread_episodes(store: EpisodeStore, task: str, bad: BadData) -> np.ndarray:
    """Train episodes that are not known to be bad, evenly spread where they are very many.

    Of tasks with more than 131,072 rows every second, third, ... episode is taken.

    Returns:
        (n,) their numbers, ascending.
    """
    table = store.episodes(task)
    train = episodes_in_split(len(table), "train")
    train[bad.episodes(task)] = False
    chosen = np.flatnonzero(train)
    return chosen[:: math.ceil(table["length"][chosen].sum() / _ROWS) or 1]
