"""Results as lines of scores.jsonl: what is there is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pwm.core.errors import PwmError
from pwm.core.files import write_all, writing

Key = tuple[str, str, str, int]
"""Kind of data, task, method, seed."""


@dataclass(frozen=True)
class Line:
    """A policy's result.

    Attributes:
        kind, task, method, seed: what was done.
        made_of: a fingerprint of all that it depends on: data, settings, evaluation.
        score, episode_return: of the policy, the mean over the evaluation's episodes; a score is
            normalized to 0..100.
        data_mean, data_best: scores of the data, the mean and the best episode's.
        updates: of learning.
        seconds: of learning this policy, a share where several are learned at once.
        model_seconds: of pretraining, a task's share.
        curve: (updates, score) over the training.
        imagined_return, expected_score: what the policy's own run last recorded, if it did.
    """

    kind: str
    task: str
    method: str
    seed: int
    made_of: str
    score: float
    episode_return: float
    data_mean: float
    data_best: float
    updates: int
    seconds: float
    model_seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    imagined_return: float | None = None
    expected_score: float | None = None

    @property
    def key(self) -> Key:
        """What was done."""
        return self.kind, self.task, self.method, self.seed


class Records:
    """The lines of a file, of which the last one of a key counts.

    A line that a crash left unfinished is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found = {line.key: line for line in _read(path)}

    def has(self, key: Key, made_of: str) -> bool:
        """Whether there is a result that was made of the same."""
        return key in self._found and self._found[key].made_of == made_of

    def add(self, line: Line) -> None:
        """Keep a line, durably; raises PwmError if it cannot be written."""
        self._found[line.key] = line
        with writing(self.path), self.path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            torn = file.read(1) not in (b"", b"\n")
            write_all(file, b"\n" * torn + msgspec.json.encode(line) + b"\n")
            os.fsync(file.fileno())

    def lines(self, kinds: Sequence[str], tasks: Iterable[str]) -> list[Line]:
        """The results of some kinds and tasks."""
        wanted = set(tasks)
        return [x for x in self._found.values() if x.kind in kinds and x.task in wanted]


def _read(path: Path) -> Iterator[Line]:
    if not path.is_file():
        return
    for text in path.read_bytes().split(b"\n"):
        try:
            found = json.loads(text)
        except ValueError:
            continue  # empty, or unfinished
        try:
            yield msgspec.convert(found, Line)
        except msgspec.ValidationError as error:
            raise PwmError(f"{path} has a line that is no result ({error}); delete it.") from error
