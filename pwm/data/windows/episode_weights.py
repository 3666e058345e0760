"""How often an episode's windows are drawn: recent and surprising ones more often than others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.validation import require_positive, require_share


@dataclass
class SamplingConfig:
    """Which windows of a task are drawn more often; the share that is left goes to all alike.

    Attributes:
        recency: the share of a task's windows that is drawn from its newest episodes.
        half_life: episodes, counted back from a task's newest, over which the chance of these
            halves.
        surprise: the share that is drawn in proportion to the error with which the world model
            that training starts from predicts an episode.
    """

    recency: float = 0.0
    half_life: float = 20.0
    surprise: float = 0.0

    @property
    def in_use(self) -> bool:
        """Whether windows are not all drawn alike."""
        return bool(self.recency or self.surprise)

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_share(self, "recency", "surprise")
        require_positive(self, "half_life")
        if self.recency + self.surprise > 1:
            raise PwmError(
                f"recency={self.recency:g} and surprise={self.surprise:g} are shares of the same "
                "windows; have them add up to 1 at most."
            )


def episode_weights(config: SamplingConfig, windows: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """How often each window of a task's episodes is drawn, (episodes,), of all its windows.

    Args:
        config: the shares.
        windows: (episodes,) how many each has.
        errors: (episodes,) positive, of the predictions of each.
    """
    if not windows.any():
        return np.ones(len(windows))
    age = np.flatnonzero(windows)[-1] - np.arange(len(windows))
    # Of the oldest no less than sums of float64 still notice: every window has a chance.
    recent = np.exp2(-np.maximum(age, 0) / config.half_life).clip(1e-9)
    rest = 1 - config.recency - config.surprise
    parts = (rest, np.ones(len(windows))), (config.recency, recent), (config.surprise, errors)
    weights: np.ndarray = sum(share * w / (windows * w).sum() for share, w in parts)
    return weights
