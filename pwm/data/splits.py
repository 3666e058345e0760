"""Which episodes of a task are for training and which are held out to judge the world model."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pwm.core.errors import PwmError

Split = Literal["train", "held_out", "all"]

HELD_OUT_EVERY = 20


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
