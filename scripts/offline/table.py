"""Results as Markdown tables and a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from offline.records import Line
from offline.summary import Comparison, compare, rank_correlation

from pwm.evaluation.statistics import Interval
from pwm.reporting.templating import markdown_table

_ALL = "all kinds"
_HEAD = [
    "method", "mean", "95 %", "IQM", "95 %", "beyond the best baseline", "95 %",
    "reaches the data's best", "seconds",
]  # fmt: skip


def comparisons(lines: Sequence[Line]) -> dict[str, Comparison]:
    """By kind of data and over all, where methods have something in common."""
    kinds = list(dict.fromkeys(line.kind for line in lines))
    parts = {kind: [line for line in lines if line.kind == kind] for kind in kinds}
    if len(kinds) > 1:
        parts[_ALL] = list(lines)
    found = {name: compare(some) for name, some in parts.items()}
    return {name: comparison for name, comparison in found.items() if comparison}


def markdown(lines: Sequence[Line]) -> str:
    """All tables; a sentence where there is nothing to compare."""
    found = comparisons(lines)
    if not found:
        return "No task and seed has a result of every method yet."
    parts = [text for name, comparison in found.items() for text in _of(name, comparison)]
    shown = list(found.values())[:-1] if _ALL in found else list(found.values())
    parts += ["## By task", markdown_table(list(_by_task(shown, lines)))]
    for measure in ("expected_score", "imagined_return"):
        if correlation := rank_correlation(lines, measure):
            value, count = correlation
            name = measure.replace("_", " ")
            parts.append(f"Rank correlation of {name} with the score: {value:.2f} ({count}).")
    return "\n\n".join(parts)


def _of(name: str, comparison: Comparison) -> Iterator[str]:
    yield f"## {name.capitalize()}"
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) > 1)}"
    sentence = f"{len(comparison.cells)} tasks" if name != _ALL else (
        f"{len(comparison.cells)} pairs of kind and task"
    )  # fmt: skip
    left = comparison.left_out
    also = f"; {left} more that some method lacks are left out" if left else ""
    best = comparison.best_baseline
    baseline = f" The best baseline is {best}." if best else ""
    yield f"{sentence}, {seeds}{also}.{baseline}"
    rows = [_HEAD]
    for method, said in comparison.methods.items():
        rows.append([
            method, f"{said.mean:.1f}", _span(said.mean_interval), f"{said.iqm:.1f}",
            _span(said.iqm_interval), "" if said.beyond is None else f"{said.beyond:+.1f}",
            "" if said.beyond is None else _span(said.beyond_interval),
            f"{100 * said.reaches_best:.0f} %", f"{said.seconds:.0f}",
        ])  # fmt: skip
    yield markdown_table(rows)


def _span(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _by_task(found: Sequence[Comparison], lines: Sequence[Line]) -> Iterator[list[str]]:
    methods = list(dict.fromkeys(method for comparison in found for method in comparison.scores))
    data = {(line.kind, line.task): (line.data_mean, line.data_best) for line in lines}
    yield ["kind", "task", "data mean", "data best", *methods]
    for comparison in found:
        means = {method: scores.mean(0) for method, scores in comparison.scores.items()}
        for i, cell in enumerate(comparison.cells):
            own = [f"{means[m][i]:.1f}" if m in means else "" for m in methods]
            yield [*cell, *(f"{value:.1f}" for value in data[cell]), *own]


def picture(lines: Sequence[Line], path: Path) -> None:
    """Interquartile means with their intervals: a row of dots per kind and method, as a PNG."""
    found = comparisons(lines)
    figure = Figure(figsize=(3.2 * len(found), 3.4), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(found), sharey=True))
    for panel, (name, comparison) in zip(panels, found.items(), strict=True):
        for i, (method, said) in enumerate(reversed(comparison.methods.items())):
            low, high = said.iqm_interval or (said.iqm, said.iqm)
            colour = "C1" if said.beyond is not None else "C0"
            panel.plot([low, high], [method, method], color=colour, linewidth=5, alpha=0.35)
            panel.plot([said.iqm], [method], "o", color=colour)
            panel.annotate(f"{said.iqm:.0f}", (said.iqm, i), (0, 6), textcoords="offset points")
        panel.set(xlim=(0, 100), ylim=(-0.5, len(comparison.methods) - 0.2))
        panel.set_title(name)
        panel.set_xlabel("interquartile mean score")
    figure.savefig(path, dpi=120)
