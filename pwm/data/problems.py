"""Data problems: a command stops at the first, or skips and counts them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pwm.core.errors import PwmError

OnError = Literal["stop", "skip"]
ON_ERROR: tuple[str, ...] = get_args(OnError)


@dataclass(frozen=True)
class Problem:
    """A fault in the data of one task.

    Attributes:
        file: path of the file it is in.
        task: the task's name.
        episode: index of the first bad episode, None if the whole file is bad.
        fault: what is wrong.
        last: index of the last bad episode, where that is not the first.
    """

    file: str
    task: str
    episode: int | None
    fault: str
    last: int | None = None

    def __str__(self) -> str:
        where = "" if self.episode is None else f", episode {self.episode}"
        if self.last is not None:
            where = f", episodes {self.episode} to {self.last}"
        return f"{self.file}: task {self.task}{where}: {self.fault}"


class DataError(PwmError):
    """Data on disk that cannot be used, for the reason in its ``problem``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(
            f"{problem}; restore the file from a copy or make the data anew (`pwm data verify` "
            "lists every fault), or go on without such data by on_error=skip where a command "
            "has it."
        )
        self.problem = problem


def data_error(file: Path, task: str, fault: str, episode: int | None = None) -> DataError:
    """The error for a fault in a file, or in one of its episodes."""
    return DataError(Problem(str(file), task, episode, fault))


class BadData:
    """Raises at the first data problem, or collects and counts them; threads may share it.

    Attributes:
        on_error: ``"stop"`` or ``"skip"``.
        windows: training windows that were replaced because of them.
    """

    def __init__(self, on_error: str = "stop") -> None:
        if on_error not in ON_ERROR:
            raise PwmError(f"unknown on_error '{on_error}'; it is {' or '.join(ON_ERROR)}.")
        self.on_error = on_error
        self._found: dict[Problem, None] = {}
        self.windows = 0
        self._lock = threading.Lock()

    @property
    def problems(self) -> list[Problem]:
        """What was found, each once, in order."""
        return list(self._found)

    @property
    def skips(self) -> bool:
        """Whether problems are skipped."""
        return self.on_error == "skip"

    def note(self, problem: Problem, windows: int = 0) -> None:
        """Counts a problem and the windows that it made useless, or raises the DataError."""
        if not self.skips:
            raise DataError(problem)
        with self._lock:
            self.windows += windows
            self._found[problem] = None

    def episodes(self, task: str) -> list[int]:
        """Episodes of a task that have problems."""
        found: set[int] = set()
        for problem in self.problems:
            if problem.task == task and problem.episode is not None:
                found.update(range(problem.episode, (problem.last or problem.episode) + 1))
        return sorted(found)

    def summary(self) -> str:
        """One sentence on what was skipped."""
        if not self.problems:
            return "no data problem was found."
        drawn = f" and {self.windows} training windows drawn anew" if self.windows else ""
        return (
            f"{len(self.problems)} data problem(s) skipped{drawn}; the first: {self.problems[0]}."
        )

    def report(self, print_line: Callable[[str], object]) -> None:
        """Prints the summary, if anything was skipped."""
        if self.problems:
            print_line(self.summary())
