"""Scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pwm.evaluation.published_scores import (
    describe_marks,
    marks,
    published_columns,
)
from pwm.evaluation.scores import METHOD_LABELS, Interval, Results, TaskScore

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


def results_table(results: Results, decision_ms: Mapping[str, float] | None = None) -> Table:
    """A terminal table: a row a task, a column a method, the mean at the foot.

    Args:
        results: what to show.
        decision_ms: milliseconds of a decision by method, for the caption.
    """
    baselines = {name: score for name, score in results.methods.items() if name != results.method}
    notes = ["Score: 0..100, mean over episodes; 95 %: bootstrap over episodes."]
    if decision_ms:
        times = [f"{METHOD_LABELS.get(m, m)} {ms:.3g}" for m, ms in decision_ms.items()]
        notes.append(f"Milliseconds a decision: {'; '.join(times)}.")
    label = METHOD_LABELS.get(results.method, results.method)
    table = _table(f"Suite {results.suite}: {label}, {results.episodes} episodes a task", notes)
    mean = results.policy
    table.add_column("task", footer="mean", overflow="fold", vertical="bottom")
    _number_column(table, "score", _fixed(mean.mean_normalized_score), style="bold")
    _number_column(table, "95 %", _span(mean.mean_ci95))
    _number_column(table, "return", "")
    _number_column(table, "succ.", _fixed(_mean_success(mean.tasks.values()), 2))
    for name, method in baselines.items():
        head = _TABLE_HEADS.get(name, name)
        _number_column(table, head, _fixed(method.mean_normalized_score))
    for task, score in mean.tasks.items():
        others = (method.tasks.get(task) for method in baselines.values())
        table.add_row(
            escape(task),
            _fixed(score.normalized_score),
            _span(score.normalized_ci95),
            _fixed(score.episode_return),
            _fixed(score.success_last, 2),
            *(_fixed(other.normalized_score if other else None) for other in others),
        )
    return table


def published_table(results: Results) -> Table | None:
    """A terminal table of published figures beside the score, each row marked by what differs.

    Returns:
        None where there are no published figures of any of the tasks.
    """
    columns = published_columns(results.suite, results.task_names)
    if not columns:
        return None
    differs = {task: marks(results.setting, task, columns[0].suite) for task in results.task_names}
    used = "".join(set("".join(differs.values())))
    notes = [describe_marks(results.setting, used), _ON_EXPERTS]
    table = _table("\nBeside published figures", notes)
    table.add_column("task", footer="mean", overflow="fold", vertical="bottom")
    _number_column(table, "score", _fixed(results.policy.mean_normalized_score), style="bold")
    for column in columns:
        _number_column(table, column.label.replace(" ", "\n", 1), _fixed(column.mean))
    table.add_column("diff.", vertical="bottom")
    for task, score in results.policy.tasks.items():
        figures = (_fixed(column.score(task)) for column in columns)
        table.add_row(escape(task), _fixed(score.normalized_score), *figures, differs[task])
    return table


def _table(title: str, notes: Sequence[str]) -> Table:
    return Table(
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        show_footer=True,
        title=title,
        title_justify="left",
        caption="\n".join(notes),
        caption_justify="left",
    )


def print_results(
    results: Results,
    console: Console | None = None,
    decision_ms: Mapping[str, float] | None = None,
) -> None:
    """Print the results, and published figures beside them where there are any."""
    console = console or Console()
    console.print(results_table(results, decision_ms))
    if (published := published_table(results)) is not None:
        console.print(published)


def _number_column(table: Table, header: str, footer: str, style: str | None = None) -> None:
    table.add_column(
        header, footer=footer, justify="right", no_wrap=True, vertical="bottom", style=style or ""
    )


def _mean_success(scores: Iterable[TaskScore]) -> float | None:
    defined = [score.success_last for score in scores if score.success_last is not None]
    return float(np.mean(defined)) if defined else None


def _fixed(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _span(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.0f}\N{EN DASH}{interval[1]:.0f}"
