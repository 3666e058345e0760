"""Real states of one task: where imagined rollouts start, and what cloning imitates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor

from pwm.bad_data import BadData, DataError, Problem
from pwm.dataset import ROWS_NAME, EpisodeStore
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
        bad: BadData | None = None,
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
            bad: told of episodes that cannot be read or hold values that they may not hold; their
                rows are left out, or are an error.

        Raises:
            PwmError: if the task has no (good) train episode, or ``best`` is not in (0, 1].
            DataError: for bad data that are not to be left out.
        """
        if not 0 < best <= 1:
            raise PwmError(f"best is {best}; it is a share of the episodes, above 0 and up to 1.")
        suite, bad = suite or store.suite, bad or BadData()
        table = store.episodes(task)
        train = episodes_in_split(len(table), "train")
        train[bad.episodes(task)] = False
        chosen = np.flatnonzero(train)
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
        positions, begins = np.unique(which, return_index=True)
        parts = [
            _states(store, task, episode, steps, discount, bad)
            for episode, steps in zip(
                chosen[positions].tolist(), np.split(step, begins[1:]), strict=True
            )
        ]
        good = [part for part in parts if part is not None]
        if not good:
            raise PwmError(
                f"task '{task}' has no episode in {store.path} that can be used: {bad.summary()}"
            )
        obs, action, episode_return, return_to_go = map(np.concatenate, zip(*good, strict=True))
        return cls(
            obs=_padded(obs, suite.obs_dim),
            action=_padded(action, suite.action_dim),
            episode_return=torch.from_numpy(episode_return),
            return_to_go=torch.from_numpy(return_to_go),
        )

    def __len__(self) -> int:
        return len(self.obs)


def _states(
    store: EpisodeStore, task: str, episode: int, steps: np.ndarray, discount: float, bad: BadData
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Observation, action, episode's return and return to go at steps of one episode.

    None if the episode is bad.
    """
    try:
        recorded = store.episode(task, episode)
    except DataError as error:
        bad.note(error.problem)
        return None
    if fault := recorded.fault(store.suite[task]):
        bad.note(Problem(str(store.path / task / ROWS_NAME), task, episode, fault))
        return None
    reward = recorded.reward.astype(np.float64)
    to_go = lfilter([1.0], [1.0, -discount], reward[::-1])[::-1]
    total = np.full(len(steps), store.episodes(task)["return"][episode], np.float32)
    return recorded.obs[steps], recorded.action[steps], total, to_go[steps].astype(np.float32)


def _padded(values: np.ndarray, width: int) -> Tensor:
    out = torch.zeros(len(values), width)
    out[:, : values.shape[1]] = torch.from_numpy(values)
    return out
