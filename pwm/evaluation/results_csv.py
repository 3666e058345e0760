"""Scores as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pwm.core.files import write_atomically
from pwm.evaluation.scores import Results

_CSV_HEADER = (
    "suite", "method", "task", "episodes", "normalized_score", "normalized_low", "normalized_high",
    "return", "return_low", "return_high", "success_last", "success_any", "steps_to_success",
)  # fmt: skip


def write_csv(results: Results, path: str | Path) -> None:
    """Write results.csv atomically: one row per method and task; what is not defined is empty."""
    rows = [
        (
            *(results.suite, method, task, len(score.returns) or None),
            *(score.normalized_score, *(score.normalized_ci95 or (None, None))),
            *(score.episode_return, *(score.return_ci95 or (None, None))),
            *(score.success_last, score.success_any, score.steps_to_success),
        )
        for method, scores in results.methods.items()
        for task, score in scores.tasks.items()
    ]
    write_atomically(Path(path), csv_table(_CSV_HEADER, rows))


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV; None is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()
