"""What the results say: means, interquartile means, intervals and paired differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from offline.plan import BASELINES
from offline.records import Line

from pwm.evaluation.statistics import Interval, bootstrap_interval, iqm, iqm_interval

Cell = tuple[str, str]
"""Kind of data, task."""


@dataclass(frozen=True)
class MethodSummary:
    """A method over some cells; intervals are stratified bootstrap ones over seeds.

    Attributes:
        mean, mean_interval, iqm, iqm_interval: of the scores.
        beyond, beyond_interval: of ours, the mean of its scores less the best baseline's of the
            same cell and seed; else None.
        reaches_best: the share of cells where the mean over seeds is at least the score of the
            data's best episode.
        seconds: median of a policy, with its share of pretraining.
    """

    mean: float
    mean_interval: Interval | None
    iqm: float
    iqm_interval: Interval | None
    beyond: float | None
    beyond_interval: Interval | None
    reaches_best: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Methods on the cells and seeds that all of them have.

    Attributes:
        cells, seeds: those.
        left_out: how many cells there are that some method lacks.
        scores: by method, (seeds, cells).
        methods: what is said of each.
        best_baseline: the one of the highest mean; None where there is none.
    """

    cells: list[Cell]
    seeds: list[int]
    left_out: int
    scores: dict[str, np.ndarray]
    methods: dict[str, MethodSummary]
    best_baseline: str | None


def compare(lines: Sequence[Line]) -> Comparison | None:
    """Compare the methods of some results; None if they have no cell and seed in common."""
    found = {(line.method, (line.kind, line.task), line.seed): line for line in lines}
    methods = _ordered({line.method for line in lines})
    every = list(dict.fromkeys((line.kind, line.task) for line in lines))
    seeds_of = {cell: _common_seeds(lines, methods, cell) for cell in every}
    cells = [cell for cell in every if seeds_of[cell]]
    seeds = sorted(set.intersection(*(seeds_of[cell] for cell in cells))) if cells else []
    if not seeds:
        return None

    def table(method: str, name: str) -> np.ndarray:
        rows = [[getattr(found[method, cell, seed], name) for cell in cells] for seed in seeds]
        return np.array(rows, np.float64)

    scores = {method: table(method, "score") for method in methods}
    baselines = [method for method in methods if method in BASELINES]
    best = max(baselines, key=lambda method: scores[method].mean()) if baselines else None
    said = {
        method: _summary(
            values,
            scores[best] if best and method not in BASELINES else None,
            table(method, "data_best"),
            table(method, "seconds") + table(method, "model_seconds"),
        )
        for method, values in scores.items()
    }
    return Comparison(cells, seeds, len(every) - len(cells), scores, said, best)


def _ordered(methods: set[str]) -> list[str]:
    """The baselines, then ours."""
    return [*(name for name in BASELINES if name in methods), *sorted(methods - set(BASELINES))]


def _common_seeds(lines: Sequence[Line], methods: Sequence[str], cell: Cell) -> set[int]:
    seeds: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        if (line.kind, line.task) == cell:
            seeds[line.method].add(line.seed)
    return set.intersection(*(seeds[method] for method in methods))


def _summary(
    scores: np.ndarray, baseline: np.ndarray | None, data_best: np.ndarray, seconds: np.ndarray
) -> MethodSummary:
    beyond = None if baseline is None else scores - baseline
    return MethodSummary(
        float(scores.mean()),
        bootstrap_interval(list(scores.T)),
        iqm(scores),
        iqm_interval(scores),
        None if beyond is None else float(beyond.mean()),
        None if beyond is None else bootstrap_interval(list(beyond.T)),
        float((scores.mean(0) >= data_best.mean(0)).mean()),
        float(np.median(seconds)),
    )


def rank_correlation(lines: Sequence[Line], measure: str) -> tuple[float, int] | None:
    """Spearman's, of scores with what runs recorded of their policies, and of how many.

    None where fewer than three policies have it, or all have the same.
    """
    pairs = [(getattr(line, measure), line.score) for line in lines]
    known = np.array([pair for pair in pairs if pair[0] is not None], np.float64)
    if len(known) < 3 or np.ptp(known, 0).min() == 0:
        return None
    return float(scipy.stats.spearmanr(*known.T).statistic), len(known)
