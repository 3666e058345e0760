"""Settings of how policies are valued from recorded data."""

from __future__ import annotations

from dataclasses import dataclass

from pwm.core.validation import require_at_least, require_positive


@dataclass
class ScoreEstimateConfig:
    """How policies are valued from recorded steps.

    Attributes:
        members: evaluations, each with features of its own and of episodes drawn anew with
            replacement; their spread is part of the interval.
        features: random features of a state and an action.
        rows: recorded steps of a task, drawn once.
        ridge: penalty of the regressions, in units of a feature's mean square.
    """

    members: int = 6
    features: int = 128
    rows: int = 4096
    ridge: float = 1e-3

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 2, "members")
        require_at_least(self, 1, "features", "rows")
        require_positive(self, "ridge")
