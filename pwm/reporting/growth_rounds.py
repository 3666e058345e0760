"""Scores and data by round of growth: rounds.json, rounds.csv, a picture per task and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.evaluation.published_scores import published_columns
from pwm.evaluation.results_csv import csv_table
from pwm.evaluation.scores import MethodScore
from pwm.evaluation.statistics import Interval
from pwm.reporting import plots, svg

_NAME = "rounds.json"
_CSV_HEADER = (
    "round", "task", "episodes_added", "episodes", "rows", "normalized_score", "normalized_low",
    "normalized_high", "return",
)  # fmt: skip
_BESIDE = "pwm-48M"  # the published method that is drawn beside


@dataclass(frozen=True)
class TaskRound:
    """One task in one round."""

    added: int  # episodes that the round added to the store
    episodes: int  # in the store, with those
    rows: int  # in the store, likewise
    normalized_score: float  # of the round's policy, 0..100
    normalized_ci95: Interval | None  # its 95 % interval over episodes, or None of a single one
    episode_return: float  # its mean return
    best_before: float | None = None
    """The best policy's score on this round's episodes, where it had been scored on others."""


@dataclass(frozen=True)
class Round:
    """One round that is complete."""

    number: int  # from 0
    mean_normalized_score: float  # over the tasks
    mean_ci95: Interval | None  # its 95 % interval, or None
    tasks: dict[str, TaskRound]  # by task name
    seeds: tuple[int, ...] = ()  # of the episodes that scored it; not known of before

    @classmethod
    def of(
        cls,
        number: int,
        score: MethodScore,
        counts: Mapping[str, tuple[int, int, int]],
        seeds: Sequence[int] = (),
        best_before: Mapping[str, float] | None = None,
    ) -> Round:
        """A round that is complete.

        Args:
            number: from 0.
            score: of its policies.
            counts: (added, episodes, rows) by task name, in their order.
            seeds: of the episodes that scored it.
            best_before: by task name, see :class:`TaskRound`.
        """
        tasks = {}
        for name, rows in counts.items():
            found = score.tasks[name]
            measured = found.normalized_score, found.normalized_ci95, found.episode_return
            tasks[name] = TaskRound(*rows, *measured, (best_before or {}).get(name))
        return cls(number, score.mean_normalized_score, score.mean_ci95, tasks, tuple(seeds))


def read_rounds(directory: Path) -> list[Round]:
    """The rounds that are complete, none where there is no record.

    Raises:
        PwmError: if the record is damaged.
    """
    file = directory / _NAME
    if not file.is_file():
        return []
    try:
        found = msgspec.convert(json.loads(file.read_bytes())["rounds"], list[Round])
        if [entry.number for entry in found] != list(range(len(found))):
            raise ValueError("a round is missing")
    except (OSError, LookupError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise PwmError(
            f"{file} is damaged ({reason}); put it back from a copy, or give another out=."
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
    published = published_columns(suite, names, [_BESIDE]).get(_BESIDE)
    drawn: dict[str, list[tuple[float, Interval | None]]] = {
        name: [(r.tasks[name].normalized_score, r.tasks[name].normalized_ci95) for r in rounds]
        for name in names
    }
    drawn["mean"] = [(entry.mean_normalized_score, entry.mean_ci95) for entry in rounds]
    for name, scores in drawn.items():
        beside = None
        if published is not None:
            beside = published.mean if name == "mean" else published.scores.get(name)
        values = np.array([score for score, _ in scores])
        ends = np.array([interval or (score, score) for score, interval in scores])
        alt = f"{name}: score by round"
        drawing = plots.rounds_plot(values, ends[:, 0], ends[:, 1], beside, alt)
        write_atomically(curves / f"{name}.svg", svg.standalone(drawing).encode())
    rows = [
        (
            *(entry.number, name, task.added, task.episodes, task.rows, task.normalized_score),
            *(*(task.normalized_ci95 or (None, None)), task.episode_return),
        )
        for entry in rounds
        for name, task in entry.tasks.items()
    ]
    write_atomically(directory / "rounds.csv", csv_table(_CSV_HEADER, rows))
    content = {"suite": suite, "rounds": [asdict(entry) for entry in rounds]}
    write_atomically(directory / _NAME, json.dumps(content, indent=1).encode())


def rounds_table(rounds: Sequence[Round]) -> Table:
    """Scores: a row per task, a column per round."""
    table = Table(title="Score by round", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", overflow="fold")
    for entry in rounds:
        table.add_column(str(entry.number), justify="right")
    for name in rounds[0].tasks:
        scores = (entry.tasks[name].normalized_score for entry in rounds)
        table.add_row(name, *(f"{score:z.1f}" for score in scores))
    table.add_section()
    table.add_row("mean", *(f"{entry.mean_normalized_score:z.1f}" for entry in rounds))
    return table
