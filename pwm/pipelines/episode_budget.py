"""How many episodes a task gets in the next round of growth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pwm.core.validation import require_at_least, require_choice
from pwm.simulation.sac_config import LEARNERS


def stalled(scores: Sequence[float], improvement: float) -> int:
    """Rounds since a task's score, 0..100, last exceeded all before it by ``improvement``."""
    best, rounds = -math.inf, 0
    for score in scores:
        rounds = 0 if score >= best + improvement else rounds + 1
        best = max(best, score)
    return rounds


def next_episode_budget(
    scores: Sequence[float], episodes: int, least: int, improvement: float
) -> int:
    """Halve a task's budget for each round since its score last improved.

    More data of a task that is solved, or whose policies do not improve, add little that is new,
    and their collection and evaluation cost as much as any.

    Args:
        scores: normalized scores of the rounds so far, 0..100.
        episodes: for a task that the last round improved.
        least: for any task, so that one that could improve again is noticed.
        improvement: as for `stalled`.
    """
    return max(round(episodes / 2 ** stalled(scores, improvement)), min(least, episodes))


@dataclass
class StalledConfig:
    """An agent's training episodes for tasks on which growth has stalled at a low score.

    Each round that finds a task so adds as many, of one agent, which goes on to learn.

    Attributes:
        episodes: per task and round; 0 for none, ever.
        behaviour: ``sac`` or ``tqc``; how it learns is in ``collect.sac``.
        after: rounds in which the task's score has not risen.
        below: best score so far, 0..100, from which on a task gets none.
    """

    episodes: int = 0
    behaviour: str = "sac"
    after: int = 2
    below: float = 50.0

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 0, "episodes", "below")
        require_at_least(self, 1, "after")
        require_choice(self, "behaviour", LEARNERS)

    def wanted(self, scores: Sequence[float], improvement: float) -> int:
        """All of the agent's episodes after the next round, 0 if it is to make none in it."""
        due = [self._due(scores[: n + 1], improvement) for n in range(len(scores))]
        return self.episodes * sum(due) if due and due[-1] else 0

    def _due(self, scores: Sequence[float], improvement: float) -> bool:
        return stalled(scores, improvement) >= self.after and max(scores) < self.below
