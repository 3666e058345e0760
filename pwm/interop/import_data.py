"""TD-MPC2's data files, Minari datasets and plain arrays to a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from pwm.core.counted import counted
from pwm.core.described_tasks import differences
from pwm.core.errors import PwmError
from pwm.core.files import unfinished_path
from pwm.core.layout import MANIFEST_NAME
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task, get_suite
from pwm.data.inspection import info
from pwm.data.store import EpisodeStore
from pwm.interop.array_data import ArraySource, action_bounds
from pwm.interop.conversion import (
    ConvertConfig,
    chosen_tasks,
    publish,
    require_empty,
    require_same,
)
from pwm.interop.minari_data import MinariSource, fill_store
from pwm.interop.tdmpc2_data import PUBLISHED_FILES, Chunk, find_files

_SOURCE, _MINARI, _ARRAYS = "tdmpc2", "minari", "arrays"
_BLOCK_BYTES = 2**26  # of padded rows that are read, checked and committed at a time

_MANY_CLIPPED = 0.1
_OTHER_UNITS = (
    " So many mean that the actions are in other units than the environment's, and what is stored "
    "is not what was done: scale them to its bounds and convert again."
)


def import_files(config: ConvertConfig) -> Path:
    """Read TD-MPC2's files into a store; returns its directory."""
    suite = get_suite(config.suite)
    chosen = chosen_tasks(config, suite)
    out, source = Path(config.out), Path(config.source)
    settings = {
        "made_by": "pwm convert",
        "suite": suite.name,
        "tasks": list(chosen.names),
        "limit": config.limit,
        "on_error": config.on_error,
        "success": "not published; stored as false",
        "terminated": "stored as false where a file does not have it",
    }
    if recorded := _finished(out, chosen, _SOURCE, settings):
        _require_no_other(source, recorded["files"], out)
    else:
        begun = _recorded(unfinished_path(out), _SOURCE, settings)
        files = begun["files"] if begun else _fingerprints(source, suite)
        _require_no_other(source, files, unfinished_path(out))
        with _unfinished_store(out, chosen, _SOURCE, {**settings, "files": files}) as (store, stop):
            _Conversion(config, suite, chosen, store).run(files, stop)
    _summarize_files(EpisodeStore.open(out), suite)
    return out


def import_minari(config: ConvertConfig) -> Path:
    """Read a Minari dataset into a store; returns its directory."""
    (task,) = _one_task(config)
    return _import_source(config, MinariSource(config.source, task), _MINARI)


def import_arrays(config: ConvertConfig, files: Sequence[Path]) -> Path:
    """Read files of plain arrays into a store; returns its directory."""
    (task,) = _one_task(config)
    bounds = action_bounds(task) if config.action_units == "environment" else None
    return _import_source(config, ArraySource(files, task, bounds, config.obs_keys), _ARRAYS)


def _one_task(config: ConvertConfig) -> Suite:
    chosen = chosen_tasks(config, get_suite(config.suite))
    if len(chosen) != 1:
        raise PwmError(
            f"{config.source} is of one task, and suite={config.suite} has {len(chosen)}; name the "
            "one by tasks=NAME, or give a file that describes it as suite=FILE.yaml."
        )
    return chosen


def _import_source(config: ConvertConfig, source: MinariSource | ArraySource, key: str) -> Path:
    """Read the episodes of one task into a store; returns its directory."""
    chosen = Suite(_one_task(config).name, (source.task,))
    out, skip = Path(config.out), config.on_error == "skip"
    settings = {
        "made_by": "pwm convert",
        "limit": config.limit,
        "on_error": config.on_error,
        **source.description,
    }
    if _finished(out, chosen, key, settings):
        console.print(info(EpisodeStore.open(out)))
        return out
    if isinstance(source, MinariSource):
        _note_environment(source)
    with _unfinished_store(out, chosen, key, settings) as (store, signals):
        counts = fill_store(source, store, key, config.limit, skip, signals)
        if not counts["stored"]:
            raise PwmError(f"{config.source} has no episode that can be stored.")
    _summarize_source(EpisodeStore.open(out), source, counts)
    return out


def _finished(out: Path, chosen: Suite, key: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of a finished conversion, empty where it is still to do."""
    recorded = _recorded(out, key, settings)
    if recorded:
        for task in EpisodeStore.open(out).suite:
            if found := differences(chosen[task.name], task):
                raise PwmError(
                    f"{out} was converted for '{task.name}' as it was described then, and now it "
                    f"has {', '.join(found)}; give another out=, or describe it as it was."
                )
        console.print(f"{out} is whole already.")
    else:
        require_empty(out)
    return recorded


def _recorded(path: Path, key: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """A store's record of its conversion, empty where there is no store or record yet."""
    if not (path / MANIFEST_NAME).exists():
        return {}
    recorded = EpisodeStore.open(path).sources.get(key, {})
    if recorded or not path.name.endswith(".unfinished"):
        require_same(path, recorded, settings)
    return recorded


@contextmanager
def _unfinished_store(
    out: Path, chosen: Suite, key: str, settings: Mapping[str, Any]
) -> Iterator[tuple[EpisodeStore, StopSignals]]:
    """A store in the making that is open for appending; it gets its name when all went well."""
    path = unfinished_path(out)
    if (path / MANIFEST_NAME).exists():
        store = EpisodeStore.open(path, "a")
    else:
        store = EpisodeStore.create(path, chosen)
    with store, StopSignals() as signals:
        if store.suite.tasks != chosen.tasks:
            raise PwmError(f"{path} holds another conversion's store; delete it.")
        require_same(path, store.sources.get(key, settings), settings)
        store.add_source(key, settings)
        yield store, signals
        publish(path, out)


def _note_environment(source: MinariSource) -> None:
    task = source.task
    told = f"The environment of the data beside {task.env_id}, in which {task.name} runs"
    for difference in source.differences:
        console.print(f"{told}: {difference}.", markup=False)


def _summarize_source(
    store: EpisodeStore, source: MinariSource | ArraySource, counts: Counter[str]
) -> None:
    task = source.task
    _summarize(store, "", counts["skipped"])
    if clipped := counts["clipped"]:
        record = store.record(task.name)
        steps = record.rows - record.episodes
        advice = _OTHER_UNITS if clipped > _MANY_CLIPPED * steps else ""
        console.print(
            f"{clipped:,} actions lay outside the action space and are clipped.{advice}",
            markup=False,
        )
    if longer := counts["longer"]:
        console.print(f"{longer:,} episodes are longer than {task.episode_length} steps.")
    if task.scored_by_success and (unknown := counts["unknown"]):
        console.print(
            f"{unknown:,} of {counts['stored']:,} episodes do not say whether they succeeded "
            "(infos without a success or is_success per step); it is stored as not known, and "
            "their score is not."
        )
    if not isinstance(source, ArraySource):
        return
    if source.parts:
        console.print(f"Observations are {', '.join(source.parts)}, in this order.")
    if lost := source.lost["all"]:
        console.print(
            f"The last step of {lost:,} episodes is left out, {source.lost['terminated']:,} of "
            "them terminations: the files lack the observation after it."
        )


def _fingerprints(source: Path, suite: Suite) -> dict[str, str]:
    """The files to convert, each of which is opened, with their fingerprints."""
    files: dict[str, str] = {}
    for path in find_files(source):
        fingerprint = Chunk(path, suite).file.fingerprint
        twin = next((name for name, known in files.items() if known == fingerprint), None)
        if twin is not None:
            raise PwmError(f"{twin} and {path.name} of {source} have the same content; delete one.")
        files[path.name] = fingerprint
    return files


def _require_no_other(source: Path, files: Mapping[str, str], path: Path) -> None:
    present = [source] if source.is_file() else source.glob("*.pt")
    other = sorted(path.name for path in present if path.name not in files)
    if other:
        raise PwmError(
            f"{source} has {', '.join(other)} beside the files that {path} is made from "
            f"({', '.join(files)}); take them elsewhere, or give another out= for all of them."
        )


def _summarize_files(store: EpisodeStore, suite: Suite) -> None:
    recorded = [d for key, d in store.sources.items() if key.startswith(f"{_SOURCE}/")]
    skipped = sum(sum(entry["skipped"].values()) for entry in recorded)
    _summarize(store, f" from {counted(len(recorded), 'file')}", skipped)
    published = PUBLISHED_FILES.get(suite.name, 0)
    if len(recorded) < published:
        console.print(f"The published {suite.name} set has {published} files.")
    if empty := sum(not store.count(task.name) for task in store.suite):
        console.print(f"{empty} of {len(store.suite)} tasks have no episode in these files.")


def _summarize(store: EpisodeStore, origin: str, skipped: int) -> None:
    console.print(info(store))
    counts = [store.record(task.name) for task in store.suite]
    console.print(
        f"{store.path}: {counted(sum(count.episodes for count in counts), 'episode')}, "
        f"{sum(count.rows for count in counts):,} rows{origin}, {counted(skipped, 'episode')} "
        "skipped."
    )


@dataclass(frozen=True)
class _Conversion:
    """Data files into a store, file after file.

    The store's source ``tdmpc2`` lists the files when the conversion begins, and a source for each
    file says, from before its first episode is committed, how many episodes per task it gives. What
    is left to do follows from these and the committed counts, so nothing else is recorded.
    """

    config: ConvertConfig
    suite: Suite
    chosen: Suite
    store: EpisodeStore

    def run(self, files: Mapping[str, str], signals: StopSignals) -> None:
        pending = {name: mark for name, mark in files.items() if not self._finished(name)}
        for name, fingerprint in pending.items():
            self._chunk(name, fingerprint)  # a file that cannot be read ends the command at once
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
            phases.begin("check MB", chunk.path.stat().st_size / 1e6)
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
                if faults and self.config.on_error == "stop":
                    first_fault = min(faults)
                    raise PwmError(
                        f"{chunk.path}: episode {part[first_fault]}, of task {task.name}, has "
                        f"{faults[first_fault]}; on_error=skip leaves such episodes out and counts "
                        "them."
                    )
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
