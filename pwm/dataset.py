"""The name that ``pwm.data`` had before; it goes with version 0.3."""

import warnings

from pwm.data.episode import Episode
from pwm.data.store import EpisodeStore

__all__ = ["Episode", "EpisodeStore"]

warnings.warn(
    "pwm.dataset goes with version 0.3; use `from pwm import Episode, EpisodeStore`.",
    DeprecationWarning,
    stacklevel=2,
)
