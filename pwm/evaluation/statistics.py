"""Means, interquartile means and bootstrap intervals of scores.

Every interval is a 95 % percentile bootstrap interval; they differ in what is resampled:

- :func:`bootstrap_interval`: episodes within each task. It says how well the policies at hand were
  measured, not how much the outcome would vary over training seeds.
- :func:`pooled_interval`: seeds, the same ones for all tasks, and then episodes of each task.
- :func:`iqm_interval`: seeds within each task, for the interquartile mean, as Agarwal et al. define
  both (Deep Reinforcement Learning at the Edge of the Statistical Precipice, NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats

Interval = tuple[float, float]

_RESAMPLES = 9999
_POOLED_RESAMPLES = 4000
_RESAMPLES_AT_ONCE = 1000  # bounds memory: 80 tasks x 100 episodes x 9999 would need 640 MB


def bootstrap_interval(samples: Sequence[np.ndarray], seed: int = 0) -> Interval | None:
    """The interval of the mean over samples of each sample's mean.

    Args:
        samples: one array (n_i,) per task; values are resampled within each.
        seed: seeds the resampling; the same samples and seed give the same interval.

    Returns:
        (low, high), or None where any sample has fewer than two values: one episode says nothing
        about the spread.
    """

    def mean(*drawn: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([values.mean(axis=axis) for values in drawn], axis=0)

    return _interval(samples, mean, seed)


def iqm(scores: np.ndarray) -> float:
    """The interquartile mean: the mean of the middle half of all scores (seeds, tasks)."""
    return float(scipy.stats.trim_mean(scores, 0.25, axis=None))


def iqm_interval(scores: np.ndarray, seed: int = 0) -> Interval | None:
    """The interval of :func:`iqm`, from a bootstrap stratified over tasks.

    Args:
        scores: (seeds, tasks); each task's seeds are resampled independently of the other tasks'.
        seed: seeds the resampling.

    Returns:
        (low, high), or None of fewer than two seeds.
    """

    def trimmed(*drawn: np.ndarray, axis: int) -> np.ndarray:
        found: np.ndarray = scipy.stats.trim_mean(np.concatenate(drawn, axis), 0.25, axis=axis)
        return found

    return _interval(list(scores.T), trimmed, seed)


def _interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], seed: int
) -> Interval | None:
    if not samples or min(map(len, samples)) < 2:
        return None
    found = scipy.stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def pooled_interval(tasks: Sequence[Sequence[np.ndarray]], seed: int = 0) -> Interval | None:
    """The interval of the mean over tasks, seeds and episodes.

    A resample draws as many seeds as there are, the same for all tasks, since a seed's policies
    come from one extraction, and then episodes of each task. With the two or three seeds that there
    usually are it still says little about the spread between seeds.

    Args:
        tasks: per task, an array (episodes,) per seed.
        seed: seeds the resampling.

    Returns:
        (low, high), or None where a seed has fewer than two episodes of a task.
    """
    if min(len(episodes) for seeds in tasks for episodes in seeds) < 2:
        return None
    rng = np.random.default_rng(seed)
    count = len(tasks[0])
    drawn = rng.integers(count, size=(_POOLED_RESAMPLES, count))
    total = np.zeros(_POOLED_RESAMPLES)
    for seeds in tasks:
        for draw in drawn.T:
            for number, episodes in enumerate(seeds):
                chosen = np.flatnonzero(draw == number)
                rows = rng.integers(len(episodes), size=(len(chosen), len(episodes)))
                total[chosen] += episodes[rows].mean(1)
    low, high = np.percentile(total / (count * len(tasks)), [2.5, 97.5])
    return float(low), float(high)
