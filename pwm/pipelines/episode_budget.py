"""How many episodes a task gets in the next round of growth."""

from __future__ import annotations

import math
from collections.abc import Sequence


def stalled(scores: Sequence[float], improvement: float) -> int:
    """Rounds since a task's score last rose.

    Args:
        scores: the normalized scores of the rounds so far, 0..100.
        improvement: by how much a score must exceed all before it to have risen.
    """
    best, rounds = -math.inf, 0
    for score in scores:
        rounds = 0 if score >= best + improvement else rounds + 1
        best = max(best, score)
    return rounds


def allotted(scores: Sequence[float], episodes: int, least: int, improvement: float) -> int:
    """Half as many for each round since the task's score last rose.

    Data of a task that is solved, or that its policies do not get on with, teach little that is
    new, and their collection and evaluation cost as much as any.

    Args:
        scores: as for `stalled`.
        episodes: for a task that the last round improved.
        least: for any task, so that one that could improve again is noticed.
        improvement: as for `stalled`.
    """
    return max(round(episodes / 2 ** stalled(scores, improvement)), min(least, episodes))
