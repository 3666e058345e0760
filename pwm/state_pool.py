"""Real states of one task: where imagined rollouts start, and what cloning imitates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from pwm.dataset import EpisodeStore
from pwm.errors import PwmError
from pwm.splits import episodes_in_split
from pwm.suites import Suite


@dataclass(frozen=True)
class StatePool:
    """Rows of one task's train episodes, to start imagined rollouts from or to clone.

    Attributes:
        obs: (n, obs_dim) float32, zero-padded.
        action: (n, action_dim) float32, zero-padded; what was done there.
        episode_return: (n,) float32, undiscounted return of the row's episode.
        return_to_go: (n,) float32, discounted sum of the rewards from there to the episode's end.
    """

    obs: Tensor
    action: Tensor
    episode_return: Tensor
    return_to_go: Tensor

    @classmethod
    def draw(
        cls,
        store: EpisodeStore,
        task: str,
        n: int,
        seed: int,
        *,
        suite: Suite | None = None,
        discount: float = 0.99,
        best: float = 1.0,
    ) -> StatePool:
        """Draws rows uniformly, without replacement, among those that have a successor.

        Args:
            store: where the episodes are.
            task: the task's name.
            n: rows to draw; all of them where there are fewer.
            seed: of the draw.
            suite: gives the padded sizes, the store's suite by default.
            discount: of the return to go.
            best: share of the train episodes to draw from, those of the highest return.

        Raises:
            PwmError: if the task has no train episode, or ``best`` is not in (0, 1].
        """
        if not 0 < best <= 1:
            raise PwmError(f"best is {best}; it is a share of the episodes, above 0 and up to 1.")
        suite = suite or store.suite
        table = store.episodes(task)
        chosen = np.flatnonzero(episodes_in_split(len(table), "train"))
        if not len(chosen):
            raise PwmError(f"task '{task}' has no train episode in {store.path}; collect some.")
        keep = max(1, round(best * len(chosen)))
        by_return = np.argsort(-table["return"][chosen], kind="stable")[:keep]
        chosen = np.sort(chosen[by_return])
        ends = np.cumsum(table["length"][chosen].astype(np.int64) - 1)
        rng = np.random.default_rng(seed)
        total = int(ends[-1])
        drawn = np.sort(rng.choice(total, min(n, total), replace=False, shuffle=False))
        which = np.searchsorted(ends, drawn, side="right")
        step = drawn - (ends - np.diff(ends, prepend=0))[which]
        entries = table[chosen[which]]
        rows, start = store.rows(task), entries["start"] + step
        pool = cls(
            obs=_padded(rows["obs"], start, suite.obs_dim),
            action=_padded(rows["action"], start + 1, suite.action_dim),
            episode_return=torch.from_numpy(entries["return"].astype(np.float32)),
            return_to_go=torch.from_numpy(_returns_to_go(rows, entries, step, discount)),
        )
        store.release_pages()
        return pool

    def __len__(self) -> int:
        return len(self.obs)


def _padded(field: np.ndarray, rows: np.ndarray, width: int) -> Tensor:
    out = torch.zeros(len(rows), width)
    out[:, : field.shape[1]] = torch.from_numpy(field[rows])
    return out


def _returns_to_go(
    rows: np.ndarray, entries: np.ndarray, steps: np.ndarray, discount: float
) -> np.ndarray:
    """Discounted sums of the rewards after given steps of given episodes, (n,) float32."""
    out = np.empty(len(steps), np.float32)
    begin = 0
    while begin < len(steps):
        start, length = int(entries["start"][begin]), int(entries["length"][begin])
        end = begin + int(np.searchsorted(entries["start"][begin : begin + length], start, "right"))
        reward = rows["reward"][start + 1 : start + length].astype(np.float64)
        to_go = lfilter([1.0], [1.0, -discount], reward[::-1])[::-1]
        out[begin:end] = to_go[steps[begin:end]]
        begin = end
    return out
