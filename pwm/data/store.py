"""The episode store: offline data of many tasks on disk, append-only.

A store is a directory::

    DIR/manifest.json        suite, task table, what is committed, how it was made
    (pwm.data.manifest) DIR/<task>/rows.bin      one record per row: obs, action, reward,
    terminated, success DIR/<task>/episodes.bin  one record per episode: first row, length, return,
    success, seed, ...

A packed store, which `pwm sample` writes, has ``DIR/<task>.safetensors.xz`` (pwm.data.packed) in
the place of a task's folder, and is unpacked into memory when it is opened. It may hold pieces of
episodes, of which the first row has no action and no reward either.

An episode of T steps has T+1 rows. Row 0 holds the first observation, and its action and reward
are NaN; action and reward of row t are those that led to observation t. Observations and actions
have the task's own sizes, without padding, and rows have a fixed size, so that a window of rows
is one contiguous block of the file.

Writing a store from NumPy arrays takes three lines::

    with EpisodeStore.create("my_data", get_suite("walker-run")) as store:
        store.add_source("logs", {"made_by": "controller v3"})
        store.append("walker-run", [Episode(obs, action, reward, terminated, success)], "logs")

The manifest is the commit point: data files are synced to disk before it is atomically replaced,
and whatever lies behind the committed counts is ignored by readers and cut off by the next
writer. So a writer may be killed at any instruction, and readers may open the store meanwhile.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import fsync_directory, make_directory, writing
from pwm.core.layout import JOBS, MANIFEST_NAME
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.suites import Suite, Task
from pwm.data.episode import (
    EPISODE_DTYPE,
    EPISODES_NAME,
    ROWS_NAME,
    Episode,
    packed_path,
    row_dtype,
)
from pwm.data.manifest import Manifest, Segment, TaskRecord
from pwm.data.packed import unpack
from pwm.data.problems import BadData, DataError, Problem
from pwm.data.record_file import RecordFile

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
        directory = Path(path)
        manifest = Manifest.empty(suite)
        make_directory(directory)
        lock = DirectoryLock(directory)
        lock.acquire()
        try:
            leftovers = {LOCK_NAME, MANIFEST_NAME + ".tmp", JOBS}
            if found := sorted({entry.name for entry in directory.iterdir()} - leftovers):
                raise PwmError(
                    f"{directory} is not empty (it has '{found[0]}'); give a new directory, or "
                    "open the store in it to append."
                )
            manifest.write(directory)
        except BaseException:
            lock.release()
            raise
        return cls(directory, manifest, lock)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: Literal["r", "a"] = "r",
        bad: BadData | None = None,
    ) -> EpisodeStore:
        """Opens a store as of its last commit.

        Args:
            path: the store's directory.
            mode: ``"r"`` to read, which works while another process appends (open again to see
                its later commits); ``"a"`` to append, by one process at a time.
            bad: of mode ``"r"``, told of tasks whose files cannot be used. If it leaves bad data
                out, such tasks are like tasks without episodes; otherwise the first is an error.

        Raises:
            PwmError: if there is no store, it is damaged or of another version, (mode ``"a"``)
                another writer has it, or the mode is unknown.
        """
        directory = Path(path)
        if mode not in ("r", "a"):
            raise PwmError(
                f"mode '{mode}' is unknown; open a store with 'r' to read, 'a' to append."
            )
        if mode == "r":
            store = cls(directory, Manifest.read(directory), None)
            store._check_files(bad or BadData())
            return store
        Manifest.read(directory)  # so that nothing is written into a directory that is no store
        lock = DirectoryLock(directory)
        lock.acquire()
        try:
            store = cls(directory, Manifest.read(directory), lock)
            if store._manifest.packed:
                raise PwmError(f"{directory} is a packed store, which takes no more episodes.")
            store._check_files(BadData())
        except BaseException:
            lock.release()
            raise
        return store

    def close(self) -> None:
        """Ends writing and gives the lock back. Arrays read from the store stay valid."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

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
    def behaviours(self) -> tuple[str, ...]:
        """Behaviour names; an episode's behaviour id is a position here."""
        return self._manifest.behaviours

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every committed byte by its own checksum."""
        return self._manifest.digest

    def record(self, task: str) -> TaskRecord:
        """What is committed of a task: counts and the segments with their checksums.

        Raises:
            PwmError: for a task that the store's suite does not have.
        """
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
        """A task's data file, `ROWS_NAME` or `EPISODES_NAME`, open for reading.

        Raises:
            DataError: if it cannot be used.
        """
        path = self._file(task, name)
        if path not in self._files:
            record = self.record(task)
            if self._manifest.packed and record.rows:
                self._unpack(record)
                return self._files[path]
            dtype, count = EPISODE_DTYPE, record.episodes
            if name == ROWS_NAME:
                dtype, count = row_dtype(record.task), record.rows
            if count:
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
            fault = f"the file cannot be read ({error.strerror})"
            raise DataError(Problem(str(path), task, None, fault)) from error
        except PwmError as error:
            raise DataError(Problem(str(path), task, None, str(error))) from error
        for name, records in ((ROWS_NAME, rows), (EPISODES_NAME, table)):
            self._files[self._file(task, name)] = RecordFile.holding(path, task, records)

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
            if fault := self._table_fault(table, self.record(task)):
                raise DataError(Problem(str(file.path), task, None, fault))
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
            raise PwmError(
                f"task '{task}' has {len(table)} episodes; episode {index} is not one of them."
            )
        entry = table[index]
        start = int(entry["start"])
        rows = self.rows(task, start, start + int(entry["length"]))
        return Episode(
            obs=rows["obs"].copy(),
            action=rows["action"][1:].copy(),
            reward=rows["reward"][1:].copy(),
            terminated=rows["terminated"][1:].astype(bool),
            success=rows["success"][1:].astype(bool),
            behaviour=self.behaviours[entry["behaviour"]],
            seed=int(entry["seed"]),
        )

    def add_source(self, key: str, description: Mapping[str, Any]) -> None:
        """Notes how episodes are made, under a key that `append` takes.

        Does nothing where the key is there with an equal description.

        Raises:
            PwmError: if the key is there with another description, or JSON cannot hold it.
        """
        self._require_writer()
        known = self._manifest.sources.get(key)
        if known is not None:
            if known != description:
                raise PwmError(
                    f"source '{key}' of {self.path} is described otherwise already; use another "
                    "key, or the description it has."
                )
            return
        if len(self._manifest.sources) >= _MAX_IDS:
            raise PwmError(f"{self.path} has {_MAX_IDS} sources, the most it can; use a new store.")
        self._commit(self._manifest.with_source(key, description))

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
        record = self.record(task)
        if source not in self._manifest.sources:
            raise PwmError(f"{self.path} has no source '{source}'; call add_source with it first.")
        if not episodes:
            return
        for i, episode in enumerate(episodes):
            if fault := episode.fault(record.task):
                raise PwmError(f"episode {i} to append to task '{task}' cannot be stored: {fault}.")
        new = dict.fromkeys([*self.behaviours, *(episode.behaviour for episode in episodes)])
        if len(new) > _MAX_IDS:
            raise PwmError(f"{self.path} would hold more than {_MAX_IDS} behaviours; name fewer.")
        behaviour_ids = {name: i for i, name in enumerate(new)}
        source_id = list(self._manifest.sources).index(source)
        with writing(self.path / task):
            segment = self._write_segment(record, episodes, behaviour_ids, source_id)
        self._commit(self._manifest.with_segment(task, segment, tuple(new)))
        self._forget(task)

    def leave_out(self, task: str) -> None:
        """Treats a task from now on as one without episodes, because its data are bad."""
        self._left_out.add(task)
        self._forget(task)

    def _forget(self, task: str) -> None:
        """Lets go of what was opened of a task, whose committed part has changed."""
        for name in (ROWS_NAME, EPISODES_NAME):
            self._files.pop(self._file(task, name), None)
        self._tables.pop(task, None)

    def _file(self, task: str, name: str) -> Path:
        return self.path / task / name

    def _require_inside(self, path: Path, task: str) -> None:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self.path)):
            raise DataError(
                Problem(str(path), task, None, f"it is a link out of the store, to {real}")
            )

    def _require_writer(self) -> None:
        if self._lock is None or not self._lock.held:
            raise PwmError(
                f"{self.path} is not open for appending; open it with mode 'a' and keep it open."
            )

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
        """Tells of every task whose files are missing, too short, or links out of the store."""
        for task in self.suite:
            try:
                self.record_file(task.name, ROWS_NAME)
                self.record_file(task.name, EPISODES_NAME)
            except DataError as error:
                bad.note(error.problem)
                self.leave_out(task.name)

    def _table_fault(self, table: np.ndarray, record: TaskRecord) -> str | None:
        if not len(table):
            return None
        starts, lengths = table["start"], table["length"].astype(np.int64)
        if lengths.min() < 2:
            return f"episode {int(lengths.argmin())} has fewer than two rows"
        wrong = np.flatnonzero(starts != np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        if len(wrong):
            return f"episode {wrong[0]} does not start where the one before it ends"
        if starts[-1] + lengths[-1] != record.rows:
            return "its episodes do not add up to the committed rows"
        for name, known in (
            ("behaviour", self._manifest.behaviours),
            ("source", self._manifest.sources),
        ):
            if table[name].max() >= len(known):
                return f"episode {int(table[name].argmax())} has an unknown {name}"
        return None

    def _write_segment(
        self,
        record: TaskRecord,
        episodes: Sequence[Episode],
        behaviour_ids: Mapping[str, int],
        source_id: int,
    ) -> Segment:
        dtype = row_dtype(record.task)
        table = np.zeros(len(episodes), EPISODE_DTYPE)
        rows_hash = hashlib.sha256()
        start = record.rows
        folder = self.path / record.task.name
        self._require_inside(folder, record.task.name)
        is_new = not folder.is_dir()
        folder.mkdir(exist_ok=True)
        with _Tail(folder / ROWS_NAME, record.rows * dtype.itemsize) as rows_file:
            for entry, episode in zip(table, episodes, strict=True):
                rows = _rows_of(episode, dtype)
                _fill_entry(entry, rows)
                entry["start"] = start
                entry["seed"] = episode.seed
                entry["behaviour"] = behaviour_ids[episode.behaviour]
                entry["source"] = source_id
                start += len(rows)
                data = rows.tobytes()
                rows_hash.update(data)
                rows_file.write(data)
        data = table.tobytes()
        size = record.episodes * EPISODE_DTYPE.itemsize
        with _Tail(folder / EPISODES_NAME, size) as episodes_file:
            episodes_file.write(data)
        fsync_directory(folder)
        if is_new:
            fsync_directory(self.path)
        episodes_sha256 = hashlib.sha256(data).hexdigest()
        return Segment(len(episodes), start - record.rows, rows_hash.hexdigest(), episodes_sha256)


def shared_tasks(
    store: EpisodeStore, suite: Suite, names: Sequence[str] | None = None
) -> tuple[Task, ...]:
    """The tasks of a suite that the store knows, in the suite's order.

    Args:
        store: the store.
        suite: the suite.
        names: keeps these only, all of which the store must know.

    Raises:
        PwmError: if there is none, or the two disagree about a task's sizes.
    """
    if names is not None:
        ids = sorted({suite.id(store.suite[name].name) for name in names})
        tasks = tuple(suite.tasks[i] for i in ids)
    else:
        tasks = tuple(task for task in suite if task.name in store.suite)
    if not tasks:
        raise PwmError(
            f"no task of suite '{suite.name}' is in {store.path}, which holds "
            f"{', '.join(store.suite.names)}; name one of those, or give other data."
        )
    for task in tasks:
        stored = store.suite[task.name]
        if (stored.obs_dim, stored.action_dim) != (task.obs_dim, task.action_dim):
            raise PwmError(
                f"task '{task.name}' has {stored.obs_dim} observation and {stored.action_dim} "
                f"action entries in {store.path}, but {task.obs_dim} and {task.action_dim} in "
                f"suite '{suite.name}'; give data of the same task."
            )
    return tasks


class _Tail:
    """A file open for writing behind its committed bytes; synced to disk on leaving."""

    def __init__(self, path: Path, committed: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._file = os.fdopen(fd, "r+b")
        if self._file.seek(0, os.SEEK_END) != committed:
            self._file.truncate(committed)  # what a killed writer left behind the commit
            self._file.seek(committed)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())


def _rows_of(episode: Episode, dtype: np.dtype[Any]) -> np.ndarray:
    rows = np.zeros(len(episode.obs), dtype)
    rows["obs"] = episode.obs
    rows["action"][0] = np.nan
    rows["reward"][0] = np.nan
    for name in ("action", "reward", "terminated", "success"):
        rows[name][1:] = getattr(episode, name)
    return rows


def _fill_entry(entry: np.void, rows: np.ndarray) -> None:
    entry["length"] = len(rows)
    entry["return"] = rows["reward"][1:].sum(dtype=np.float64)
    entry["success_last"] = rows["success"][-1]
    entry["success_any"] = rows["success"].any()
