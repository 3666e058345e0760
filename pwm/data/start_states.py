"""Real states of one task: where imagined rollouts start, what cloning imitates, what followed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.data.problems import BadData, DataError
from pwm.data.ranking import best_first
from pwm.data.splits import episodes_in_split
from pwm.data.store import EpisodeStore


@dataclass(frozen=True)
class StatePool:
    """Rows of one task's train episodes, to start imagined rollouts from or to clone.

    For a piece of an episode, as a packed store may hold, the end is the piece's and the return the
    whole episode's.

    Attributes:
        obs: (n, obs_dim) float32, zero-padded.
        action: (n, action_dim) float32, zero-padded; what was done there.
        episode_return: (n,) float32, undiscounted return of the row's episode.
        return_to_go: (n,) float32, discounted sum of the rewards from there to the episode's end.
        steps_to_go: (n,) float32, the same sum of ones; without an end for an episode that
            terminated, since what would have followed counts as steps without reward.
        next_obs: (n, obs_dim) float32, what was observed ``ahead`` steps later, or at the end.
        reward: (n,) float32, discounted sum of the rewards on the way there, or of symlog(reward).
        next_discount: (n,) float32, discount to the power of the steps on the way there; 0 where
            the episode terminated there.
    """

    obs: Tensor
    action: Tensor
    episode_return: Tensor
    return_to_go: Tensor
    steps_to_go: Tensor
    next_obs: Tensor
    reward: Tensor
    next_discount: Tensor

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
        newest: float = 1.0,
        ahead: int = 1,
        symlog_rewards: bool = False,
        bad: BadData | None = None,
    ) -> StatePool:
        """Draws rows uniformly, without replacement, among those that have a successor.

        Args:
            store: where the episodes are.
            task: the task's name.
            n: rows to draw; all of them where there are fewer.
            seed: of the draw.
            suite: gives the padded sizes, the store's suite by default.
            discount: of sums of rewards.
            best: share of the train episodes to draw from, the best of them
                (:func:`pwm.data.ranking.best_first`).
            newest: share of the train episodes among which these are chosen, those recorded last.
            ahead: how many steps later the next observation is.
            symlog_rewards: whether ``reward`` sums symlog(reward) in the place of rewards.
            bad: notes episodes that cannot be read or hold values that they may not hold; their
                rows are skipped, or are an error.

        Raises:
            PwmError: if the task has no (good) train episode, or a share is not in (0, 1].
            DataError: for data problems that are not to be skipped.
        """
        for name, share in (("best", best), ("newest", newest)):
            if not 0 < share <= 1:
                raise PwmError(
                    f"{name} is {share}; it is a share of the episodes, above 0 and up to 1."
                )
        suite, bad = suite or store.suite, bad or BadData()
        table = store.episodes(task)
        train = episodes_in_split(len(table), "train")
        train[bad.episodes(task)] = False
        chosen = np.flatnonzero(train)
        chosen = chosen[-max(1, round(newest * len(chosen))) :]
        if not len(chosen):
            raise PwmError(f"task '{task}' has no train episode in {store.path}; collect some.")
        if best < 1:
            ranked = best_first(store, task)
            keep = max(1, round(best * len(chosen)))
            chosen = np.sort(ranked[np.isin(ranked, chosen)][:keep])
        ends = np.cumsum(table["length"][chosen].astype(np.int64) - 1)
        rng = np.random.default_rng(seed)
        total = int(ends[-1])
        drawn = np.sort(rng.choice(total, min(n, total), replace=False, shuffle=False))
        which = np.searchsorted(ends, drawn, side="right")
        step = drawn - (ends - np.diff(ends, prepend=0))[which]
        positions, begins = np.unique(which, return_index=True)
        sums = discount, ahead, symlog_rewards
        good = []
        steps_of = zip(chosen[positions].tolist(), np.split(step, begins[1:]), strict=True)
        for episode, steps in steps_of:
            try:
                good.append(_states(store, task, episode, steps, sums))
            except DataError as error:
                bad.note(error.problem)
        if not good:
            raise PwmError(
                f"task '{task}' has no episode in {store.path} that can be used: {bad.summary()}"
            )
        columns = {name: np.concatenate([part[name] for part in good]) for name in good[0]}
        sizes = {"obs": suite.obs_dim, "next_obs": suite.obs_dim, "action": suite.action_dim}
        for name, size in sizes.items():
            columns[name] = np.pad(columns[name], ((0, 0), (0, size - columns[name].shape[1])))
        return cls(
            **{k: torch.from_numpy(v.astype(np.float32, copy=False)) for k, v in columns.items()}
        )

    def __len__(self) -> int:
        return len(self.obs)


def discounted_to_go(values: np.ndarray, discount: float) -> np.ndarray:
    """(T,) discounted sums of (T,) values from each step to the end."""
    from scipy.signal import lfilter  # slow to import

    return lfilter([1.0], [1.0, -discount], values[::-1])[::-1]


def _states(
    store: EpisodeStore, task: str, episode: int, steps: np.ndarray, sums: tuple[float, int, bool]
) -> dict[str, np.ndarray]:
    """The fields of :class:`StatePool` for some steps of one episode, unpadded."""
    discount, ahead, symlog_rewards = sums

    def to_go(values: np.ndarray) -> np.ndarray:
        """(T + 1,) discounted sums of (T,) values from each step to the end; the last is zero."""
        return np.append(discounted_to_go(values, discount), 0.0)

    recorded = store.checked_episode(task, episode)
    reward = recorded.reward.astype(np.float64)
    learned = np.sign(reward) * np.log1p(np.abs(reward)) if symlog_rewards else reward
    later = np.minimum(steps + ahead, len(reward))
    next_discount = discount ** (later - steps)
    learned_to_go = to_go(learned)
    steps_to_go, bootstrap = to_go(np.ones(len(reward)))[steps], next_discount
    if recorded.terminated[-1]:
        bootstrap = np.where(later == len(reward), 0.0, next_discount)
        if discount < 1:
            steps_to_go = np.full(len(steps), 1 / (1 - discount))
    return {
        "obs": recorded.obs[steps],
        "action": recorded.action[steps],
        "episode_return": np.full(len(steps), store.episodes(task)["return"][episode]),
        "return_to_go": to_go(reward)[steps],
        "steps_to_go": steps_to_go,
        "next_obs": recorded.obs[later],
        "reward": learned_to_go[steps] - next_discount * learned_to_go[later],
        "next_discount": bootstrap,
    }
