"""What happens when data turn out bad: a command stops, or leaves them out and counts."""

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
        episode: index of the first episode it concerns, None if it concerns the whole file.
        fault: what is wrong.
        last: index of the last episode it concerns, where that is not the first.
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
    """Data on disk that cannot be used.

    Attributes:
        problem: what is wrong, and where.
    """

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
    """Takes problems as they are found: raises at the first one, or collects and counts them.

    May be shared by threads.

    Attributes:
        on_error: ``"stop"`` or ``"skip"``.
        problems: what was found, each once, in order.
        windows: training windows that were replaced because of them.
    """

    def __init__(self, on_error: str = "stop") -> None:
        """Checks the setting.

        Raises:
            PwmError: for another word than ``stop`` or ``skip``.
        """
        if on_error not in ON_ERROR:
            raise PwmError(f"unknown on_error '{on_error}'; it is {' or '.join(ON_ERROR)}.")
        self.on_error = on_error
        self.problems: list[Problem] = []
        self.windows = 0
        self._known: set[Problem] = set()
        self._lock = threading.Lock()

    @property
    def skips(self) -> bool:
        """Whether bad data are left out."""
        return self.on_error == "skip"

    def note(self, problem: Problem, windows: int = 0) -> None:
        """Takes a problem that made some windows useless.

        Raises:
            DataError: if bad data are not to be left out.
        """
        if not self.skips:
            raise DataError(problem)
        with self._lock:
            self.windows += windows
            if problem not in self._known:
                self._known.add(problem)
                self.problems.append(problem)

    def episodes(self, task: str) -> list[int]:
        """Episodes of a task that are known to be bad."""
        found: set[int] = set()
        for problem in self.problems:
            if problem.task == task and problem.episode is not None:
                last = problem.episode if problem.last is None else problem.last
                found.update(range(problem.episode, last + 1))
        return sorted(found)

    def summary(self) -> str:
        """One sentence on what was left out."""
        count, windows = len(self.problems), self.windows
        if not count:
            return "no bad data were found."
        drawn = f", and {windows} windows of training drawn anew" if windows else ""
        return f"bad data were left out ({count} problem(s){drawn}); the first: {self.problems[0]}."

    def report(self, say: Callable[[str], object]) -> None:
        """Says the summary, if anything was left out."""
        if self.problems:
            say(self.summary())
