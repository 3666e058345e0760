"""What observations lose as float32, in which they are stored and learned from."""

from __future__ import annotations

import numpy as np

_SHARE = 0.01
_SMALLEST_RANGE = 1e-4  # what varies less than that is noise of a constant
_HALF_STEP = 2.0**-25  # of float32, as a share of the number that is rounded, at least


def lost_in_float32(lowest: np.ndarray, highest: np.ndarray) -> list[int]:
    """Which entries float32 rounds by more than a hundredth of the range that they have.

    Args:
        lowest: (obs_dim,) float64, of an episode.
        highest: likewise.

    Returns:
        Their positions: of times since 1970, for instance, or of coordinates on the globe.
    """
    spread = np.asarray(highest, np.float64) - lowest
    rounding = np.maximum(np.abs(lowest), np.abs(highest)) * _HALF_STEP
    return np.flatnonzero((spread > _SMALLEST_RANGE) & (rounding > _SHARE * spread)).tolist()


def lost_sentence(task: str, entries: list[int]) -> str:
    """What to tell of observations that lose that much."""
    which = ", ".join(map(str, entries[:8])) + (", ..." if len(entries) > 8 else "")
    return (
        f"observations of '{task}' are stored as float32, which rounds away what varies in entry "
        f"{which} (counted from 0): the numbers are large and change little. Subtract a constant, "
        "such as the value at the start, in the environment and the data alike, or leave it out."
    )
