"""Looking at an episode store: a table for people, and a check of every byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import chain
from textwrap import wrap

import numpy as np
from rich import box
from rich.table import Table

from pwm.core.counted import counted
from pwm.core.suites import Task
from pwm.data.cut_episodes import cut_episodes
from pwm.data.episode import ACTION_LIMIT, EPISODES_NAME, ROWS_NAME
from pwm.data.problems import BadData, DataError, Problem
from pwm.data.ranking import success_known
from pwm.data.record_file import RecordFile
from pwm.data.store import EpisodeStore

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 8
_BEHAVIOUR_WIDTH = 16  # so that the task's name keeps its place in 80 columns
_CHUNK_EPISODES = 256
_READ_BYTES = 2**22
_CHANGED = "the bytes differ from what was written (checksum)"


def info(store: EpisodeStore) -> Table:
    """A table of what a store holds: counts, origins, returns and successes per task."""
    counts = {s: sum(store.count(name, s) for name in store.suite.names) for s in store.sources}
    listed = ", ".join(f"{key} ({count:,} episodes)" for key, count in counts.items())
    caption = f"return: mean (min..max); sources: {listed or 'none'}"
    if any(t.scored_by_success and not success_known(store, t.name).all() for t in store.suite):
        caption += "; ?: not known of all episodes, and left out"
    table = Table(
        title=f"{store.path}: suite {store.suite.name}",
        caption=caption,
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
    """A one-line histogram of numbers from their smallest to their largest, one char per bin."""
    counts, _ = np.histogram(values, bins=_BINS)
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def verify(store: EpisodeStore) -> Iterator[Problem]:
    """Checks checksums, tables and values of all that is committed, and yields what is wrong."""
    for task in store.suite:
        yield from verify_task(store, task)


def verify_task(store: EpisodeStore, task: Task) -> Iterator[Problem]:
    """Checks everything that is committed of one task, as `verify` does."""
    try:
        yield from _checksum_problems(store, task)
        for first in range(0, store.count(task.name), _CHUNK_EPISODES):
            yield from value_problems(store, task, first, first + _CHUNK_EPISODES)
    except DataError as error:  # of a file that cannot be read, or a table that is wrong
        yield error.problem


def value_problems(store: EpisodeStore, task: Task, first: int, end: int) -> Iterator[Problem]:
    """Checks every value of the episodes ``first`` to ``end``; raises DataError if it cannot."""
    entries = store.episodes(task.name)[first:end]
    begin = int(entries["start"][0])
    rows = store.rows(task.name, begin, int(entries["start"][-1] + entries["length"][-1]))
    starts = (entries["start"] - begin).astype(np.int64)
    for name, fault, bad in _chunk_faults(rows, starts, entries):
        for i in np.flatnonzero(bad):
            yield Problem(str(store.path / task.name / name), task.name, first + int(i), fault)


def _info_row(store: EpisodeStore, task: Task) -> list[str]:
    episodes = store.episodes(task.name)
    if not len(episodes):
        return [task.name, "0", "0"]
    returns = episodes["return"]
    counts = np.bincount(episodes["behaviour"], minlength=len(store.behaviours))
    shares = zip(store.behaviours, counts / len(episodes), strict=True)
    behaviours = [wrap(f"{share:.0%} {b}", _BEHAVIOUR_WIDTH) for b, share in shares if share]
    return [
        task.name,
        f"{len(episodes):,}",
        f"{store.record(task.name).rows:,}",
        f"{returns.mean():z.0f} ({returns.min():z.0f}..{returns.max():z.0f})",
        histogram(returns),
        _success_share(store, task, episodes) if task.scored_by_success else "",
        "\n".join(chain(*behaviours)),
    ]


def _success_share(store: EpisodeStore, task: Task, episodes: np.ndarray) -> str:
    """Of the episodes of which it is known; a question mark says that there are others."""
    known = success_known(store, task.name)
    if not known.any():
        return "?"
    return f"{episodes['success_last'][known].mean():.0%}" + ("" if known.all() else " ?")


def _checksum_problems(store: EpisodeStore, task: Task) -> Iterator[Problem]:
    rows = store.record_file(task.name, ROWS_NAME)
    episodes = store.record_file(task.name, EPISODES_NAME)
    first_row, first = 0, 0
    for segment in store.record(task.name).segments:
        end_row, end = first_row + segment.rows, first + segment.episodes
        for file, expected, start, stop in (
            (rows, segment.rows_sha256, first_row, end_row),
            (episodes, segment.episodes_sha256, first, end),
        ):
            if _sha256(file, start, stop) != expected:
                yield Problem(str(file.path), task.name, first, _CHANGED, end - 1)
        first_row, first = end_row, end


def _sha256(file: RecordFile, start: int, stop: int) -> str:
    digest = hashlib.sha256()
    step = max(_READ_BYTES // file.dtype.itemsize, 1)
    for first in range(start, stop, step):
        digest.update(file.read(first, min(first + step, stop)).view(np.uint8).data)
    return digest.hexdigest()


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
        wide = (np.abs(action) > ACTION_LIMIT).any(1)
    yield ROWS_NAME, "action outside [-1, 1]", any_row(wide & ~is_first)
    flags = np.maximum(rows["terminated"], rows["success"]) > 1
    yield ROWS_NAME, "a flag that is neither 0 nor 1", any_row(flags)

    returns = np.add.reduceat(np.where(is_first, 0.0, reward.astype(np.float64)), starts)
    size = np.add.reduceat(np.where(is_first, 0.0, np.abs(reward.astype(np.float64))), starts)
    off = ~(np.abs(returns - entries["return"]) <= 1e-9 * size + 1e-12)
    whole = entries["is_piece"] == 0  # what is recorded of a piece is the whole episode's
    off &= np.isfinite(returns) & whole
    yield EPISODES_NAME, "the return differs from the rewards' sum", off
    last = rows["success"][starts + entries["length"] - 1] != entries["success_last"]
    ever = np.maximum.reduceat(rows["success"], starts) != entries["success_any"]
    yield EPISODES_NAME, "the success flags differ from the rows'", (last | ever) & whole
    succeeds = (entries["success_last"] > 0) | (entries["success_any"] > 0)
    claims = (entries["success_unknown"] > 0) & succeeds
    yield EPISODES_NAME, "a success that is both recorded and unknown", claims


def unscorable(store: EpisodeStore, task: Task) -> str | None:
    """Why the stored episodes of a task have no score, or None if nothing is known against it."""
    for key, source in store.sources.items():
        pieces = task.name in source.get("pieces_of_episodes", ())
        if pieces and store.count(task.name, key):
            return "pieces of episodes"
    if task.scored_by_success and not success_known(store, task.name).all():
        return "episodes whose success is not known"
    if cut := int(cut_episodes(store, task).sum()):
        fewer = f"of fewer than {task.episode_length} steps, and not terminated"
        return f"{counted(cut, 'episode')} ({fewer})"
    return None


_WHOLE_BYTES = 2**28  # of rows: what takes about a second to check
_SAMPLES = 16


def open_checked(path: str | os.PathLike[str], bad: BadData) -> EpisodeStore:
    """Opens a store for reading and checks it quickly.

    A store whose rows take less than 256 MiB is checked in full, as `verify` does. Of a larger one
    the files' sizes, the episode tables and the values of 16 episodes per task are checked here;
    the other values are as they are read.

    Args:
        path: the store's directory.
        bad: notes what is found. If it skips problems, tasks with a file that cannot be used are
            like tasks without episodes.

    Raises:
        PwmError: if there is no store.
        DataError: for data problems that are not to be skipped.
    """
    store = EpisodeStore.open(path, bad=bad)
    files = [store.record_file(task.name, ROWS_NAME) for task in store.suite]
    is_small = sum(file.nbytes for file in files) <= _WHOLE_BYTES
    for task in store.suite:
        for problem in verify_task(store, task) if is_small else _sampled_problems(store, task):
            bad.note(problem)
            if problem.episode is None:
                store.leave_out(task.name)
    return store


def _sampled_problems(store: EpisodeStore, task: Task) -> Iterator[Problem]:
    try:
        count = len(store.episodes(task.name))
        for episode in sorted({i * count // _SAMPLES for i in range(min(_SAMPLES, count))}):
            yield from value_problems(store, task, episode, episode + 1)
    except DataError as error:
        yield error.problem
