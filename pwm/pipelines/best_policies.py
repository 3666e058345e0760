"""Of the rounds of growth, each task's policy that scored best."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.files import directory_sha256, make_directory, unfinished_path
from pwm.reporting.growth_rounds import Round


def best_round(rounds: Sequence[Round], task: str) -> int:
    """The number of the round whose policy scored best, the later of two that scored the same."""
    return max((entry.tasks[task].normalized_score, entry.number) for entry in rounds)[1]


def keep_best(directory: Path, rounds: Sequence[Round], policies: Callable[[int], Path]) -> None:
    """Has a directory hold a copy of each task's best policy; what is right already stays.

    A copy is there whole or not at all; where one was interrupted the next call makes it good.

    Args:
        directory: gets ``<task>/``.
        rounds: those that are complete, at least one.
        policies: by a round's number, where its policies are.

    Raises:
        PwmError: if a best policy is gone and there is no copy of it.
    """
    make_directory(directory)
    for task in rounds[-1].tasks:
        source = policies(best_round(rounds, task)) / task
        if not source.is_dir():
            raise PwmError(
                f"there is no {source}, the best policy of '{task}' so far; put it back, or give "
                "extract.out= as it was in that round."
            )
        kept, unfinished = directory / task, unfinished_path(directory / task)
        shutil.rmtree(unfinished, ignore_errors=True)
        if kept.is_dir() and directory_sha256(kept) == directory_sha256(source):
            continue
        shutil.copytree(source, unfinished)
        shutil.rmtree(kept, ignore_errors=True)
        unfinished.rename(kept)
