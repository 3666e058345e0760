"""Writing episodes behind a task's committed ones, which the manifest then commits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pwm.core.files import fsync_directory
from pwm.data.episode import EPISODE_DTYPE, EPISODES_NAME, ROWS_NAME, Episode, row_dtype
from pwm.data.manifest import Segment, TaskRecord


def write_segment(
    folder: Path,
    record: TaskRecord,
    episodes: Sequence[Episode],
    behaviour_ids: Mapping[str, int],
    source_id: int,
) -> Segment:
    """Writes and syncs episodes without faults behind a task's committed ones, all of one source.

    The folder of the task's files is made if it does not exist. Raises OSError.
    """
    dtype, table = row_dtype(record.task), np.zeros(len(episodes), EPISODE_DTYPE)

    def parts() -> Iterator[np.ndarray]:
        start = 0
        for entry, episode in zip(table, episodes, strict=True):
            rows = episode.rows(dtype)
            entry["start"], entry["length"] = start, len(rows)
            entry["return"] = rows["reward"][1:].sum(dtype=np.float64)
            entry["success_last"], entry["success_any"] = rows["success"][-1], rows["success"].any()
            entry["success_unknown"] = episode.success is None
            entry["seed"], entry["source"] = episode.seed, source_id
            entry["behaviour"] = behaviour_ids[episode.behaviour]
            start += len(rows)
            yield rows

    return write_records(folder, record, parts(), table)


def write_records(
    folder: Path, record: TaskRecord, parts: Iterable[np.ndarray], table: np.ndarray
) -> Segment:
    """Writes and syncs rows, and then their episodes' entries, behind a task's committed ones.

    The folder of the task's files is made if it does not exist. Raises OSError.

    Args:
        folder: of the task's files.
        record: what is committed of the task.
        parts: (rows,) each, of `pwm.data.episode.row_dtype`.
        table: (episodes,) of `EPISODE_DTYPE`, as it is once all parts are taken; its episodes'
            starts count from the first row of the parts, and are shifted in place.
    """
    rows_hash, count, is_new = hashlib.sha256(), 0, not folder.is_dir()
    folder.mkdir(exist_ok=True)
    with _open_behind(folder / ROWS_NAME, record.rows * row_dtype(record.task).itemsize) as file:
        for rows in parts:
            rows_hash.update(rows.data)
            file.write(rows.data)
            count += len(rows)
    table["start"] += record.rows
    with _open_behind(folder / EPISODES_NAME, record.episodes * EPISODE_DTYPE.itemsize) as file:
        file.write(table.data)
    fsync_directory(folder)
    if is_new:
        fsync_directory(folder.parent)
    table_hash = hashlib.sha256(table.data).hexdigest()
    return Segment(len(table), count, rows_hash.hexdigest(), table_hash)


@contextmanager
def _open_behind(path: Path, committed: int) -> Iterator[BinaryIO]:
    """Opens a file for writing behind its committed bytes, and syncs what was written to disk."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "r+b") as file:
        if file.seek(0, os.SEEK_END) != committed:
            file.truncate(committed)  # what a killed writer left behind the commit
            file.seek(committed)
        yield file
        file.flush()
        os.fsync(file.fileno())
