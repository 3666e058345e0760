"""Which of a task's recorded episodes are the best, given where each of them started."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pwm.data.cut_episodes import cut_episodes
from pwm.data.store import EpisodeStore

_UPPER = 0.9  # of expectiles: near 1 for the best that any episode made of a start
_RIDGE = 0.1  # of a standardized feature's variance; where starts predict little, returns decide
_MOST_FITS = 30
_MOST_FEATURES = 2048  # of which a square matrix is small whatever the number of episodes


def best_first(store: EpisodeStore, task: str) -> np.ndarray:
    """Indices of a task's episodes, (episodes,), the best first.

    Where success at the last step is the score, those that succeed come first, then those of which
    it is not known. Each kind is ordered by :func:`surplus`, since the highest returns alone are
    often those of the luckiest starts, such as goals that are near. In a sample with pieces of
    episodes, whose starts are not known, the episodes that it kept whole come first, and returns
    order the rest. Among episodes of several lengths those that were cut short come last, by their
    mean reward (:func:`pwm.data.cut_episodes.cut_episodes`).

    Raises:
        DataError: if the episodes' table or starts cannot be read.
    """
    table = store.episodes(task)
    merit = table["return"].astype(np.float64)
    cut, is_piece = np.zeros(len(table), bool), table["is_piece"]
    if not is_piece.any() and len(np.unique(table["length"])) > 1:
        cut = cut_episodes(store, store.suite[task])
        merit[cut] /= table["length"][cut] - 1.0
    if not is_piece.any():
        start = np.empty((len(table), store.suite[task].obs_dim))
        for i, first in enumerate(table["start"].tolist()):
            start[i] = store.rows(task, first, first + 1)["obs"][0]
        merit[~cut] = surplus(start[~cut], merit[~cut])
    succeeds = table["success_last"] + 0.5 * ~success_known(store, task)
    succeeds *= store.suite[task].scored_by_success
    return np.lexsort((-merit, 1 - succeeds, is_piece | cut))  # by its last key first


def surplus(start: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """What outcomes exceed the best that is to be expected from such starts by.

    Expected is an upper expectile (asymmetric least squares, Newey & Powell 1987) that is linear in
    a start's values and their squares, with a ridge penalty.

    Args:
        start: (n, features).
        outcome: (n,).

    Returns:
        (n,), in the units of the outcome; minus infinity where a value is not finite.
    """
    known = np.isfinite(outcome) & np.isfinite(start).all(1)
    result = np.full(len(outcome), -np.inf)
    if not known.any():
        return result
    start, y = start[known], outcome[known]
    few = 2 * start.shape[1] <= max(len(y), _MOST_FEATURES)
    residual_of = (_residual_by_features if few else _residual_by_episodes)(start)
    above = np.zeros(len(y), bool)
    for _ in range(_MOST_FITS):
        weight = np.where(above, _UPPER, 1 - _UPPER)
        residual = residual_of(y, weight / weight.sum())
        if np.array_equal(above, residual > 0):
            break
        above = residual > 0
    result[known] = residual
    return result


Residual = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(n,) of a weighted ridge regression of (n,) on features of starts, whose mean is not penalized.

The arguments are the outcomes (n,) and weights (n,) that sum to one.
"""


def _residual_by_features(start: np.ndarray) -> Residual:
    """By a matrix of (features, features), for starts (n, obs_dim)."""
    features = _standardized(np.concatenate([start, start**2], 1))

    def residual(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        x, y = features - weight @ features, y - weight @ y
        gram = (x * weight[:, None]).T @ x + _RIDGE * np.eye(x.shape[1])
        return y - x @ np.linalg.solve(gram, x.T @ (weight * y))

    return residual


def _residual_by_episodes(start: np.ndarray) -> Residual:
    """The same by a matrix of (n, n), the dual form, for observations of very many entries."""
    kernel = np.zeros((len(start), len(start)))
    for first in range(0, start.shape[1], _MOST_FEATURES):
        part = start[:, first : first + _MOST_FEATURES]
        for x in (_standardized(part), _standardized(part**2)):
            kernel += x @ x.T

    def residual(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mean = kernel @ weight
        centered = kernel - mean - mean[:, None] + weight @ mean
        y, root = y - weight @ y, np.sqrt(weight)
        gram = root[:, None] * centered * root + _RIDGE * np.eye(len(y))
        return y - centered @ (root * np.linalg.solve(gram, root * y))

    return residual


def _standardized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)


def success_known(store: EpisodeStore, task: str) -> np.ndarray:
    """Of which of a task's episodes it is known whether they succeeded, (episodes,) bool.

    The episodes of a source that says ``"success_known": False`` are among those where it is not.
    """
    table = store.episodes(task)
    silent = [i for i, s in enumerate(store.sources.values()) if s.get("success_known") is False]
    known: np.ndarray = (table["success_unknown"] == 0) & ~np.isin(table["source"], silent)
    return known
