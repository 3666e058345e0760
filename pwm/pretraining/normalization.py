"""Mean and standard deviation of each task's observations."""

from __future__ import annotations

import numpy as np

from pwm.core.suites import Suite
from pwm.data.episode import ROWS_NAME
from pwm.data.problems import BadData, DataError, Problem
from pwm.data.shared_tasks import shared_tasks
from pwm.data.splits import spread_episodes
from pwm.data.store import EpisodeStore
from pwm.models.angles import angle_periods, wrapped

STD_FLOOR = 0.01
OUTGROWN = 2.0
_CHUNK_EPISODES = 256


def observation_moments(
    store: EpisodeStore,
    suite: Suite | None = None,
    bad: BadData | None = None,
    wrap_angles: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the observations of train episodes, per task.

    Of tasks with more than 131,072 rows every second, third, ... episode is taken.

    Args:
        store: where the episodes are; they are read one by one.
        suite: gives task ids and the padded size, the store's suite by default.
        bad: told of observations that are not finite; they are left out, or are an error.
        wrap_angles: take angles that grow without bound as :func:`pwm.models.angles.wrapped` gives
            them.

    Returns:
        Mean and standard deviation, each (tasks, obs_dim) float32. The standard deviation is at
        least `STD_FLOOR`, so that an entry that never changed in the data does not turn a small
        change into a huge input. Padding, and tasks without data, have mean 0 and deviation 1.

    Raises:
        DataError: for bad data that are not to be left out.
    """
    suite, bad = suite or store.suite, bad or BadData()
    mean = np.zeros((len(suite), suite.obs_dim), np.float32)
    std = np.ones((len(suite), suite.obs_dim), np.float32)
    periods = angle_periods(suite, suite.obs_dim).numpy() * wrap_angles
    for task in shared_tasks(store, suite):
        row = suite.id(task.name)
        if moments := _task_moments(store, task.name, periods[row, : task.obs_dim], bad):
            mean[row, : task.obs_dim] = moments[0]
            std[row, : task.obs_dim] = np.maximum(moments[1], STD_FLOOR)
    return mean, std


def widened_moments(
    store: EpisodeStore,
    suite: Suite,
    mean: np.ndarray,
    std: np.ndarray,
    bad: BadData | None = None,
    wrap_angles: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Moments that stay as they are where they still fit the data.

    A model that was trained on normalized observations and is trained on should get the same
    inputs as before. But an entry that hardly moved in the first data, and was divided by next to
    nothing, would be a huge input once it moves. So an entry gets the moments of today's data if
    its mean has moved or its deviation has grown beyond `OUTGROWN` of its deviations.

    Args:
        store: today's data.
        suite: gives task ids and the padded size.
        mean: (tasks, obs_dim), of earlier data.
        std: likewise.
        bad: as for :func:`observation_moments`.
        wrap_angles: likewise.

    Returns:
        Mean and standard deviation, each (tasks, obs_dim) float32.
    """
    new_mean, new_std = observation_moments(store, suite, bad, wrap_angles)
    moved = np.abs(new_mean - mean) > OUTGROWN * std
    with_data = np.zeros((len(suite), 1), bool)
    with_data[[suite.id(task.name) for task in shared_tasks(store, suite)]] = True
    outgrown = with_data & (moved | (new_std > OUTGROWN * std))
    return np.where(outgrown, new_mean, mean), np.where(outgrown, new_std, std)


def _task_moments(
    store: EpisodeStore, task: str, period: np.ndarray, bad: BadData
) -> tuple[np.ndarray, np.ndarray] | None:
    chosen = spread_episodes(store, task, bad)
    count = 0
    mean = np.zeros(store.suite[task].obs_dim)
    squares = np.zeros_like(mean)
    for episodes in np.split(chosen, np.flatnonzero(np.diff(chosen // _CHUNK_EPISODES)) + 1):
        parts = [_finite_obs(store, task, episode, bad) for episode in episodes.tolist()]
        obs = wrapped(np.concatenate(parts), period) if parts else np.empty((0, len(mean)))
        if len(obs):
            # Chan, Golub and LeVeque's pairwise update: exact where a sum of squares is not.
            shift = obs.mean(0) - mean
            total = count + len(obs)
            squares += obs.var(0) * len(obs) + shift**2 * count * len(obs) / total
            mean += shift * len(obs) / total
            count = total
    return (mean, np.sqrt(squares / count)) if count else None


def _finite_obs(store: EpisodeStore, task: str, episode: int, bad: BadData) -> np.ndarray:
    """The observations of an episode but for those that are not finite, float64."""
    entry = store.episodes(task)[episode]
    start = int(entry["start"])
    try:
        obs = store.rows(task, start, start + int(entry["length"]))["obs"].astype(np.float64)
    except DataError as error:
        bad.note(error.problem)
        return np.empty((0, store.suite[task].obs_dim))
    finite = np.isfinite(obs).all(1)
    if not finite.all():
        file = str(store.path / task / ROWS_NAME)
        bad.note(Problem(file, task, episode, "NaN or infinite observation"))
    return obs[finite]
