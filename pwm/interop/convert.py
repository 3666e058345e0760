"""Published offline data into an episode store, and a store into files for TD-MPC2's own code."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING
from rich.progress import Progress

from pwm.core.errors import PwmError
from pwm.core.files import fsync_directory, make_directory, unfinished_path, write_atomically
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task, get_suite
from pwm.core.validation import require_choice, require_resume, require_writable
from pwm.data.inspection import info
from pwm.data.manifest import MANIFEST_NAME
from pwm.data.problems import ON_ERROR
from pwm.data.store import EpisodeStore, shared_tasks
from pwm.interop.minari_data import PREFIX, MinariSource, Tally, fill_store
from pwm.interop.tdmpc2_data import (
    PUBLISHED_FILES,
    Chunk,
    ChunkFormat,
    PieceTable,
    find_files,
    write_chunk,
)

_SOURCE = "tdmpc2"
_MINARI = "minari"
_RECORD = "conversion.json"  # beside files for TD-MPC2: what they are made of
_BLOCK_BYTES = 2**26  # of padded rows that are read, checked and committed at a time
_FILE_BYTES = 2**31  # of a written data file, where the suite has no published number of files


@dataclass
class ConvertConfig:
    """Settings of ``pwm convert``.

    Attributes:
        source: TD-MPC2's data files: their directory, or one file; ``minari:`` with the id or the
            directory of a Minari dataset on this machine; with ``to=tdmpc2`` a store.
        out: the directory to make: a store, or with ``to=tdmpc2`` data files.
        suite: ``mt30`` or ``mt80``, which the files were made for; for a Minari dataset the file
            that describes its task. With ``to=tdmpc2`` the suite that fixes task ids and padding,
            the store's own by default.
        to: ``store`` or ``tdmpc2``.
        tasks: convert these only; a list, or names joined with commas.
        limit: episodes a task at most.
        on_error: ``stop`` at an episode that cannot be used, or ``skip`` and count it.
        verify: compare the files' checksums before they are used.
        steps: with ``to=tdmpc2``, decision steps an entry: by default the shortest episode length
            of the suite (100 in mt80), and longer episodes are cut into pieces.
        files: with ``to=tdmpc2``, how many files to write; by default as many as were published.
        resume: ``auto`` goes on with a conversion that was stopped; ``never`` refuses what it left.
    """

    source: str = MISSING
    out: str = MISSING
    suite: Any = None
    to: str = "store"
    tasks: Any = None
    limit: int | None = None
    on_error: str = "stop"
    verify: bool = True
    steps: int | None = None
    files: int | None = None
    resume: str = "auto"

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_choice(self, "to", ("store", "tdmpc2"))
        require_choice(self, "on_error", ON_ERROR)
        for name in ("limit", "steps", "files"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PwmError(f"{name}={value} must be at least 1, or null.")
        if self.to == "store" and self.suite is None:
            raise PwmError("convert needs the suite that the files were made for: suite=mt80.")
        if self.to != "store" and self.source.startswith(PREFIX):
            raise PwmError(f"to={self.to} takes an episode store; convert {self.source} to one.")
        suite = None if self.suite is None else get_suite(self.suite)
        if self.tasks is not None and suite is not None:
            for name in get_suite(self.tasks).names:
                suite.id(name)  # raises for a task that is not of the suite
        require_writable(self.out)
        out = Path(self.out)
        require_resume(self, out / MANIFEST_NAME, out / _RECORD, unfinished_path(out))


def convert(config: ConvertConfig) -> Path:
    """Convert TD-MPC2's files or a Minari dataset into an episode store, or a store into files.

    The result is written under ``OUT.unfinished`` and gets its name when it is whole. A conversion
    that was stopped or killed goes on when the same command is given again: finished files are not
    read or written again (those read may be deleted), and the result is the same byte for byte.

    Returns:
        The directory made.

    Raises:
        PwmError: for settings that do not fit, or files that cannot be used.
        Interrupted: after a commit, when SIGINT or SIGTERM asked for it.
    """
    config.validate()
    if config.to == "tdmpc2":
        return _to_files(config)
    return _from_minari(config) if config.source.startswith(PREFIX) else _to_store(config)


def _to_store(config: ConvertConfig) -> Path:
    suite = get_suite(config.suite)
    chosen = _chosen(config, suite)
    settings = _settings(config, suite, chosen)
    out, unfinished = Path(config.out), unfinished_path(Path(config.out))
    if (out / MANIFEST_NAME).exists():
        recorded = EpisodeStore.open(out).sources.get(_SOURCE, {"files": {}})
        _require_same(out, recorded, settings)
        _require_no_other(Path(config.source), recorded["files"], out)
        console.print(f"{out} is whole already.")
    else:
        _require_empty(out)
        files = _files(config, suite, unfinished, settings)
        with _open(unfinished, chosen) as store, StopSignals() as signals:
            store.add_source(_SOURCE, {**settings, "files": files})
            _Conversion(config, suite, chosen, store).run(files, signals)
            _publish(unfinished, out)
    _summarize(EpisodeStore.open(out), suite)
    return out


def _from_minari(config: ConvertConfig) -> Path:
    suite = get_suite(config.suite)
    chosen = _chosen(config, suite)
    if len(chosen) != 1:
        raise PwmError(
            f"a Minari dataset is of one task, and suite={config.suite} has {len(chosen)}; name "
            "the one by tasks=[NAME], or give a file that describes it as suite=FILE.yaml."
        )
    task = chosen.tasks[0]
    source = MinariSource(config.source, task)
    out, unfinished = Path(config.out), unfinished_path(Path(config.out))
    settings = {
        "made_by": "pwm convert",
        "limit": config.limit,
        "on_error": config.on_error,
        **source.description,
    }
    if (out / MANIFEST_NAME).exists():
        _require_same(out, EpisodeStore.open(out).sources.get(_MINARI, {}), settings)
        console.print(f"{out} is whole already.")
        console.print(info(EpisodeStore.open(out)))
        return out
    _require_empty(out)
    _note_environment(source)
    with _open(unfinished, chosen) as store, StopSignals() as signals:
        _require_same(unfinished, store.sources.get(_MINARI, settings), settings)
        store.add_source(_MINARI, settings)
        skip = config.on_error == "skip"
        tally = fill_store(
            source, store, _MINARI, limit=config.limit, skip_faults=skip, signals=signals
        )
        if not tally.stored:
            raise PwmError(f"{config.source} has no episode that can be stored.")
        _publish(unfinished, out)
    _summarize_minari(EpisodeStore.open(out), source, tally)
    return out


def _note_environment(source: MinariSource) -> None:
    task = source.task
    if source.env_id not in (None, task.env_id):
        console.print(f"The data are of {source.env_id}; {task.name} runs in {task.env_id}.")
    try:
        differ = source.bounds_differ()
    except PwmError as error:
        console.print(f"Actions are not compared with the environment's bounds: {error}")
        return
    if differ:
        raise PwmError(
            f"the dataset's action bounds are others than those of {task.env_id}, so the same "
            "number would be another action; give the environment that the data are of."
        )


def _summarize_minari(store: EpisodeStore, source: MinariSource, tally: Tally) -> None:
    task = source.task
    console.print(info(store))
    console.print(
        f"{store.path}: {tally.stored:,} episodes, {store.record(task.name).rows:,} rows, "
        f"{tally.skipped:,} episodes skipped."
    )
    if tally.clipped:
        console.print(f"{tally.clipped:,} actions lay outside the action space and are clipped.")
    if tally.longer:
        console.print(f"{tally.longer:,} episodes are longer than {task.episode_length} steps.")
    if task.scored_by_success and not source.has_success:
        console.print("The data do not say where the task succeeded; it is stored as never.")


def _chosen(config: ConvertConfig, suite: Suite) -> Suite:
    """The suite's tasks that are asked for, in its order."""
    if config.tasks is None:
        return suite
    ids = sorted({suite.id(name) for name in get_suite(config.tasks).names})
    tasks = tuple(suite.tasks[i] for i in ids)
    return suite if tasks == suite.tasks else Suite(",".join(t.name for t in tasks), tasks)


def _settings(config: ConvertConfig, suite: Suite, chosen: Suite) -> dict[str, Any]:
    return {
        "made_by": "pwm convert",
        "suite": suite.name,
        "tasks": list(chosen.names),
        "limit": config.limit,
        "on_error": config.on_error,
        "success": "not published; stored as false",
        "terminated": "stored as false where a file does not have it",
    }


def _require_same(path: Path, recorded: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    changed = [key for key, value in settings.items() if recorded.get(key) != value]
    if changed:
        told = ", ".join(f"{key}: {recorded.get(key)} -> {settings[key]}" for key in changed)
        raise PwmError(
            f"{path} holds something else than this conversion makes ({told}); give the same "
            "settings again, another out=, or delete it."
        )


def _require_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise PwmError(f"{out} exists and is no store; give another out=.")


def _files(
    config: ConvertConfig, suite: Suite, unfinished: Path, settings: Mapping[str, Any]
) -> dict[str, str]:
    """The files to convert with their fingerprints: those that the conversion began with."""
    source = Path(config.source)
    if (unfinished / MANIFEST_NAME).exists():
        recorded = EpisodeStore.open(unfinished).sources.get(_SOURCE)
        if recorded is not None:
            _require_same(unfinished, recorded, settings)
            files: dict[str, str] = recorded["files"]
            _require_no_other(source, files, unfinished)
            return files
    files = {path.name: Chunk(path, suite).file.fingerprint for path in find_files(source)}
    for name, fingerprint in files.items():
        twin = next(other for other, value in files.items() if value == fingerprint)
        if twin != name:
            raise PwmError(f"{twin} and {name} of {source} have the same content; delete one.")
    return files


def _require_no_other(source: Path, files: Mapping[str, str], path: Path) -> None:
    present = [source] if source.is_file() else source.glob("*.pt")
    other = sorted(path.name for path in present if path.name not in files)
    if other:
        raise PwmError(
            f"{source} has {', '.join(other)} beside the files that {path} is made from "
            f"({', '.join(files)}); take them elsewhere, or give another out= for all of them."
        )


def _open(unfinished: Path, chosen: Suite) -> EpisodeStore:
    if not (unfinished / MANIFEST_NAME).exists():
        return EpisodeStore.create(unfinished, chosen)
    store = EpisodeStore.open(unfinished, "a")
    if store.suite.tasks != chosen.tasks:
        store.close()
        raise PwmError(f"{unfinished} holds another conversion's store; delete it.")
    return store


def _publish(unfinished: Path, out: Path) -> None:
    """Give a whole conversion its name, while the lock on it is still held."""
    try:
        os.rename(unfinished, out)
    except OSError as error:
        raise PwmError(
            f"{unfinished} is whole and cannot be renamed to {out} ({error.strerror}); rename it "
            "yourself, or move what is in its place and give the command again."
        ) from error
    fsync_directory(out.parent)


def _summarize(store: EpisodeStore, suite: Suite) -> None:
    console.print(info(store))
    recorded = [d for key, d in store.sources.items() if key.startswith(f"{_SOURCE}/")]
    skipped = sum(sum(entry["skipped"].values()) for entry in recorded)
    episodes = sum(store.record(task.name).episodes for task in store.suite)
    rows = sum(store.record(task.name).rows for task in store.suite)
    console.print(
        f"{store.path}: {episodes:,} episodes, {rows:,} rows from {len(recorded)} files, "
        f"{skipped:,} episodes skipped."
    )
    published = PUBLISHED_FILES.get(suite.name, 0)
    if len(recorded) < published:
        console.print(f"The published {suite.name} set has {published} files.")
    empty = [task.name for task in store.suite if not store.count(task.name)]
    if empty:
        console.print(f"{len(empty)} of {len(store.suite)} tasks have no episode in these files.")


@dataclass(frozen=True)
class _Conversion:
    """Data files into a store, file after file.

    The store's source ``tdmpc2`` lists the files when the conversion begins, and a source for each
    file says, from before its first episode is committed, how many it gives to each task. From
    these and the committed counts it follows what is left to do, so nothing else is recorded.
    """

    config: ConvertConfig
    suite: Suite
    chosen: Suite
    store: EpisodeStore

    def run(self, files: Mapping[str, str], signals: StopSignals) -> None:
        pending = {name: mark for name, mark in files.items() if not self._finished(name)}
        for name, fingerprint in pending.items():
            self._chunk(name, fingerprint)  # so that what is wrong with a file is said at once
        with progress_bar() as progress:
            phases = _Phases(progress, signals, self.store.path)
            for number, (name, fingerprint) in enumerate(pending.items(), 1):
                phases.file = f"{name} ({len(files) - len(pending) + number}/{len(files)})"
                self._convert(name, fingerprint, phases)
        if not any(self.store.count(task.name) for task in self.chosen):
            raise PwmError(
                f"no file of {self.config.source} has an episode of {', '.join(self.chosen.names)};"
                " give other files or other tasks."
            )

    def _chunk(self, name: str, fingerprint: str) -> Chunk:
        source = Path(self.config.source)
        chunk = Chunk(source if source.is_file() else source / name, self.suite)
        if chunk.file.fingerprint != fingerprint:
            raise PwmError(
                f"{chunk.path} has changed since its conversion began; put the old file back, or "
                f"delete {self.store.path} to begin anew."
            )
        return chunk

    def _finished(self, name: str) -> bool:
        described = self.store.sources.get(_key(name))
        return described is not None and all(
            self.store.count(task, _key(name)) == count
            for task, count in described["episodes"].items()
        )

    def _convert(self, name: str, fingerprint: str, phases: _Phases) -> None:
        chunk, key = self._chunk(name, fingerprint), _key(name)
        room = {task.name: self._room(task, chunk) for task in self.chosen}
        if self.config.verify and any(room.values()):
            phases.begin("check MB", chunk.file.size / 1e6)
            for count in chunk.file.verify():
                phases.advance(count / 1e6)
        usable, skipped = self._usable(chunk, room, phases)
        self.store.add_source(key, self._description(chunk, usable, skipped))
        phases.begin("write", sum(map(len, usable.values())))
        block = _block_episodes(chunk)
        for task in self.chosen:
            positions = usable[task.name]
            done = self.store.count(task.name, key)
            phases.advance(done)
            for first in range(done, len(positions), block):
                part = positions[first : first + block]
                self.store.append(task.name, chunk.read(task, part).episodes(), key)
                chunk.file.release_pages()
                phases.advance(len(part))

    def _usable(
        self, chunk: Chunk, room: Mapping[str, int], phases: _Phases
    ) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """Positions in the file of the episodes to take, and how many were skipped, by task."""
        ids = chunk.task_ids() if any(room.values()) else np.zeros(0)
        phases.begin("read", len(ids))
        usable, skipped = {}, {}
        block = _block_episodes(chunk)
        for task in self.chosen:
            positions = np.flatnonzero(ids == self.suite.id(task.name))
            good: list[int] = []
            skipped[task.name] = 0
            for first in range(0, len(positions), block):
                if len(good) >= room[task.name]:
                    break
                part = positions[first : first + block]
                faults = chunk.read(task, part).faults
                chunk.file.release_pages()
                self._require_none(chunk, task, part, faults)
                good += [int(p) for i, p in enumerate(part) if i not in faults]
                skipped[task.name] += len(faults)
                phases.advance(len(part))
            usable[task.name] = np.array(good[: room[task.name]], np.int64)
        return usable, skipped

    def _room(self, task: Task, chunk: Chunk) -> int:
        """How many episodes of a task the limit still allows to a file."""
        if self.config.limit is None:
            return chunk.episodes
        before = [
            described["episodes"].get(task.name, 0)
            for key, described in self.store.sources.items()
            if key.startswith(f"{_SOURCE}/") and key != _key(chunk.path.name)
        ]
        return max(self.config.limit - sum(before), 0)

    def _require_none(
        self, chunk: Chunk, task: Task, positions: np.ndarray, faults: Mapping[int, str]
    ) -> None:
        if faults and self.config.on_error == "stop":
            first = min(faults)
            raise PwmError(
                f"{chunk.path}: episode {positions[first]}, of task {task.name}, has "
                f"{faults[first]}; on_error=skip leaves such episodes out and counts them."
            )

    def _description(
        self, chunk: Chunk, usable: Mapping[str, np.ndarray], skipped: Mapping[str, int]
    ) -> dict[str, Any]:
        steps = chunk.rows - 1
        return {
            "fingerprint": chunk.file.fingerprint,
            "steps_an_episode": steps,
            "success_known": False,
            "pieces_of_episodes": [t.name for t in self.chosen if t.episode_length > steps],
            "episodes": {name: len(positions) for name, positions in usable.items()},
            "rows": {name: len(positions) * chunk.rows for name, positions in usable.items()},
            "skipped": {name: count for name, count in skipped.items() if count},
        }


class _Phases:
    """The progress bar of a conversion; every move is a point at which it can stop."""

    def __init__(self, progress: Progress, signals: StopSignals, where: Path) -> None:
        self.file = ""
        self._progress, self._signals, self._where = progress, signals, where
        self._bar = progress.add_task("convert", total=None, note="")

    def begin(self, phase: str, total: float) -> None:
        self._progress.reset(self._bar, total=total, description=phase, note=self.file)
        self.advance(0)

    def advance(self, count: float) -> None:
        self._progress.advance(self._bar, count)
        self._signals.raise_if_requested(
            f"stopped; what is converted is kept in {self._where}. The same command goes on from "
            "there."
        )


def _key(name: str) -> str:
    return f"{_SOURCE}/{name}"


def _block_episodes(chunk: Chunk) -> int:
    """Episodes that are read, checked and committed at a time; the same on every machine."""
    return max(1, _BLOCK_BYTES // (chunk.rows * chunk.row_bytes))


def _to_files(config: ConvertConfig) -> Path:
    store = EpisodeStore.open(config.source)
    suite = get_suite(config.suite) if config.suite is not None else store.suite
    names = None if config.tasks is None else get_suite(config.tasks).names
    tasks = shared_tasks(store, suite, names)
    steps = config.steps or min(task.episode_length for task in suite)
    out, unfinished = Path(config.out), unfinished_path(Path(config.out))
    tables = [
        PieceTable.of(store, task, suite.id(task.name), steps, config.limit) for task in tasks
    ]
    _require_fit(tables, steps, config)
    count = _file_count(config, suite, tables, steps)
    settings = {
        "made_by": "pwm convert",
        "data": store.digest,
        "suite": suite.name,
        "tasks": [task.name for task in tasks],
        "steps": steps,
        "files": count,
        "limit": config.limit,
    }
    if (out / _RECORD).exists():
        _require_same(out, _recorded(out), settings)
        console.print(f"{out} is whole already.")
        return out
    _require_empty(out)
    layout = ChunkFormat(suite, steps, _any_terminated(store, tasks))
    shares = [
        [(table, np.arange(number, len(table.first_rows), count)) for table in tables]
        for number in range(count)
    ]
    with _begin_files(unfinished, settings):
        _write_files(unfinished, store, shares, layout)
        (unfinished / LOCK_NAME).unlink()
        _publish(unfinished, out)
    written = sum(len(table.first_rows) for table in tables)
    console.print(
        f"{out}: {written:,} entries of {steps + 1} rows of {len(tasks)} tasks in {count} files, "
        f"{sum(table.unfit for table in tables):,} episodes skipped."
    )
    if suite.name not in PUBLISHED_FILES:
        console.print(f"TD-MPC2's own trainer takes mt30 and mt80; these are ids of {suite.name}.")
    return out


def _write_files(
    unfinished: Path,
    store: EpisodeStore,
    shares: Sequence[Sequence[tuple[PieceTable, np.ndarray]]],
    layout: ChunkFormat,
) -> None:
    with progress_bar() as progress, StopSignals() as signals:
        bar = progress.add_task("convert", total=len(shares), note="")
        for number, share in enumerate(shares):
            signals.raise_if_requested(
                f"stopped; the {number} files written so far are kept in {unfinished}. The same "
                "command goes on from there."
            )
            path = unfinished / f"chunk_{number}.pt"
            if not path.exists():
                write_chunk(path, store, share, layout)
            progress.update(bar, advance=1, note=path.name)


def _require_fit(tables: Sequence[PieceTable], steps: int, config: ConvertConfig) -> None:
    unfit = [f"{table.unfit} of {table.task.name}" for table in tables if table.unfit]
    if unfit and config.on_error == "stop":
        raise PwmError(
            f"the lengths of some episodes in {config.source} are no multiples of {steps} steps: "
            f"{', '.join(unfit)}; on_error=skip leaves them out, steps= sets another length."
        )
    if not any(len(table.first_rows) for table in tables):
        raise PwmError(f"{config.source} has no episode to convert.")


def _any_terminated(store: EpisodeStore, tasks: Sequence[Task]) -> bool:
    block = 2**18
    for task in tasks:
        count = store.record(task.name).rows
        for first in range(0, count, block):
            if store.rows(task.name, first, min(first + block, count))["terminated"].any():
                return True
    return False


def _file_count(
    config: ConvertConfig, suite: Suite, tables: Sequence[PieceTable], steps: int
) -> int:
    pieces = [len(table.first_rows) for table in tables]
    size = sum(pieces) * (steps + 1) * 4 * (suite.obs_dim + suite.action_dim + 3)
    wanted = config.files or PUBLISHED_FILES.get(suite.name) or math.ceil(size / _FILE_BYTES)
    return min(wanted, max(pieces))


@contextmanager
def _begin_files(unfinished: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold the directory of files in the making, with what an earlier run of the same left there.

    Files without a record of how they were made are deleted.
    """
    if unfinished.is_dir():
        known = ("chunk_", _RECORD, LOCK_NAME)
        other = [p.name for p in unfinished.iterdir() if not p.name.startswith(known)]
        if other:
            raise PwmError(f"{unfinished} holds {other[0]}; delete it, or give another out=.")
    make_directory(unfinished)
    with DirectoryLock(unfinished):
        if (unfinished / _RECORD).exists():
            _require_same(unfinished, _recorded(unfinished), settings)
        for path in unfinished.glob("chunk_*"):
            if path.suffix == ".tmp" or not (unfinished / _RECORD).exists():
                path.unlink()
        write_atomically(unfinished / _RECORD, json.dumps(settings, indent=1).encode())
        yield


def _recorded(directory: Path) -> dict[str, Any]:
    file = directory / _RECORD
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise PwmError(f"{file} is damaged ({error}); delete {directory}.") from error
