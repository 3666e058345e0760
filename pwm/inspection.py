"""Looking at an episode store: a table for people, and a check of every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Self

import numpy as np
from rich import box
from rich.table import Table

from pwm.dataset import EPISODE_DTYPE, EPISODES_NAME, ROWS_NAME, EpisodeStore
from pwm.manifest import Segment
from pwm.suites import Task

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 8
_BEHAVIOUR_WIDTH = 16  # so that the task's name keeps its place in 80 columns
_CHUNK_EPISODES = 256
_READ_BYTES = 2**22


@dataclass(frozen=True)
class Problem:
    """A fault that `verify` found.

    Attributes:
        file: path within the store.
        task: the task's name.
        episode: index of the first episode it concerns, None if no single one.
        fault: what is wrong.
    """

    file: str
    task: str
    episode: int | None
    fault: str

    def __str__(self) -> str:
        where = "" if self.episode is None else f", episode {self.episode}"
        return f"{self.file}: task {self.task}{where}: {self.fault}"


def info(store: EpisodeStore) -> Table:
    """A table of what a store holds: counts, origins, returns and successes per task."""
    table = Table(
        title=f"{store.path}: suite {store.suite.name}",
        caption=_caption(store),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", overflow="fold")
    for heading in ("episodes", "rows", "return"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("histogram", no_wrap=True)
    table.add_column("success", justify="right", no_wrap=True)
    table.add_column("behaviours", no_wrap=True)
    for task in store.suite:
        table.add_row(*_info_row(store, task))
    return table


def histogram(values: np.ndarray) -> str:
    """A one-line histogram of numbers from their smallest to their largest, one char a bin."""
    counts, _ = np.histogram(values, bins=_BINS)
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def verify(store: EpisodeStore) -> Iterator[Problem]:
    """Checks everything that is committed: checksums, the episode tables, every value.

    Yields:
        The faults, as they are found. A store as it was written has none.
    """
    for task in store.suite:
        yield from _checksum_problems(store, task)
        fault = store.table_fault(task.name)
        if fault:
            yield Problem(f"{task.name}/{EPISODES_NAME}", task.name, None, fault)
        else:
            yield from _value_problems(store, task)


def _caption(store: EpisodeStore) -> str:
    counts = {
        key: sum(store.count(task.name, key) for task in store.suite) for key in store.sources
    }
    listed = ", ".join(f"{key} ({count:,} episodes)" for key, count in counts.items())
    return f"return: mean (min..max); sources: {listed or 'none'}"


def _info_row(store: EpisodeStore, task: Task) -> list[str]:
    episodes = store.episodes(task.name)
    if not len(episodes):
        return [task.name, "0", "0"]
    returns = episodes["return"]
    kinds, counts = np.unique(episodes["behaviour"], return_counts=True)
    behaviours = [
        line
        for kind, count in zip(kinds, counts, strict=True)
        for line in wrap(f"{count / len(episodes):.0%} {store.behaviours[kind]}", _BEHAVIOUR_WIDTH)
    ]
    return [
        task.name,
        f"{len(episodes):,}",
        f"{store.record(task.name).rows:,}",
        f"{returns.mean():.0f} ({returns.min():.0f}..{returns.max():.0f})",
        histogram(returns),
        f"{episodes['success_last'].mean():.0%}" if task.scored_by_success else "",
        "\n".join(behaviours),
    ]


def _checksum_problems(store: EpisodeStore, task: Task) -> Iterator[Problem]:
    first = 0
    record = store.record(task.name)
    row_bytes = store.rows(task.name).dtype.itemsize
    with _Hasher(store, task, ROWS_NAME) as rows, _Hasher(store, task, EPISODES_NAME) as episodes:
        for segment in record.segments:
            for hasher, size, expected in (
                (rows, segment.rows * row_bytes, segment.rows_sha256),
                (episodes, segment.episodes * EPISODE_DTYPE.itemsize, segment.episodes_sha256),
            ):
                if hasher.next(size) != expected:
                    yield Problem(hasher.name, task.name, first, _changed(segment, first))
            first += segment.episodes


def _changed(segment: Segment, first: int) -> str:
    last = first + segment.episodes - 1
    return f"the bytes of episodes {first} to {last} differ from what was written (checksum)"


class _Hasher:
    """SHA-256 sums of a file's successive parts."""

    def __init__(self, store: EpisodeStore, task: Task, file: str) -> None:
        self.name = f"{task.name}/{file}"
        self._path = store.path / task.name / file

    def __enter__(self) -> Self:
        self._file = open(self._path, "rb") if self._path.exists() else None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()

    def next(self, size: int) -> str:
        digest = hashlib.sha256()
        while size and self._file and (data := self._file.read(min(size, _READ_BYTES))):
            digest.update(data)
            size -= len(data)
        return digest.hexdigest()


def _value_problems(store: EpisodeStore, task: Task) -> Iterator[Problem]:
    table, rows = store.episodes(task.name), store.rows(task.name)
    for first in range(0, len(table), _CHUNK_EPISODES):
        entries = table[first : first + _CHUNK_EPISODES]
        begin = int(entries["start"][0])
        chunk = rows[begin : int(entries["start"][-1] + entries["length"][-1])]
        starts = (entries["start"] - begin).astype(np.int64)
        for name, fault, bad in _chunk_faults(chunk, starts, entries):
            for i in np.flatnonzero(bad):
                yield Problem(f"{task.name}/{name}", task.name, first + int(i), fault)
        store.release_pages()


def _chunk_faults(
    rows: np.ndarray, starts: np.ndarray, entries: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    """File, fault and which episodes of a chunk have it, for each kind of fault."""
    is_first = np.zeros(len(rows), bool)
    is_first[starts] = True
    action, reward = rows["action"], rows["reward"]

    def any_row(bad: np.ndarray) -> np.ndarray:
        return np.logical_or.reduceat(bad, starts)

    yield ROWS_NAME, "NaN or infinite observation", any_row(~np.isfinite(rows["obs"]).all(1))
    finite = np.isfinite(action).all(1) & np.isfinite(reward)
    yield ROWS_NAME, "NaN or infinite action or reward", any_row(~finite & ~is_first)
    blank = np.isnan(action).all(1) & np.isnan(reward)
    yield ROWS_NAME, "row 0 has an action or a reward", any_row(~blank & is_first)
    with np.errstate(invalid="ignore"):
        wide = (np.abs(action) > 1 + 1e-6).any(1)
    yield ROWS_NAME, "action outside [-1, 1]", any_row(wide & ~is_first)
    flags = np.maximum(rows["terminated"], rows["success"]) > 1
    yield ROWS_NAME, "a flag that is neither 0 nor 1", any_row(flags)

    returns = np.add.reduceat(np.where(is_first, 0.0, reward.astype(np.float64)), starts)
    size = np.add.reduceat(np.where(is_first, 0.0, np.abs(reward.astype(np.float64))), starts)
    off = ~(np.abs(returns - entries["return"]) <= 1e-9 * size + 1e-12)
    yield EPISODES_NAME, "the return differs from the rewards' sum", off & np.isfinite(returns)
    last = rows["success"][starts + entries["length"] - 1] != entries["success_last"]
    ever = np.maximum.reduceat(rows["success"], starts) != entries["success_any"]
    yield EPISODES_NAME, "the success flags differ from the rows'", last | ever
