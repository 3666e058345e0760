"""Rank correlations of measures with scores, and how often intervals hold, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from pwm.reporting.templating import markdown_table

MEASURES = {
    "expected": "expected score",
    "low": "lower end of its interval",
    "expected_of_observations": "expected score, of observations",
    "spread": "minus the spread of the evaluations",
    "distance": "minus the distance from the data's actions",
    "imagined": "imagined return of whole episodes",
}
_FALLING = ("spread", "distance")  # the smaller the better

Line = Mapping[str, Any]


def markdown(lines: Sequence[Line]) -> str:
    """All tables of policies that were both played and measured."""
    if not lines:
        return "No policy was both played and measured yet."
    return "\n\n".join(
        [
            "## Rank correlations",
            markdown_table(list(_correlations(lines))),
            "## Intervals",
            markdown_table(list(_intervals(lines))),
            "## Policies",
            markdown_table(list(_policies(lines))),
        ]
    )


def correlation(lines: Sequence[Line], measure: str) -> tuple[float, int] | None:
    """Spearman's rank correlation with the score, and of how many; None of fewer than four."""
    both = [(x[measure], x["score"]) for x in lines if x.get(measure) is not None]
    if len(both) < 4:
        return None
    value, score = np.array(both).T
    found = scipy.stats.spearmanr(-value if measure in _FALLING else value, score)
    return float(found.statistic), len(both)


def cells(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """The lines by kind of data and task."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        found.setdefault((line["kind"], line["task"]), []).append(line)
    return found


def _correlations(lines: Sequence[Line]) -> Iterator[list[str]]:
    groups = cells(lines)
    yield ["measure", *(f"{kind} {task}" for kind, task in groups), "mean", "all together"]
    for measure, label in MEASURES.items():
        by_cell = [correlation(group, measure) for group in groups.values()]
        known = [found[0] for found in by_cell if found]
        mean = f"{np.mean(known):.2f}" if known else "-"
        yield [label, *map(_shown, by_cell), mean, _shown(correlation(lines, measure))]


def _shown(found: tuple[float, int] | None) -> str:
    return "-" if found is None else f"{found[0]:.2f} ({found[1]})"


def _intervals(lines: Sequence[Line]) -> Iterator[list[str]]:
    yield ["kind", "task", "policies", "interval holds", "score above it", "score below it"]
    for (kind, task), group in cells(lines).items():
        above = sum(x["score"] > x["high"] for x in group)
        below = sum(x["score"] < x["low"] for x in group)
        holds = len(group) - above - below
        yield [kind, task, *map(str, (len(group), holds, above, below))]


def _policies(lines: Sequence[Line]) -> Iterator[list[str]]:
    yield ["kind", "task", "policy", "score", "expected", "interval", "distance", "imagined"]
    for x in lines:
        imagined = "" if x.get("imagined") is None else f"{x['imagined']:.1f}"
        yield [
            x["kind"], x["task"], x["policy"], f"{x['score']:.1f}", f"{x['expected']:.1f}",
            f"{x['low']:.1f} to {x['high']:.1f}", f"{x['distance']:.3f}", imagined,
        ]  # fmt: skip
