"""Returns and successes of evaluation episodes, and the log that keeps them as soon as they end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import write_all, writing
from pwm.core.fingerprints import MadeOf


@dataclass
class Outcomes:
    """Returns, successes and times of n episodes of one task."""

    returns: np.ndarray  # (n,) sums of rewards
    success_last: np.ndarray  # (n,) 1 for success at the last step, else 0
    success_any: np.ndarray  # (n,) 1 for success at any step, else 0
    steps: int = 0  # decision steps of all episodes together
    acting_seconds: float = 0.0  # time of choosing the actions
    simulating_seconds: float = 0.0  # time of the simulator, on one core
    steps_to_success: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(n,) decision steps up to the first success, 0 without one, -1 where it is not known."""

    def __post_init__(self) -> None:
        if len(self.steps_to_success) < len(self.returns):  # of a log of before
            self.steps_to_success = np.full(len(self.returns), -1.0)

    @classmethod
    def concatenate(cls, parts: Sequence[Outcomes]) -> Self:
        """The outcomes of all parts' episodes; times and steps are summed."""
        columns = zip(*([getattr(p, f.name) for f in fields(cls)] for p in parts), strict=True)
        joined: Any = [np.concatenate(c) if np.ndim(c[0]) else sum(c) for c in columns]
        return cls(*joined)

    @property
    def decision_ms(self) -> float:
        """Mean milliseconds per decision; episodes that are played side by side share the time."""
        return 1000 * self.acting_seconds / max(self.steps, 1)


class EpisodeLog:
    """Outcomes by :func:`outcome_key`, one line per job, each durable before the next begins.

    A line that was torn by a crash, or changed since, is passed over: its episodes count as not yet
    played.

    Args:
        path: the file; made with the first outcome. None keeps them in memory alone.

    Raises:
        PwmError: if the file is a link, which may lead anywhere.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._found: dict[str, Outcomes] = {}
        self._made_of: dict[tuple[str, str], MadeOf] = {}
        if path is None or not path.is_file():
            return
        if path.is_symlink():
            raise PwmError(f"{path} is a link, and a log is not written through one; delete it.")
        data = path.read_bytes()
        for _, entry in _entries(data):
            self._keep(entry)
        if torn := len(data) - (data.rfind(b"\n") + 1):
            os.truncate(path, path.stat().st_size - torn)

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> Outcomes:
        return self._found[key]

    def made_of(self, method: str, task: str) -> MadeOf | None:
        """What a method's last episodes of a task were made from; None if that is not on record."""
        return self._made_of.get((method, task))

    def _keep(self, entry: Mapping[str, Any]) -> None:
        self._found[entry["key"]] = _from_json(entry)
        if "made_of" in entry:
            self._made_of[entry["method"], entry["task"]] = entry["made_of"]

    def add(self, key: str, outcomes: Outcomes, notes: Mapping[str, Any]) -> None:
        """Keep outcomes.

        Args:
            key: what :func:`outcome_key` gives.
            outcomes: of the episodes that the key names.
            notes: more entries of the line: ``method``, ``task``, and ``made_of``, the fingerprints
                of what the key stands for; others are for people who read the file.

        Raises:
            PwmError: if they cannot be written.
        """
        entry = {"key": key, **notes, **_to_json(outcomes)}
        self._keep(entry)
        text = json.dumps(entry).encode()
        self._write(_checksum(text) + b" " + text + b"\n")

    def take_over(self, path: Path, tasks: Collection[str] | None = None) -> None:
        """Keep the outcomes of another log's file that this one lacks, of some tasks or of all.

        Raises:
            PwmError: if it cannot be written.
        """
        new = [
            (line, e)
            for line, e in _entries(path.read_bytes())
            if e["key"] not in self and (tasks is None or e["task"] in tasks)
        ]
        for _, entry in new:
            self._keep(entry)
        self._write(b"".join(line + b"\n" for line, _ in new))

    def _write(self, lines: bytes) -> None:
        if self._path is None:
            return
        with writing(self._path), self._path.open("ab", buffering=0) as file:
            write_all(file, lines)
            os.fsync(file.fileno())


def _entries(data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The whole lines of a log's file, and their content."""
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        checksum, _, text = line.partition(b" ")
        if checksum == _checksum(text):
            yield line, json.loads(text)


def outcome_key(*facts: Any) -> str:
    """A name for everything that outcomes depend on, given as JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _to_json(outcomes: Outcomes) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(outcomes).items()
    }


def _from_json(entry: Mapping[str, Any]) -> Outcomes:
    values = {own.name: entry[own.name] for own in fields(Outcomes) if own.name in entry}
    for name in ("returns", "success_last", "success_any", "steps_to_success"):
        if name in values:
            values[name] = np.array(values[name], np.float64)
    return Outcomes(**values)
