"""A store's episodes to files of TD-MPC2's layout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pwm.core.counted import counted
from pwm.core.errors import PwmError
from pwm.core.files import make_directory, unfinished_path, write_atomically
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Task, get_suite, task_names
from pwm.data.shared_tasks import shared_tasks
from pwm.data.store import EpisodeStore
from pwm.interop.conversion import (
    RECORD_NAME,
    ConvertConfig,
    publish,
    require_empty,
    require_same,
)
from pwm.interop.tdmpc2_data import PUBLISHED_FILES, Pieces, write_chunk

_FILE_BYTES = 2**31  # of a written data file, where the suite has no published number of files


def export_store(config: ConvertConfig) -> Path:
    """Write a store's episodes as files of TD-MPC2's layout; returns their directory."""
    store = EpisodeStore.open(config.source)
    suite = store.suite if config.suite is None else get_suite(config.suite, store.suite)
    names = None if config.tasks is None else task_names(config.tasks)
    tasks = shared_tasks(store, suite, names)
    steps = config.steps or min(task.episode_length for task in suite)
    out, unfinished = Path(config.out), unfinished_path(Path(config.out))
    pieces = [Pieces.of(store, task, steps, config.limit) for task in tasks]
    _require_fit(pieces, steps, config)
    counts = [len(task.first_rows) for task in pieces]
    size = sum(counts) * (steps + 1) * 4 * (suite.obs_dim + suite.action_dim + 3)
    wanted = config.files or PUBLISHED_FILES.get(suite.name) or math.ceil(size / _FILE_BYTES)
    count = min(wanted, max(counts))
    settings = {
        "made_by": "pwm convert",
        "data": store.digest,
        "suite": suite.name,
        "tasks": [task.name for task in tasks],
        "steps": steps,
        "files": count,
        "limit": config.limit,
    }
    if (out / RECORD_NAME).exists():
        require_same(out, _recorded(out), settings)
        console.print(f"{out} is whole already.")
        return out
    require_empty(out)
    terminated = _any_terminated(store, tasks)
    with _begin_files(unfinished, settings):
        for path, number in _files_to_write(unfinished, count):
            entries = [(p.task, int(row)) for p in pieces for row in p.first_rows[number::count]]
            write_chunk(path, store, entries, suite, steps, terminated)
        (unfinished / LOCK_NAME).unlink()
        publish(unfinished, out)
    console.print(
        f"{out}: {sum(counts):,} entries of {steps + 1} rows of {counted(len(tasks), 'task')} in "
        f"{counted(count, 'file')}, {counted(sum(task.unfit for task in pieces), 'episode')} "
        "skipped."
    )
    if suite.name not in PUBLISHED_FILES:
        console.print(f"TD-MPC2's own trainer takes mt30 and mt80; these are ids of {suite.name}.")
    return out


def _files_to_write(unfinished: Path, count: int) -> Iterator[tuple[Path, int]]:
    """The files that are not there yet, with their numbers; a signal stops between two."""
    with progress_bar() as progress, StopSignals() as signals:
        bar = progress.add_task("convert", total=count, note="")
        for number in range(count):
            signals.raise_if_requested(
                f"stopped; the {number} files written so far are kept in {unfinished}. The same "
                "command goes on from there."
            )
            path = unfinished / f"chunk_{number}.pt"
            if not path.exists():
                yield path, number
            progress.update(bar, advance=1, note=path.name)


def _require_fit(pieces: Sequence[Pieces], steps: int, config: ConvertConfig) -> None:
    unfit = [f"{task.unfit} of {task.task.name}" for task in pieces if task.unfit]
    if unfit and config.on_error == "stop":
        raise PwmError(
            f"the lengths of some episodes in {config.source} are no multiples of {steps} steps: "
            f"{', '.join(unfit)}; on_error=skip leaves them out, steps= sets another length."
        )
    if not any(len(task.first_rows) for task in pieces):
        raise PwmError(f"{config.source} has no episode to convert.")


def _any_terminated(store: EpisodeStore, tasks: Sequence[Task]) -> bool:
    block = 2**18
    for task in tasks:
        count = store.record(task.name).rows
        for first in range(0, count, block):
            if store.rows(task.name, first, min(first + block, count))["terminated"].any():
                return True
    return False


@contextmanager
def _begin_files(unfinished: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold the directory of files in the making, with what an earlier run of the same left there.

    Files without a record of how they were made are deleted.
    """
    if unfinished.is_dir():
        known = ("chunk_", RECORD_NAME, LOCK_NAME)
        other = [p.name for p in unfinished.iterdir() if not p.name.startswith(known)]
        if other:
            raise PwmError(f"{unfinished} holds {other[0]}; delete it, or give another out=.")
    make_directory(unfinished)
    with DirectoryLock(unfinished):
        if (unfinished / RECORD_NAME).exists():
            require_same(unfinished, _recorded(unfinished), settings)
        for path in unfinished.glob("chunk_*"):
            if path.suffix == ".tmp" or not (unfinished / RECORD_NAME).exists():
                path.unlink()
        write_atomically(unfinished / RECORD_NAME, json.dumps(settings, indent=1).encode())
        yield


def _recorded(directory: Path) -> dict[str, Any]:
    file = directory / RECORD_NAME
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise PwmError(f"{file} is damaged ({error}); delete {directory}.") from error
