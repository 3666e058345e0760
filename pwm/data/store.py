"""The episode store: offline data of many tasks on disk, append-only.

A store is a directory::

    DIR/manifest.json        suite, task table, what is committed, how it was made
    DIR/<task>/rows.bin      one record per row: obs, action, reward, terminated, success
    DIR/<task>/episodes.bin  one record per episode: first row, length, return, success, seed, ...

A packed store, which `pwm sample` writes, has ``DIR/<task>.safetensors.xz`` (pwm.data.packed) in
the place of a task's folder, and is unpacked into memory when it is opened. It may hold pieces of
episodes, of which the first row has no action and no reward either.

An episode of T steps has T+1 rows. Row 0 holds the first observation, and its action and reward
are NaN; action and reward of row t are those that led to observation t. Observations and actions
have the task's own sizes, without padding, and rows have a fixed size, so that a window of rows
is one contiguous block of the file.

docs/your-own-data.md shows how a store is written from NumPy arrays.

The manifest (pwm.data.manifest) is the commit point: data files are synced to disk before it is
replaced, and whatever lies behind the committed counts is ignored by readers and cut off by the
next writer. So a writer may be killed at any instruction, and readers may open the store meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, writing
from pwm.core.fingerprints import MadeOf, require_unchanged
from pwm.core.layout import JOBS, MANIFEST_NAME
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.precision import lost_sentence
from pwm.core.suites import Suite
from pwm.data.episode import (
    EPISODE_DTYPE,
    EPISODES_NAME,
    ROWS_NAME,
    Episode,
    packed_path,
    row_dtype,
    table_fault,
)
from pwm.data.manifest import Manifest, Segment, TaskRecord
from pwm.data.packed import unpack
from pwm.data.problems import BadData, DataError, data_error
from pwm.data.record_file import RecordFile
from pwm.data.segment_writer import write_records, write_segment

_MAX_IDS = 2**16


class EpisodeStore:
    """Episodes of a suite's tasks on disk. Made by `create` or `open`, not by its constructor.

    Use it as a context manager, or call `close`, to give the writer's lock back.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: DirectoryLock | None) -> None:
        self.path = path
        self._manifest = manifest
        self._lock = lock
        self._files: dict[Path, RecordFile] = {}
        self._tables: dict[str, np.ndarray] = {}
        self._left_out: set[str] = set()

    @classmethod
    def create(cls, path: str | os.PathLike[str], suite: Suite) -> EpisodeStore:
        """Makes an empty store for a suite's tasks and opens it for appending.

        Args:
            path: a directory that does not exist yet or is empty, or has only jobs to gather.
            suite: the tasks that the store may hold.

        Raises:
            PwmError: if the directory is in use for something or cannot be written.
        """
        directory, manifest = Path(path), Manifest.empty(suite)
        make_directory(directory)
        with ExitStack() as on_error:
            lock = on_error.enter_context(DirectoryLock(directory))
            leftovers = {LOCK_NAME, MANIFEST_NAME + ".tmp", JOBS}
            if found := sorted({entry.name for entry in directory.iterdir()} - leftovers):
                raise PwmError(
                    f"{directory} is not empty (it has '{found[0]}'); give a new directory, or "
                    "open the store in it to append."
                )
            manifest.write(directory)
            on_error.pop_all()
        return cls(directory, manifest, lock)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], mode: Literal["r", "a"] = "r", bad: BadData | None = None
    ) -> EpisodeStore:
        """Opens a store as of its last commit.

        Args:
            path: the store's directory.
            mode: ``"r"`` to read, which works while another process appends (open again to see
                its later commits); ``"a"`` to append, by one process at a time.
            bad: of mode ``"r"``, notes tasks whose files cannot be used. If it skips problems, such
                tasks are like tasks without episodes; otherwise the first is an error.

        Raises:
            PwmError: if there is no store, it is damaged or of another version, (mode ``"a"``)
                another writer has it, or the mode is unknown.
        """
        directory = Path(path)
        if mode not in ("r", "a"):
            raise PwmError(f"mode '{mode}' is unknown; give 'r' to read or 'a' to append.")
        manifest = Manifest.read(directory)  # before a lock is written into what is no store
        if mode == "r":
            store = cls(directory, manifest, None)
            store._check_files(bad or BadData())
            return store
        with ExitStack() as on_error:
            lock = on_error.enter_context(DirectoryLock(directory))
            store = cls(directory, Manifest.read(directory), lock)
            if store._manifest.packed:
                raise PwmError(f"{directory} is a packed store, which takes no more episodes.")
            store._check_files(BadData())
            on_error.pop_all()
        return store

    def close(self) -> None:
        """Ends writing and gives the lock back. Arrays read from the store stay valid."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def suite(self) -> Suite:
        """The tasks, rebuilt from the manifest's table."""
        return self._manifest.suite

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """How the episodes were made, by key; an episode's source id is the key's position."""
        return {key: dict(value) for key, value in self._manifest.sources.items()}

    @property
    def environments(self) -> Mapping[str, MadeOf]:
        """By user-defined task, fingerprints of the environment of its episodes, if known."""
        return self._manifest.environments

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Behaviour names; an episode's behaviour id is a position here."""
        return self._manifest.behaviours

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every committed byte by its own checksum."""
        return self._manifest.digest

    def record(self, task: str) -> TaskRecord:
        """What is committed of a task: counts and the segments with their checksums."""
        record = self._manifest.records[self.suite[task].name]
        return TaskRecord(record.task) if task in self._left_out else record

    def count(self, task: str, source: str | None = None) -> int:
        """Committed episodes of a task, of one source or of all."""
        if source is None:
            return self.record(task).episodes
        if source not in self._manifest.sources:
            return 0
        source_id = list(self._manifest.sources).index(source)
        return int(np.count_nonzero(self.episodes(task)["source"] == source_id))

    def rows(self, task: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Reads rows of a task into memory: all of them, or the given range.

        Returns:
            (stop - start,) structured, fields obs, action, reward, terminated, success. Each
            episode has T+1 rows, and the first one's action and reward are NaN.

        Raises:
            DataError: if they cannot be read, or the file was changed since it was opened.
        """
        return self.record_file(task, ROWS_NAME).read(start, stop)

    def record_file(self, task: str, name: str) -> RecordFile:
        """A task's `ROWS_NAME` or `EPISODES_NAME`, open for reading; may raise DataError."""
        path = self.path / task / name
        if path not in self._files:
            record = self.record(task)
            if self._manifest.packed and record.rows:
                self._unpack(record)
                return self._files[path]
            is_rows = name == ROWS_NAME
            dtype = row_dtype(record.task) if is_rows else EPISODE_DTYPE
            if count := record.rows if is_rows else record.episodes:
                self._require_inside(path, task)
            self._files[path] = RecordFile(path, task, dtype, count)
        return self._files[path]

    def _unpack(self, record: TaskRecord) -> None:
        """Opens what a packed store holds of a task as the files that other stores have."""
        task, path = record.task.name, packed_path(self.path, record.task.name)
        self._require_inside(path, task)
        try:
            data, counts = path.read_bytes(), (record.rows, record.episodes)
            rows, table = unpack(data, row_dtype(record.task), EPISODE_DTYPE, counts)
        except OSError as error:
            raise data_error(path, task, f"the file cannot be read ({error.strerror})") from error
        except PwmError as error:
            raise data_error(path, task, str(error)) from error
        for name, records in ((ROWS_NAME, rows), (EPISODES_NAME, table)):
            self._files[self.path / task / name] = RecordFile.holding(path, task, records)

    def episodes(self, task: str) -> np.ndarray:
        """A task's episode table, read once and kept in memory.

        Returns:
            (episodes,) of `EPISODE_DTYPE`, read-only; ``length`` counts rows.

        Raises:
            DataError: if the table cannot be read, or contradicts the manifest or itself.
        """
        if task not in self._tables:
            file = self.record_file(task, EPISODES_NAME)
            table = file.read()
            known = {"behaviour": len(self.behaviours), "source": len(self._manifest.sources)}
            if fault := table_fault(table, self.record(task).rows, known):
                raise data_error(file.path, task, fault)
            table.flags.writeable = False
            self._tables[task] = table
        return self._tables[task]

    def episode(self, task: str, index: int) -> Episode:
        """Reads one episode back, as it was appended.

        Raises:
            PwmError: if the task has no such episode.
        """
        table = self.episodes(task)
        if not 0 <= index < len(table):
            raise PwmError(f"episode {index} of task '{task}' is not one of its {len(table)}.")
        entry = table[index]
        rows = self.rows(task, entry["start"], entry["start"] + entry["length"])
        behaviour, known = self.behaviours[entry["behaviour"]], not entry["success_unknown"]
        return Episode.from_rows(rows, behaviour, int(entry["seed"]), known)

    def checked_episode(self, task: str, index: int) -> Episode:
        """Reads an episode, and raises DataError if it holds values that `append` would refuse."""
        episode = self.episode(task, index)
        if fault := episode.fault(self.suite[task]):
            raise data_error(self.path / task / ROWS_NAME, task, fault, index)
        return episode

    def add_source(self, key: str, description: Mapping[str, Any]) -> None:
        """Notes how episodes are made, under a key that `append` takes.

        The key may be there with an equal description.

        Raises:
            PwmError: if it is there with another description, or JSON cannot hold it.
        """
        self._require_writer()
        known = self._manifest.sources
        if key in known and known[key] != description:
            raise PwmError(
                f"source '{key}' of {self.path} is described otherwise already; use another key, "
                "or the description it has."
            )
        if key in known:
            return
        if len(known) >= _MAX_IDS:
            raise PwmError(f"{self.path} has {_MAX_IDS} sources, the most it can; use a new store.")
        self._commit(self._manifest.with_source(key, description))

    def set_environment(self, task: str, made_of: MadeOf) -> bool:
        """Notes the fingerprints of the environment that a task's episodes are made in.

        Returns whether there are episodes already that it is not known of. Raises PwmError if there
        are some that were made in another environment.
        """
        self._require_writer()
        before, has_episodes = self.environments.get(task, {}), bool(self.record(task).episodes)
        if has_episodes:
            require_unchanged(f"{self.path} ({task})", before, made_of)
        if before != made_of:
            environments = {**self.environments, task: made_of}
            self._commit(dataclasses.replace(self._manifest, environments=environments))
        return has_episodes and not before and bool(made_of)

    def append(self, task: str, episodes: Sequence[Episode], source: str) -> None:
        """Adds whole episodes in one atomic, durable commit: all of them or none.

        Args:
            task: a task of the store's suite.
            episodes: the episodes. One commit costs a few disk syncs, so give many at once.
            source: a key that `add_source` was given.

        Raises:
            PwmError: if the store is not open for appending, an episode has wrong shapes, values
                that are not finite or actions outside [-1, 1], or the disk is full.
        """
        self._require_writer()
        if source not in self._manifest.sources:
            raise PwmError(f"{self.path} has no source '{source}'; call add_source with it first.")
        if not episodes:
            return
        for i, episode in enumerate(episodes):
            if fault := episode.fault(self.suite[task]):
                raise PwmError(f"episode {i} to append to task '{task}' cannot be stored: {fault}.")
            if lost := episode.lost_entries():
                warnings.warn(lost_sentence(task, lost), stacklevel=2)
        new = tuple(dict.fromkeys([*self.behaviours, *(e.behaviour for e in episodes)]))
        ids = {name: i for i, name in enumerate(new)}
        number = list(self._manifest.sources).index(source)
        own = partial(write_segment, episodes=episodes, behaviour_ids=ids, source_id=number)
        self._append(task, own, new)

    def append_records(
        self, task: str, parts: Iterable[np.ndarray], table: np.ndarray, behaviours: Sequence[str]
    ) -> None:
        """Adds what `pwm.data.segment_writer.write_records` takes, in one commit like `append`.

        Sources are positions among this store's, behaviours among ``behaviours``, which begin with
        this store's. Raises PwmError if it is not open for appending, or the disk is full.
        """
        self._require_writer()
        self._append(task, partial(write_records, parts=parts, table=table), behaviours)

    def _append(
        self, task: str, write: Callable[[Path, TaskRecord], Segment], behaviours: Sequence[str]
    ) -> None:
        if len(behaviours) > _MAX_IDS:
            raise PwmError(f"{self.path} would hold more than {_MAX_IDS} behaviours; name fewer.")
        self._require_inside(self.path / task, task)
        with writing(self.path / task):
            segment = write(self.path / task, self.record(task))
        self._commit(self._manifest.with_segment(task, segment, tuple(behaviours)))
        self._forget(task)

    def leave_out(self, task: str) -> None:
        """Treats a task from now on as one without episodes, because of a problem of its data."""
        self._left_out.add(task)
        self._forget(task)

    def _forget(self, task: str) -> None:
        """Closes what was opened of a task, whose committed part has changed."""
        for name in (ROWS_NAME, EPISODES_NAME):
            self._files.pop(self.path / task / name, None)
        self._tables.pop(task, None)

    def _require_inside(self, path: Path, task: str) -> None:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self.path)):
            raise data_error(path, task, f"it is a link out of the store, to {real}")

    def _require_writer(self) -> None:
        if self._lock is None or not self._lock.held:
            raise PwmError(f"{self.path} is not open for appending; open it with mode 'a'.")

    def _commit(self, manifest: Manifest) -> None:
        try:
            manifest.write(self.path)
            self._manifest = manifest
        except BaseException:
            # The new manifest may be in place already; writing on from the old would destroy data.
            self._manifest = Manifest.read(self.path)
            self._files.clear()
            self._tables.clear()
            raise

    def _check_files(self, bad: BadData) -> None:
        """Notes every task whose files are missing, too short, or links out of the store."""
        for task in self.suite:
            try:
                self.record_file(task.name, ROWS_NAME)
                self.record_file(task.name, EPISODES_NAME)
            except DataError as error:
                bad.note(error.problem)
                self.leave_out(task.name)
