"""One look for every progress bar: what, how far, how fast, how long yet.

Where no terminal shows it, as in a log file, a line says so every ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

SECONDS_BETWEEN_LINES = 10.0  # of a bar that no terminal shows


class _Console(Console):
    """Knows when something was last printed."""

    last = time.monotonic()

    def print(self, *objects: Any, **options: Any) -> None:
        """As of rich's."""
        self.last = time.monotonic()
        super().print(*objects, **options)


console = _Console(stderr=True, markup=False)  # brackets in a path are no markup


def _silences(ended: threading.Event, seconds: float) -> Iterator[None]:
    """Until the event, whenever nothing has been printed for some seconds."""
    while not ended.wait(max(console.last + seconds - time.monotonic(), seconds / 50)):
        if time.monotonic() - console.last >= seconds:
            yield


class RateColumn(ProgressColumn):
    """Completed units a second."""

    def render(self, task: Task) -> Text:
        """The rate as text, empty before the first step."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="progress.data.speed")


class LoggedProgress(Progress):
    """Prints a line of the task that was worked on last, also while one of its steps takes long."""

    def __init__(self, *columns: ProgressColumn, **options: Any) -> None:
        super().__init__(*columns, auto_refresh=False, **options)
        self._shown: TaskID | None = None
        self._ended = threading.Event()
        self._teller = threading.Thread(target=self._tell, name="progress-lines", daemon=True)

    def start(self) -> None:
        """As of the bar."""
        super().start()
        self._teller.start()

    def stop(self) -> None:
        """As of the bar."""
        self._ended.set()
        if self._teller.is_alive():
            self._teller.join()
        super().stop()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As of the bar."""
        self._shown = task_id
        super().update(task_id, **changes)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As of the bar."""
        self._shown = task_id
        super().advance(task_id, advance)

    def _tell(self) -> None:
        for _ in _silences(self._ended, 0.9 * SECONDS_BETWEEN_LINES):  # before the stage's own line
            shown = [task for task in self.tasks if task.id == self._shown] or self.tasks[-1:]
            if shown and not shown[0].finished:
                line = _line(shown[0])
                self.console.print(line, soft_wrap=True, markup=False, highlight=False)


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


@contextmanager
def never_silent(what: str) -> Iterator[None]:
    """Inside, a line says what goes on where nothing has been printed for ten seconds."""
    ended, begun = threading.Event(), time.monotonic()
    console.last = begun

    def tell() -> None:
        for _ in _silences(ended, SECONDS_BETWEEN_LINES):
            spent = timedelta(seconds=int(time.monotonic() - begun))
            console.print(f"{what} goes on, {spent} so far", highlight=False)

    teller = threading.Thread(target=tell, name="progress-stage", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
