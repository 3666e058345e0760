"""A store's episodes to files of TD-MPC2's layout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, unfinished_path, write_atomically
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console, progress_bar
from pwm.core.signals import StopSignals
from pwm.core.suites import Suite, Task, get_suite
from pwm.data.store import EpisodeStore, shared_tasks
from pwm.interop.conversion import (
    RECORD_NAME,
    ConvertConfig,
    publish,
    require_empty,
    require_same,
)
from pwm.interop.tdmpc2_data import (
    PUBLISHED_FILES,
    ChunkFormat,
    PieceTable,
    write_chunk,
)

_FILE_BYTES = 2**31  # of a written data file, where the suite has no published number of files


def export_store(config: ConvertConfig) -> Path:
    """Write a store's episodes as files of TD-MPC2's layout; returns their directory."""
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
    if (out / RECORD_NAME).exists():
        require_same(out, _recorded(out), settings)
        console.print(f"{out} is whole already.")
        return out
    require_empty(out)
    layout = ChunkFormat(suite, steps, _any_terminated(store, tasks))
    shares = [
        [(table, np.arange(number, len(table.first_rows), count)) for table in tables]
        for number in range(count)
    ]
    with _begin_files(unfinished, settings):
        _write_files(unfinished, store, shares, layout)
        (unfinished / LOCK_NAME).unlink()
        publish(unfinished, out)
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
