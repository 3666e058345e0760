"""Of the rounds of growth, each task's policy that scored best."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.files import directory_sha256, make_directory, unfinished_path
from pwm.reporting.growth_rounds import Round


def best_so_far(rounds: Sequence[Round], task: str) -> tuple[int, float]:
    """The number of the round with a task's best policy, and that policy's score.

    A policy takes the place of the best before it where its mean is no lower on the same episodes:
    those of its own round, on which the best was played again if it had been scored on others. Of
    two that scored the same it is the later, which reads the later world model's latents.

    Args:
        rounds: those that are complete, at least one.
        task: its name.
    """
    best, score = rounds[0].number, rounds[0].tasks[task].normalized_score
    for entry in rounds[1:]:
        found = entry.tasks[task]
        if found.best_before is not None:
            score = found.best_before
        if found.normalized_score >= score:
            best, score = entry.number, found.normalized_score
    return best, score


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
        source = policies(best_so_far(rounds, task)[0]) / task
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
