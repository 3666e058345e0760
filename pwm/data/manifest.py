"""The manifest of an episode store: plain JSON, checked in full whenever it is read.

Of the data files only what the manifest lists is committed. It has a checksum of itself, so that an
edited or damaged manifest is refused instead of giving other numbers than were written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pwm.core.errors import PwmError
from pwm.core.files import unfinished_path, write_atomically
from pwm.core.fingerprints import MadeOf
from pwm.core.layout import MANIFEST_NAME
from pwm.core.suites import Suite, Task, task_from_table

FORMAT = "pwm-episodes"
VERSION = 1

Count = Annotated[int, msgspec.Meta(ge=0, le=2**44)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one commit added to a task's two files.

    Attributes:
        episodes: episodes added.
        rows: rows added.
        rows_sha256: of the bytes added to ``rows.bin``.
        episodes_sha256: of the bytes added to ``episodes.bin``.
    """

    episodes: Count
    rows: Count
    rows_sha256: Sha256
    episodes_sha256: Sha256

    def __post_init__(self) -> None:
        if self.rows < 2 * self.episodes:
            raise ValueError(f"{self.rows} rows cannot hold {self.episodes} episodes")


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
        environments: by user-defined task, fingerprints of what its episodes were made in.
    """

    suite: Suite
    records: dict[str, TaskRecord]
    sources: Mapping[str, Mapping[str, Any]]
    behaviours: tuple[str, ...]
    packed: bool = False
    environments: Mapping[str, MadeOf] = field(default_factory=dict)

    @classmethod
    def empty(cls, suite: Suite) -> Manifest:
        """The manifest of a store without episodes; raises PwmError for an unusable task name."""
        manifest = cls(suite, {task.name: TaskRecord(task) for task in suite}, {}, ())
        try:
            _parse(manifest._document())
        except ValueError as error:
            raise PwmError(f"suite '{suite.name}' cannot be stored: {error}.") from error
        return manifest

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Reads ``DIR/manifest.json``; raises PwmError if it is missing or damaged."""
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
        except (ValueError, RecursionError) as error:
            raise PwmError(
                f"{path} cannot be used: {error}. Restore it from a copy or make the store anew."
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 of this state, as it stands in the file as ``checksum``."""
        return checksum(self._document())

    def write(self, directory: Path) -> None:
        """Commits this state: atomically and durably replaces ``DIR/manifest.json``."""
        document = self._document()
        document["checksum"] = checksum(document)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_atomically(directory / MANIFEST_NAME, text.encode())

    def with_segment(self, task: str, segment: Segment, behaviours: tuple[str, ...]) -> Manifest:
        """The state after a commit to one task."""
        record = self.records[task]
        grown = {task: TaskRecord(record.task, (*record.segments, segment))}
        return dataclasses.replace(self, records=self.records | grown, behaviours=behaviours)

    def with_source(self, key: str, description: Mapping[str, Any]) -> Manifest:
        """The state with one more source; raises PwmError for what JSON cannot hold unchanged."""
        try:
            source = {"key": key, "description": description}
            msgspec.convert(source, _Source)
            if json.loads(json.dumps(source, allow_nan=False)) != source:
                raise ValueError("JSON does not give its description back unchanged")
        except (TypeError, ValueError) as error:
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
                    "segments": [msgspec.structs.asdict(segment) for segment in record.segments],
                }
                for record in self.records.values()
            ],
            "sources": [{"key": key, "description": d} for key, d in self.sources.items()],
            "behaviours": list(self.behaviours),
            **({"packed": True} if self.packed else {}),
            **({"environments": dict(self.environments)} if self.environments else {}),
        }


def checksum(document: Mapping[str, Any]) -> str:
    """What a manifest with this content has as its ``checksum``."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it is not a manifest of format '{FORMAT}'")
    if document.get("version") != VERSION:
        raise ValueError(
            f"it has format version {document.get('version')!r} and this program reads "
            f"version {VERSION}; use the program that wrote it"
        )
    expected = document.pop("checksum", None)
    if checksum(document) != expected:
        raise ValueError("its checksum does not fit its content, so it was damaged or edited")
    return document


class _Source(msgspec.Struct):
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    description: dict[str, Any]

    def __post_init__(self) -> None:
        _require_printable(self.key)


class _Document(msgspec.Struct):
    """What stands in the file; a task's mapping has its fields and those of `_Committed`."""

    suite: Annotated[str, msgspec.Meta(min_length=1, max_length=20_000)]
    tasks: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    sources: list[_Source]
    behaviours: list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]]
    packed: bool = False
    environments: dict[str, dict[str, str]] = {}

    def __post_init__(self) -> None:
        _require_printable(self.suite, *self.behaviours)


class _Committed(msgspec.Struct):
    """What is committed of a task."""

    episodes: Count
    rows: Count
    segments: tuple[Segment, ...]


def _require_printable(*texts: str) -> None:
    for text in texts:
        if not text.isprintable():
            raise ValueError(f"{text!r:.100} has characters that cannot be printed")


def _parse(content: Mapping[str, Any]) -> Manifest:
    document = msgspec.convert(content, _Document)
    records = {record.task.name: record for record in map(_parse_record, document.tasks)}
    sources = {source.key: source.description for source in document.sources}
    if len(records) < len(document.tasks) or len(sources) < len(document.sources):
        raise ValueError("a task or a source is listed twice")
    suite = Suite(document.suite, tuple(record.task for record in records.values()))
    behaviours, environments = tuple(document.behaviours), document.environments
    return Manifest(suite, records, sources, behaviours, document.packed, environments)


def _parse_record(entry: Mapping[str, Any]) -> TaskRecord:
    committed = msgspec.convert(entry, _Committed)
    fields = {key: entry[key] for key in entry if key not in _Committed.__struct_fields__}
    try:
        record = TaskRecord(task_from_table(fields), committed.segments)
    except PwmError as error:
        raise ValueError(str(error).rstrip(".")) from error
    if record.task.name.startswith(MANIFEST_NAME):
        raise ValueError(f"task name {record.task.name!r} is not a plain file name")
    if (record.episodes, record.rows) != (committed.episodes, committed.rows):
        raise ValueError(f"the counts of task '{record.task.name}' differ from its segments' sum")
    return record
