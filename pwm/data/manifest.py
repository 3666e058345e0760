"""The manifest of an episode store: plain JSON, checked in full whenever it is read.

The manifest says which part of the data files counts. It carries a checksum of itself, so that an
edited or damaged manifest is refused instead of giving other numbers than were written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.files import unfinished_path, write_atomically
from pwm.core.layout import MANIFEST_NAME
from pwm.core.suites import Suite, Task, task_from_table

FORMAT = "pwm-episodes"
VERSION = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_COUNT = 2**44


class _InvalidError(Exception):
    """What is wrong with a manifest; becomes a PwmError that names the file."""


@dataclass(frozen=True)
class Segment:
    """What one commit added to a task's two files.

    Attributes:
        episodes: episodes added.
        rows: rows added.
        rows_sha256: of the bytes added to ``rows.bin``.
        episodes_sha256: of the bytes added to ``episodes.bin``.
    """

    episodes: int
    rows: int
    rows_sha256: str
    episodes_sha256: str


@dataclass(frozen=True)
class TaskRecord:
    """A task and what is committed of it."""

    task: Task
    segments: tuple[Segment, ...] = ()

    @cached_property
    def episodes(self) -> int:
        """Committed episodes."""
        return sum(segment.episodes for segment in self.segments)

    @cached_property
    def rows(self) -> int:
        """Committed rows."""
        return sum(segment.rows for segment in self.segments)


@dataclass(frozen=True)
class Manifest:
    """The state of a store at one commit.

    Attributes:
        suite: the tasks in id order.
        records: what is committed, by task name, in the suite's order.
        sources: how episodes were made, by key; an episode's source id is the key's position.
        behaviours: an episode's behaviour id is a position here.
        packed: whether a task's data are one packed file; the checksums are of what it unpacks to.
    """

    suite: Suite
    records: Mapping[str, TaskRecord]
    sources: Mapping[str, Mapping[str, Any]]
    behaviours: tuple[str, ...]
    packed: bool = False

    @classmethod
    def empty(cls, suite: Suite) -> Manifest:
        """The manifest of a store without episodes.

        Raises:
            PwmError: for a suite that cannot be stored (a task name that is no plain file name).
        """
        manifest = cls(suite, {task.name: TaskRecord(task) for task in suite}, {}, ())
        try:
            _parse(manifest._document())
        except _InvalidError as error:
            raise PwmError(f"suite '{suite.name}' cannot be stored: {error}.") from error
        return manifest

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Reads and checks ``DIR/manifest.json``.

        Raises:
            PwmError: if it is missing, damaged, edited by hand or of another format version.
        """
        path = directory / MANIFEST_NAME
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            if unfinished_path(directory).is_dir():
                raise PwmError(
                    f"the conversion into {directory} is not finished: give its command again, and "
                    f"it goes on; what it has so far is in {unfinished_path(directory)}."
                ) from error
            raise PwmError(
                f"{directory} is no episode store: it has no {MANIFEST_NAME}; give the directory "
                "that `pwm collect` or a conversion wrote."
            ) from error
        except OSError as error:
            raise PwmError(
                f"cannot read {path} ({error.strerror}); give an episode store that you may read."
            ) from error
        try:
            return _parse(_load(data))
        except _InvalidError as error:
            raise PwmError(
                f"{path} cannot be used: {error}. Restore it from a copy or make the store anew."
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 of this state, as it stands in the file as ``checksum``."""
        return _checksum(self._document())

    def write(self, directory: Path) -> None:
        """Commits this state: atomically and durably replaces ``DIR/manifest.json``."""
        document = self._document()
        document["checksum"] = _checksum(document)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_atomically(directory / MANIFEST_NAME, text.encode())

    def with_segment(self, task: str, segment: Segment, behaviours: tuple[str, ...]) -> Manifest:
        """The state after a commit to one task."""
        record = self.records[task]
        grown = TaskRecord(record.task, (*record.segments, segment))
        records = {**self.records, task: grown}
        return dataclasses.replace(self, records=records, behaviours=behaviours)

    def with_source(self, key: str, description: Mapping[str, Any]) -> Manifest:
        """The state after a source was added.

        Raises:
            PwmError: for a key or description that JSON does not give back unchanged.
        """
        try:
            _text(key, "a source's key", 200)
            if json.loads(json.dumps(description, allow_nan=False)) != description:
                raise _InvalidError("JSON does not give its description back unchanged")
        except (_InvalidError, TypeError, ValueError) as error:
            raise PwmError(
                f"source '{key}' cannot be stored: {error}; describe it by text, numbers, "
                "lists and mappings with text keys."
            ) from error
        return dataclasses.replace(self, sources={**self.sources, key: description})

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "suite": self.suite.name,
            "tasks": [
                {
                    **record.task.table(),
                    "episodes": record.episodes,
                    "rows": record.rows,
                    "segments": [dataclasses.asdict(segment) for segment in record.segments],
                }
                for record in self.records.values()
            ],
            "sources": [
                {"key": key, "description": description}
                for key, description in self.sources.items()
            ],
            "behaviours": list(self.behaviours),
            **({"packed": True} if self.packed else {}),
        }


def _checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise _InvalidError(f"it is not a manifest of format '{FORMAT}'")
        if document.get("version") != VERSION:
            raise _InvalidError(
                f"it has format version {document.get('version')!r} and this program reads "
                f"version {VERSION}; use the program that wrote it"
            )
        expected = document.pop("checksum", None)
        if _checksum(document) != expected:
            raise _InvalidError(
                "its checksum does not fit its content, so it was damaged or edited"
            )
    except RecursionError as error:
        raise _InvalidError("it is nested too deeply") from error
    except ValueError as error:
        raise _InvalidError(f"it is not valid JSON ({error})") from error
    return document


def _parse(document: Mapping[str, Any]) -> Manifest:
    suite_name = _text(_get(document, "suite"), "suite", 20_000)
    records: dict[str, TaskRecord] = {}
    for entry in _list(_get(document, "tasks"), "tasks"):
        record = _parse_record(_mapping(entry, "a task"))
        if record.task.name in records:
            raise _InvalidError(f"task '{record.task.name}' is listed twice")
        records[record.task.name] = record
    if not records:
        raise _InvalidError("it lists no task")
    sources: dict[str, Mapping[str, Any]] = {}
    for entry in _list(_get(document, "sources"), "sources"):
        source = _mapping(entry, "a source")
        key = _text(_get(source, "key"), "a source's key", 200)
        if key in sources:
            raise _InvalidError(f"source '{key}' is listed twice")
        sources[key] = _mapping(_get(source, "description"), "a source's description")
    names = _list(_get(document, "behaviours"), "behaviours")
    behaviours = tuple(_text(name, "a behaviour", 64) for name in names)
    suite = Suite(suite_name, tuple(record.task for record in records.values()))
    packed = document.get("packed", False)
    if not isinstance(packed, bool):
        raise _InvalidError("packed is neither true nor false")
    return Manifest(suite, records, sources, behaviours, packed)


def _parse_record(entry: Mapping[str, Any]) -> TaskRecord:
    values = dict(entry)
    episodes = _count(values.pop("episodes", None), "episodes")
    rows = _count(values.pop("rows", None), "rows")
    segments = tuple(
        _parse_segment(_mapping(item, "a segment"))
        for item in _list(values.pop("segments", None), "segments")
    )
    record = TaskRecord(_parse_task(values), segments)
    if (record.episodes, record.rows) != (episodes, rows):
        raise _InvalidError(
            f"the counts of task '{record.task.name}' differ from its segments' sum"
        )
    return record


def _parse_segment(entry: Mapping[str, Any]) -> Segment:
    if set(entry) != {field.name for field in dataclasses.fields(Segment)}:
        raise _InvalidError("a segment does not have the expected entries")
    episodes, rows = _count(entry["episodes"], "episodes"), _count(entry["rows"], "rows")
    for name in ("rows_sha256", "episodes_sha256"):
        if not isinstance(entry[name], str) or not _SHA256.fullmatch(entry[name]):
            raise _InvalidError(f"{name} of a segment is not a SHA-256 sum")
    if not 2 * episodes <= rows:
        raise _InvalidError(f"a segment of {rows} rows cannot hold {episodes} episodes")
    return Segment(episodes, rows, entry["rows_sha256"], entry["episodes_sha256"])


def _parse_task(values: Mapping[str, Any]) -> Task:
    try:
        task = task_from_table(values)
    except PwmError as error:
        raise _InvalidError(str(error).rstrip(".")) from error
    if task.name.startswith(MANIFEST_NAME):
        raise _InvalidError(f"task name {task.name!r} is not a plain file name")
    return task


def _get(mapping: Mapping[str, Any], key: str) -> Any:
    if key not in mapping:
        raise _InvalidError(f"it has no '{key}'")
    return mapping[key]


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _InvalidError(f"{what} is not a list")
    return value


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _InvalidError(f"{what} is not a mapping")
    return value


def _text(value: Any, what: str, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise _InvalidError(f"{what} is not a text of 1 to {longest} printable characters")
    return value


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        raise _InvalidError(f"{what} is not a count")
    return value
