"""Scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pwm.core.counted import counted
from pwm.core.protocols import describe_protocols
from pwm.evaluation.published_scores import mark_rows, published_columns
from pwm.evaluation.scores import METHOD_LABELS, SUCCESS_MEASURES, Results
from pwm.evaluation.statistics import Interval

_ON_EXPERTS = (
    "Experts are agents of one task each, trained online; `pwm report` says more of every column."
)
_TABLE_HEADS = {
    "planner+actor": "plan\nactor",
    "planner": "plan\nQ",
    "bc": "BC\nall",
    "bc_best": "BC\nbest",
    "data_mean": "data\nmean",
    "data_best": "data\nbest",
}
_Column = tuple[str, str, list[str]]  # head, foot and an entry per task


def results_table(results: Results, decision_ms: Mapping[str, float] | None = None) -> Table:
    """A terminal table: a row per task, a column per method, the mean at the foot.

    Args:
        results: what to show.
        decision_ms: milliseconds of a decision by method, for the caption.
    """
    notes = ["Score: 0..100, mean over episodes; 95 %: bootstrap over episodes."]
    if told := describe_protocols(results.setting.protocols):
        notes.append(told)
    if decision_ms:
        times = [f"{METHOD_LABELS.get(m, m)} {ms:.3g}" for m, ms in decision_ms.items()]
        notes.append(f"Milliseconds per decision: {'; '.join(times)}.")
    mean, scores = results.policy, list(results.policy.tasks.values())
    successes = [score.success_last for score in scores if score.success_last is not None]
    columns: list[_Column] = [
        _score_column(results),
        ("95 %", _span(mean.mean_ci95), [_span(score.normalized_ci95) for score in scores]),
        ("return", "", [fixed(score.episode_return) for score in scores]),
        (
            "succ.",
            fixed(float(np.mean(successes)) if successes else None, 2),
            [fixed(score.success_last, 2) for score in scores],
        ),
    ]
    for name, method in list(results.methods.items())[1:]:
        found = (method.tasks.get(task) for task in results.task_names)
        cells = [fixed(score.normalized_score if score else None) for score in found]
        columns.append((_TABLE_HEADS.get(name, name), fixed(method.mean_normalized_score), cells))
    label = METHOD_LABELS.get(results.method, results.method)
    title = f"Suite {results.suite}: {label}, {counted(results.episodes, 'episode')} per task"
    return _table(title, notes, results.task_names, columns)


def success_table(results: Results) -> Table | None:
    """A terminal table of how the tasks that are scored by success turned out in other measures.

    Returns:
        None where there is no such task.
    """
    scores = {t: s for t, s in results.policy.tasks.items() if s.success_last is not None}
    if not scores:
        return None
    columns: list[_Column] = []
    heads = ("last step", "any step", "steps to success", "return")
    for head, (name, digits) in zip(heads, SUCCESS_MEASURES.items(), strict=True):
        values: list[float | None] = [getattr(score, name) for score in scores.values()]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if known and digits == 2 else None
        cells = [fixed(value, digits) for value in values]
        columns.append((head, fixed(mean, digits) if mean is not None else "", cells))
    notes = ["Steps to the first success: mean over the episodes that succeed, in decision steps."]
    return _table("\nSuccess, beside the score's last step", notes, list(scores), columns)


def published_table(results: Results) -> Table | None:
    """A terminal table of published figures beside the score, each row marked by what differs.

    Returns:
        None where there are no published figures of any of the tasks.
    """
    tasks = results.task_names
    published = published_columns(results.suite, tasks)
    if not published:
        return None
    differs, legend = mark_rows(results.setting, tasks, published)
    columns = [_score_column(results)]
    for column in published.values():
        cells = [fixed(column.scores.get(task)) for task in tasks]
        columns.append((column.label.replace(" ", "\n", 1), fixed(column.mean), cells))
    columns.append(("diff.", "", list(differs.values())))
    return _table("\nBeside published figures", [legend, _ON_EXPERTS], tasks, columns)


def print_results(
    results: Results,
    console: Console | None = None,
    decision_ms: Mapping[str, float] | None = None,
) -> None:
    """Print the results, measures of success and published figures where there are any."""
    console = console or Console()
    console.print(results_table(results, decision_ms))
    if (successes := success_table(results)) is not None:
        console.print(successes)
    if (published := published_table(results)) is not None:
        console.print(published)


def _score_column(results: Results) -> _Column:
    scores = results.policy.tasks.values()
    mean = fixed(results.policy.mean_normalized_score)
    return "score", mean, [fixed(score.normalized_score) for score in scores]


def _table(
    title: str, notes: Sequence[str], tasks: Sequence[str], columns: Sequence[_Column]
) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        show_footer=True,
        title=title,
        title_justify="left",
        caption="\n".join(notes),
        caption_justify="left",
    )
    table.add_column("task", footer="mean", overflow="fold", vertical="bottom")
    for head, foot, _ in columns:
        table.add_column(
            *(head, foot),
            justify="left" if head == "diff." else "right",
            style="bold" if head == "score" else None,
            no_wrap=True,
            vertical="bottom",
        )
    for task, *cells in zip(tasks, *(cells for _, _, cells in columns), strict=True):
        table.add_row(escape(task), *cells)
    return table


def fixed(value: float | None, digits: int = 1) -> str:
    """A number with some digits; a dash for None."""
    return "-" if value is None else f"{value:z.{digits}f}"


def _span(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:z.0f}\N{EN DASH}{interval[1]:z.0f}"
