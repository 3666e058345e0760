"""Replays of K tasks on the learner's device: a ring of padded transitions per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pwm.simulation.agents_config import row_width


class Transitions(NamedTuple):
    """Of K tasks; observations and actions are padded with zeros.

    Attributes:
        obs, after: (K, B, obs_dim) observations before and after a step.
        action: (K, B, action_dim).
        reward, terminated: (K, B) float32.
    """

    obs: Tensor
    after: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor


class Replay:
    """A ring per task, of which all have a place for each place in time.

    Args:
        tasks: K.
        capacity: transitions per task.
        obs_dim: padded size of observations.
        action_dim: padded size of actions.
        device: where it is.
    """

    def __init__(
        self, tasks: int, capacity: int, obs_dim: int, action_dim: int, device: torch.device
    ) -> None:
        self.capacity, self._obs_dim, self._action_dim = capacity, obs_dim, action_dim
        self._rows = torch.zeros(tasks, capacity, row_width(obs_dim, action_dim), device=device)

    def row(
        self,
        obs: np.ndarray,
        after: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
    ) -> np.ndarray:
        """Unpadded transitions, (n, ...), as (n, width) float32."""
        rows = np.zeros((len(obs), self._rows.shape[-1]), np.float32)
        o, a = self._obs_dim, self._action_dim
        rows[:, : obs.shape[-1]] = obs
        rows[:, o : o + after.shape[-1]] = after
        rows[:, 2 * o : 2 * o + action.shape[-1]] = action
        rows[:, 2 * o + a] = reward
        rows[:, 2 * o + a + 1] = terminated
        return rows

    def add(self, members: Sequence[int], place: int, rows: np.ndarray) -> None:
        """Puts (M, n, width) rows of some tasks at the places from ``place`` on.

        ``n`` divides the capacity, and the place.
        """
        at = place % self.capacity
        fresh = torch.from_numpy(rows).to(self._rows.device, non_blocking=True)
        if len(members) == len(self._rows):
            self._rows[:, at : at + rows.shape[1]] = fresh
        else:
            chosen = torch.tensor(members, device=self._rows.device)
            self._rows[chosen, at : at + rows.shape[1]] = fresh

    def fill(self, member: int, places: np.ndarray, rows: np.ndarray, end: int) -> None:
        """Puts (n, width) rows of a task at places below ``end``, unless newer ones hold them."""
        kept = places >= end - self.capacity
        at = torch.from_numpy(places[kept] % self.capacity).to(self._rows.device)
        self._rows[member, at] = torch.from_numpy(rows[kept]).to(self._rows.device)

    def take(self, members: Tensor, indices: Tensor) -> Transitions:
        """Transitions (M, B) of some tasks by their indices in the ring, (M, B)."""
        flat = self._rows.flatten(0, 1)
        at = (members.unsqueeze(1) * self.capacity + indices).flatten()
        rows = flat.index_select(0, at).view(*indices.shape, -1)
        sizes = [self._obs_dim, self._obs_dim, self._action_dim, 1, 1]
        obs, after, action, reward, terminated = rows.split(sizes, -1)
        return Transitions(obs, after, action, reward.squeeze(-1), terminated.squeeze(-1))
