"""One look for every progress bar: what, how far, how fast, how long yet.

Where no terminal shows it, as in a log file, a line says so now and then.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True, markup=False)  # brackets in a path are no markup
SECONDS_BETWEEN_LINES = 30.0  # where no terminal shows a bar


class RateColumn(ProgressColumn):
    """Completed units a second."""

    def render(self, task: Task) -> Text:
        """The rate as text, empty before the first step."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


class LoggedProgress(Progress):
    """Prints a line of a task that goes on, at most every SECONDS_BETWEEN_LINES."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._told = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As of the bar."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As of the bar."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        if time.monotonic() - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = time.monotonic()
        task = next(task for task in self.tasks if task.id == task_id)
        if not task.finished:
            self.console.print(_line(task), soft_wrap=True, markup=False, highlight=False)


def _line(task: Task) -> str:
    total = "" if task.total is None else f"/{task.total:,.0f}"
    parts = [f"{task.description} {task.completed:,.0f}{total}"]
    if task.speed is not None:
        parts.append(f"{task.speed:,.1f}/s")
    parts.append(f"{timedelta(seconds=int(task.elapsed or 0))} so far")
    if task.time_remaining is not None:
        parts.append(f"{timedelta(seconds=int(task.time_remaining))} left")
    if task.fields.get("note"):
        parts.append(str(task.fields["note"]))
    return ", ".join(parts)


def progress_bar() -> Progress:
    """A bar with count, rate, elapsed and remaining time, and a free ``note`` per task."""
    kind = Progress if console.is_terminal else LoggedProgress
    return kind(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        speed_estimate_period=60,
    )


def forget_rate(progress: Progress, task_id: TaskID) -> None:
    """Begin a bar's rate, and so its remaining time, anew; the elapsed time goes on."""
    task = next(task for task in progress.tasks if task.id == task_id)
    completed, started, note = task.completed, task.start_time, task.fields.get("note", "")
    progress.reset(task_id, completed=int(completed), total=task.total, note=note)
    task.start_time = started
