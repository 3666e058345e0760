"""An episode written down while it is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pwm.data.episode import Episode


class EpisodeRecorder:
    """What happens in one episode, step by step.

    Args:
        obs: (obs_dim,) that it begins with.
    """

    def __init__(self, obs: np.ndarray) -> None:
        self._obs, self._steps = [obs.copy()], list[tuple[np.ndarray, float, bool, bool]]()
        self._success_known = True

    def __len__(self) -> int:
        return len(self._steps)

    def add(
        self,
        action: np.ndarray,
        obs: np.ndarray,
        reward: float,
        terminated: bool,
        info: Mapping[str, Any],
    ) -> None:
        """Take in a step: an action and what the environment gave, ``success`` in its info."""
        self._obs.append(obs.copy())
        self._steps.append((action.copy(), reward, terminated, info["success"] > 0))
        self._success_known = info.get("success_known", True)

    def episode(self, seed: int, behaviour: str = "unknown") -> Episode:
        """The steps so far, at least one, as an episode."""
        columns = (np.array(column) for column in zip(*self._steps, strict=True))
        actions, rewards, terminations, successes = columns
        return Episode(
            obs=np.array(self._obs),
            action=actions,
            reward=rewards.astype(np.float32),
            terminated=terminations,
            success=successes if self._success_known else None,
            behaviour=behaviour,
            seed=seed,
        )
