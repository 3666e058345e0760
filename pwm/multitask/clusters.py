"""Tasks in groups: distances between them, a hierarchy, and how clear the groups are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist, squareform

QUANTILES = np.linspace(0.1, 0.9, 9)


class Clustering(NamedTuple):
    """Groups of K tasks.

    Attributes:
        labels: (K,) the group of each task, numbered by first appearance.
        silhouette: of these groups; None of fewer than two.
        silhouettes: by the number of groups, of every number that was tried.
        merges: (K - 1, 4), the hierarchy as `scipy.cluster.hierarchy.linkage` gives it.
    """

    labels: np.ndarray
    silhouette: float | None
    silhouettes: dict[int, float]
    merges: np.ndarray


def cluster(distance: np.ndarray, number: int | None = None) -> Clustering:
    """Cut the hierarchy of average linkage into groups.

    Args:
        distance: (K, K), symmetric.
        number: of groups; by default that with the largest silhouette.
    """
    count = len(distance)
    if count < 2:
        return Clustering(np.zeros(count, int), None, {}, np.empty((0, 4)))
    merges = linkage(squareform(distance, checks=False), "average")
    cuts = {k: _cut(merges, k) for k in range(2, count)}
    scores = {k: silhouette(distance, labels) for k, labels in cuts.items()}
    if number is None:
        number = max(scores, key=lambda k: scores[k]) if scores else 1
    labels = _cut(merges, min(number, count))
    found = None if len(np.unique(labels)) < 2 else silhouette(distance, labels)
    return Clustering(labels, found, scores, merges)


def _cut(merges: np.ndarray, number: int) -> np.ndarray:
    """(K,) labels of a number of groups, numbered by first appearance."""
    labels = cut_tree(merges, n_clusters=number).ravel()
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order: np.ndarray = first.argsort().argsort()[inverse]
    return order


def silhouette(distance: np.ndarray, labels: np.ndarray) -> float:
    """The mean silhouette (Rousseeuw 1987), -1 to 1: how much nearer a task's own group is.

    Args:
        distance: (K, K).
        labels: (K,), of at least two groups; a task that is alone in one counts as 0.
    """
    groups = np.unique(labels)
    member = labels == groups[:, None]
    totals, sizes = distance @ member.T, member.sum(1)
    own = np.searchsorted(groups, labels)
    rows = np.arange(len(labels))
    alone = sizes[own] == 1
    inside = totals[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = totals / sizes
    means[rows, own] = np.inf
    nearest = means.min(1)
    larger = np.maximum(inside, nearest)
    score = np.divide(nearest - inside, larger, out=np.zeros_like(larger), where=larger > 0)
    return float(np.where(alone, 0.0, score).mean())


def by_angle(cosine: np.ndarray) -> np.ndarray:
    """Distances 1 - cosine, (K, K)."""
    return _symmetric(1 - cosine)


def by_place(places: np.ndarray) -> np.ndarray:
    """Euclidean distances of places (K, n), (K, K)."""
    return squareform(pdist(places))


def by_gain(gain: np.ndarray) -> np.ndarray:
    """Distances by what updates on one task are to another, (K, K), 0 to 2.

    Args:
        gain: (K, K), ``gain[i, j]`` what updates on task i are to task j. A task's gains are
            divided by the largest of them in size, so that easy and hard ones count the same.
    """
    largest = np.abs(gain).max(0)
    scaled = np.divide(gain, largest, out=np.zeros_like(gain), where=largest > 0)
    return _symmetric(1 - scaled)


def by_data_map(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Distances of the distributions of two numbers of each task's samples, (K, K).

    Tasks have different samples, so what is compared is nine quantiles of the logarithms, by the
    root of their mean squared difference.

    Args:
        mean: (K, samples) of losses over training.
        deviation: (K, samples), likewise.
    """
    both = np.log10(np.stack([mean, deviation]).clip(min=1e-12))
    features = np.concatenate(np.quantile(both, QUANTILES, axis=-1).transpose(1, 0, 2))
    return by_place(features.T) / np.sqrt(len(features))


def principal_places(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (K, n) on their first two principal components.

    Returns:
        Places (K, 2), and the shares of the variance that the two components have, (2,).
    """
    centred = rows - rows.mean(0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(rows), 2))
    shares = np.zeros(2)
    kept = min(2, len(size))
    places[:, :kept] = left[:, :kept] * size[:kept]
    if (total := np.square(size).sum()) > 0:
        shares[:kept] = np.square(size[:kept]) / total
    return places, shares


def _symmetric(distance: np.ndarray) -> np.ndarray:
    both = ((distance + distance.T) / 2).clip(min=0)
    np.fill_diagonal(both, 0.0)
    return both
