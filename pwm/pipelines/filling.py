"""Where growth has stalled on a task, an agent that explores for itself fills in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pwm.core.validation import require_at_least, require_choice
from pwm.pipelines.episode_budget import stalled
from pwm.simulation.sac_collection import LEARNERS


@dataclass
class FillConfig:
    """An agent's training episodes for tasks on which growth has stalled at a low score.

    Each round that finds a task so adds as many, of one agent, which goes on to learn.

    Attributes:
        episodes: a task and round; 0 for none, ever.
        behaviour: ``sac`` or ``tqc``; how it learns is in ``collect.sac``.
        after: rounds in which the task's score has not risen.
        below: best score so far, 0..100, from which on a task is left alone.
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
        """The agent's episodes after the next round, 0 where it has none to make in it.

        Args:
            scores: as `pwm.pipelines.episode_budget.stalled` takes them.
            improvement: likewise.
        """
        due = [self._due(scores[: n + 1], improvement) for n in range(len(scores))]
        return self.episodes * sum(due) if due and due[-1] else 0

    def _due(self, scores: Sequence[float], improvement: float) -> bool:
        return stalled(scores, improvement) >= self.after and max(scores) < self.below
