"""Mean and standard deviation of each task's observations, read once through the data."""

from __future__ import annotations

import numpy as np

from pwm.dataset import EpisodeStore, shared_tasks
from pwm.splits import episodes_in_split
from pwm.suites import Suite

STD_FLOOR = 0.01
_CHUNK_EPISODES = 256


def observation_moments(
    store: EpisodeStore, suite: Suite | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the observations of train episodes, per task.

    Args:
        store: where the episodes are; they are read in small pieces.
        suite: gives task ids and the padded size, the store's suite by default.

    Returns:
        Mean and standard deviation, each (tasks, obs_dim) float32. The standard deviation is at
        least `STD_FLOOR`, so that an entry that never changed in the data does not turn a small
        change into a huge input. Padding, and tasks without data, have mean 0 and deviation 1.
    """
    suite = suite or store.suite
    mean = np.zeros((len(suite), suite.obs_dim), np.float32)
    std = np.ones((len(suite), suite.obs_dim), np.float32)
    for task in shared_tasks(store, suite):
        if moments := _task_moments(store, task.name):
            row = suite.id(task.name)
            mean[row, : task.obs_dim] = moments[0]
            std[row, : task.obs_dim] = np.maximum(moments[1], STD_FLOOR)
    return mean, std


def _task_moments(store: EpisodeStore, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    table, rows = store.episodes(task), store.rows(task)
    train = episodes_in_split(len(table), "train")
    if not train.any():
        return None
    count = 0
    mean = np.zeros(store.suite[task].obs_dim)
    squares = np.zeros_like(mean)
    for first in range(0, len(table), _CHUNK_EPISODES):
        entries = table[first : first + _CHUNK_EPISODES]
        start, end = entries["start"][0], entries["start"][-1] + entries["length"][-1]
        keep = np.repeat(train[first : first + _CHUNK_EPISODES], entries["length"])
        obs = rows["obs"][start:end][keep].astype(np.float64)
        if len(obs):
            # Chan, Golub and LeVeque's pairwise update: exact where a sum of squares is not.
            shift = obs.mean(0) - mean
            total = count + len(obs)
            squares += obs.var(0) * len(obs) + shift**2 * count * len(obs) / total
            mean += shift * len(obs) / total
            count = total
        store.release_pages()
    return mean, np.sqrt(squares / count)
