"""Which windows there are: all of a horizon's windows, numbered through tasks and episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.data.episode import EPISODES_NAME
from pwm.data.problems import BadData, Problem
from pwm.data.splits import Split, episodes_in_split
from pwm.data.store import EpisodeStore


@dataclass(frozen=True)
class WindowIndex:
    """All windows of a horizon, in the order of tasks, episodes and rows.

    Attributes:
        episode_ends: (all episodes,) windows up to and with that episode.
        first_episode: (tasks,) position of the task's first episode in ``episode_ends``.
        ends: (tasks,) windows up to and with that task.
        totals: (tasks,) windows of that task; 0 where problems of its data are skipped.
        chances: (all episodes,) how much of all draws goes to windows up to and with that episode,
            in any unit; None where all windows of a task are drawn alike.
    """

    episode_ends: np.ndarray
    first_episode: np.ndarray
    ends: np.ndarray
    totals: np.ndarray
    chances: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        store: EpisodeStore,
        tasks: Sequence[Task],
        horizon: int,
        split: Split,
        excluded: dict[str, list[int]],
        bad: BadData,
    ) -> WindowIndex:
        """Numbers the windows of H = ``horizon`` steps, without ``excluded`` episodes by task.

        ``bad`` notes tasks without a single window. Raises PwmError if no task has one, or, unless
        problems are skipped, one task has none.
        """
        counts = []
        for task in tasks:
            table = store.episodes(task.name)
            windows = np.maximum(table["length"].astype(np.int64) - horizon, 0)
            windows[~episodes_in_split(len(table), split)] = 0
            windows[excluded.get(task.name, [])] = 0
            if not windows.any():
                fault = (
                    f"no episode of {horizon + 1} rows or more in split '{split}' ({len(table)} "
                    "episodes in all)"
                )
                if not bad.skips:
                    mend = "collect more, lower the horizon"
                    if split == "held_out" and len(table) == 1:
                        mend = "one of them is held out, so collect two or more"
                    raise PwmError(
                        f"task '{task.name}' has {fault} of {store.path}; {mend}, or leave "
                        "the task out of the suite."
                    )
                file = str(store.path / task.name / EPISODES_NAME)
                bad.note(Problem(file, task.name, None, fault))
            counts.append(windows)
        episodes = np.array([len(windows) for windows in counts])
        totals = np.array([windows.sum() for windows in counts])
        if not totals.any():
            raise PwmError(f"no task has a window of {horizon + 1} rows in {store.path}.")
        first_episode = np.cumsum(episodes) - episodes
        return cls(np.cumsum(np.concatenate(counts)), first_episode, np.cumsum(totals), totals)

    def locate(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the windows' episodes in ``episode_ends``, and their first rows therein."""
        episodes = np.searchsorted(self.episode_ends, windows, side="right")
        before = np.where(episodes > 0, self.episode_ends[episodes - 1], 0)
        return episodes, windows - before

    def tasks_of(self, windows: np.ndarray) -> np.ndarray:
        """Positions of the windows' tasks."""
        return np.searchsorted(self.ends, windows, side="right")

    def draw(self, rng: np.random.Generator, tasks: np.ndarray) -> np.ndarray:
        """Draws one window of each given task, by its position."""
        if self.chances is None:
            return (self.ends - self.totals)[tasks] + rng.integers(self.totals[tasks])
        last = np.append(self.first_episode[1:], len(self.chances)) - 1
        ends = self.chances[last]
        begins = np.concatenate([[0.0], ends[:-1]])
        at = begins[tasks] + rng.random(len(tasks)) * (ends - begins)[tasks]
        at = np.minimum(at, np.nextafter(ends, 0.0)[tasks])  # which rounding may have reached
        episodes = np.searchsorted(self.chances, at, side="right")
        windows = np.diff(self.episode_ends, prepend=0)[episodes]
        return self.episode_ends[episodes] - windows + rng.integers(windows)

    def weighted(self, weights: np.ndarray) -> WindowIndex:
        """The same windows, those of a task drawn as often as their episode's weight says.

        Args:
            weights: (all episodes,) of each window of an episode, positive.
        """
        windows = np.diff(self.episode_ends, prepend=0)
        return replace(self, chances=np.cumsum(windows * weights))
