"""What the rounds of growth gave: rounds.json, rounds.csv, a picture a task and a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.published_scores import MULTI_TASK, published_columns
from pwm.evaluation.scores import Interval, MethodScore
from pwm.reporting import plots

_NAME = "rounds.json"
_CSV_HEADER = (
    "round", "task", "episodes_added", "episodes", "rows", "normalized_score", "normalized_low",
    "normalized_high", "return",
)  # fmt: skip


@dataclass(frozen=True)
class TaskRound:
    """One task in one round.

    Attributes:
        added: episodes that the round added to the store.
        episodes: in the store, with those.
        rows: likewise.
        normalized_score: of the round's policy, 0..100.
        normalized_ci95: its 95 % interval over episodes, or None of a single one.
        episode_return: its mean return.
    """

    added: int
    episodes: int
    rows: int
    normalized_score: float
    normalized_ci95: Interval | None
    episode_return: float


@dataclass(frozen=True)
class Round:
    """One round that is complete.

    Attributes:
        number: from 0.
        mean_normalized_score: over the tasks.
        mean_ci95: its 95 % interval, or None.
        tasks: by task name.
    """

    number: int
    mean_normalized_score: float
    mean_ci95: Interval | None
    tasks: dict[str, TaskRound]

    @classmethod
    def of(
        cls, number: int, score: MethodScore, counts: Mapping[str, tuple[int, int, int]]
    ) -> Round:
        """A round from its evaluation, and (added, episodes, rows) by task name, in their order."""
        tasks = {}
        for name, rows in counts.items():
            found = score.tasks[name]
            measured = found.normalized_score, found.normalized_ci95, found.episode_return
            tasks[name] = TaskRound(*rows, *measured)
        return cls(number, score.mean_normalized_score, score.mean_ci95, tasks)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Round:
        """Inverse of ``asdict``; KeyError, TypeError or ValueError for another shape."""
        tasks = {
            str(name): TaskRound(**{**found, "normalized_ci95": _pair(found["normalized_ci95"])})
            for name, found in entry["tasks"].items()
        }
        mean = float(entry["mean_normalized_score"])
        return cls(int(entry["number"]), mean, _pair(entry["mean_ci95"]), tasks)


def _pair(entry: Any) -> Interval | None:
    return None if entry is None else (float(entry[0]), float(entry[1]))


def read_rounds(directory: Path) -> list[Round]:
    """The rounds that are complete, none where there is no record.

    Raises:
        PwmError: if the record is damaged.
    """
    file = directory / _NAME
    if not file.is_file():
        return []
    try:
        found = [Round.from_json(entry) for entry in json.loads(file.read_bytes())["rounds"]]
        if [entry.number for entry in found] != list(range(len(found))):
            raise ValueError("a round is missing")
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise PwmError(
            f"{file} is damaged ({error!r}); put it back from a copy, or give another out=."
        ) from error
    return found


def write_rounds(directory: Path, suite: str, rounds: Sequence[Round]) -> None:
    """Write the pictures, rounds.csv, and last rounds.json, with which the last round is complete.

    Args:
        directory: where.
        suite: its name; published scores of its tasks are drawn beside.
        rounds: all so far, at least one.
    """
    curves = directory / "curves"
    curves.mkdir(exist_ok=True)
    names = list(rounds[0].tasks)
    columns = published_columns(suite, names, MULTI_TASK[:1])
    for name in names:
        found = [entry.tasks[name] for entry in rounds]
        scores = [(task.normalized_score, task.normalized_ci95) for task in found]
        _draw(curves / f"{name}.svg", name, scores, columns[0].score(name) if columns else None)
    means = [(entry.mean_normalized_score, entry.mean_ci95) for entry in rounds]
    _draw(curves / "mean.svg", "mean", means, columns[0].mean if columns else None)
    write_atomically(directory / "rounds.csv", _csv(rounds).encode())
    content = {"suite": suite, "rounds": [asdict(entry) for entry in rounds]}
    write_atomically(directory / _NAME, json.dumps(content, indent=1).encode())


def _draw(
    file: Path, name: str, scores: Sequence[tuple[float, Interval | None]], published: float | None
) -> None:
    values = np.array([score for score, _ in scores])
    ends = np.array([interval or (score, score) for score, interval in scores])
    marks = {} if published is None else {"PWM 48M, published": published}
    drawing = plots.rounds_plot(values, ends[:, 0], ends[:, 1], marks, f"{name}: score by round")
    write_atomically(file, plots.standalone(drawing).encode())


def _csv(rounds: Sequence[Round]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for entry in rounds:
        for name, task in entry.tasks.items():
            low, high = task.normalized_ci95 or ("", "")
            writer.writerow(
                [
                    *(entry.number, name, task.added, task.episodes, task.rows),
                    *(task.normalized_score, low, high, task.episode_return),
                ]
            )
    return text.getvalue()


def rounds_table(rounds: Sequence[Round]) -> Table:
    """Scores, a row a task, a column a round."""
    table = Table(title="Score by round", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", overflow="fold")
    for entry in rounds:
        table.add_column(str(entry.number), justify="right")
    for name in rounds[0].tasks:
        scores = (entry.tasks[name].normalized_score for entry in rounds)
        table.add_row(name, *(f"{score:.1f}" for score in scores))
    table.add_section()
    table.add_row("mean", *(f"{entry.mean_normalized_score:.1f}" for entry in rounds))
    return table
