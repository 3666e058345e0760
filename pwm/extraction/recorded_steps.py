"""Recorded steps of one task's whole episodes, from which policies are valued."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.data.problems import BadData, DataError
from pwm.data.ranking import success_known
from pwm.data.splits import spread_episodes
from pwm.data.store import EpisodeStore


@dataclass(frozen=True)
class RecordedSteps:
    """n steps of m train episodes, and the first states of these.

    Attributes:
        obs, next_obs: (n, obs_dim), of the task's own size, as are actions.
        action: (n, action_dim), what was done.
        following: (n, action_dim), what was done next; zero after an episode's last step.
        reward: (n,), or, of a task that is scored by success, success after the step.
        goes_on: (n,), 0 where the episode terminated, and 1 elsewhere.
        is_last: (n,), whether it is an episode's last step.
        episode: (n,), below m.
        start_obs: (m, obs_dim).
        start_action: (m, action_dim).
        outcome: (m,), an episode's return, or its success at the last step.
        is_whole: (m,), whether it took the steps of a whole episode, or terminated.
    """

    obs: Tensor
    next_obs: Tensor
    action: Tensor
    following: Tensor
    reward: Tensor
    goes_on: Tensor
    is_last: Tensor
    episode: Tensor
    start_obs: Tensor
    start_action: Tensor
    outcome: Tensor
    is_whole: Tensor

    @classmethod
    def draw(cls, store: EpisodeStore, task: str, n: int, seed: int, bad: BadData) -> RecordedSteps:
        """Draws steps uniformly, without replacement, among those of the train episodes.

        Args:
            store: the data.
            task: the task's name.
            n: steps to draw; all of them where there are fewer.
            seed: of the draw.
            bad: notes episodes that cannot be used; they are left out, or are an error.

        Raises:
            PwmError: if fewer than two episodes are there from their first step on, with their
                success if that is the score.
            DataError: for data problems that are not to be skipped.
        """
        chosen = spread_episodes(store, task, bad)
        usable = store.episodes(task)["is_piece"] == 0
        if store.suite[task].scored_by_success:
            usable &= success_known(store, task)
        chosen = chosen[usable[chosen]]
        lengths = store.episodes(task)["length"][chosen].astype(np.int64) - 1
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        drawn = np.sort(np.random.default_rng(seed).choice(total, min(n, total), replace=False))
        which = np.searchsorted(ends, drawn, side="right")
        parts: list[dict[str, np.ndarray]] = []
        for position, episode in enumerate(chosen.tolist()):
            steps = drawn[which == position] - (ends[position] - lengths[position])
            try:
                parts.append(_columns(store, task, episode, steps, len(parts)))
            except DataError as error:
                bad.note(error.problem)
        if len(parts) < 2:
            raise PwmError(
                f"{store.path} has {len(parts)} whole train episodes of {task}, and policies are "
                "valued from the first steps of at least two (with known success, if that is the "
                "score); give data that were not cut into pieces, or collect some."
            )
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return cls(**{name: torch.from_numpy(column) for name, column in columns.items()})

    def to(self, device: torch.device) -> RecordedSteps:
        """The same on a device."""
        return RecordedSteps(**{name: value.to(device) for name, value in vars(self).items()})


def _columns(
    store: EpisodeStore, task: str, index: int, steps: np.ndarray, number: int
) -> dict[str, np.ndarray]:
    recorded, known = store.checked_episode(task, index), store.suite[task]
    length = len(recorded.reward)
    reward, outcome = recorded.reward, float(recorded.reward.sum(dtype=np.float64))
    if known.scored_by_success and recorded.success is not None:
        reward, outcome = recorded.success.astype(np.float32), float(recorded.success[-1])
    later = np.concatenate([recorded.action[1:], np.zeros_like(recorded.action[:1])])
    ended: np.ndarray = np.zeros(length, np.float32)
    ended[-1] = recorded.terminated[-1]
    is_whole = length >= known.episode_length or bool(recorded.terminated[-1])
    return {
        "obs": recorded.obs[steps],
        "next_obs": recorded.obs[steps + 1],
        "action": recorded.action[steps],
        "following": later[steps],
        "reward": reward[steps].astype(np.float32),
        "goes_on": 1 - ended[steps],
        "is_last": steps == length - 1,
        "episode": np.full(len(steps), number),
        "start_obs": recorded.obs[:1],
        "start_action": recorded.action[:1],
        "outcome": np.array([outcome], np.float32),
        "is_whole": np.array([is_whole]),
    }
