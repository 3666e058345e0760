"""Episodes of one store in another, as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, unfinished_path
from pwm.core.locks import LOCK_NAME
from pwm.core.suites import Suite
from pwm.core.validation import require_writable
from pwm.data.store import EpisodeStore

_ROWS = 2**16  # read at a time


@contextmanager
def new_store(out: str, suite: Suite) -> Iterator[EpisodeStore]:
    """A store to fill, which is at ``out`` once the block has ended, and nowhere if it fails.

    What a killed one left is removed.

    Raises:
        PwmError: if ``out`` is there or cannot be written.
    """
    directory = Path(out)
    if directory.exists() or directory.is_symlink():
        raise PwmError(f"{out} is there already; give a new directory.")
    require_writable(out)
    unfinished = unfinished_path(directory)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    make_directory(unfinished.parent)
    try:
        with EpisodeStore.create(unfinished, suite) as store:
            yield store
        (unfinished / LOCK_NAME).unlink(missing_ok=True)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def copy_sources(target: EpisodeStore, store: EpisodeStore) -> None:
    """Describe a store's sources in another, which may have them already.

    Raises:
        PwmError: if one is described otherwise there.
    """
    for key, description in store.sources.items():
        target.add_source(key, description)


def copy_episodes(
    target: EpisodeStore, store: EpisodeStore, task: str, chosen: np.ndarray | None = None
) -> None:
    """Append a task's episodes to another store that has their sources.

    Args:
        target: a store, open for appending.
        store: where the episodes are.
        task: of both.
        chosen: numbers of the episodes, (n,) ascending; all by default.

    Raises:
        PwmError: if the task's environment is not the same in both.
    """
    if made_of := store.environments.get(task):
        target.set_environment(task, made_of)
    table = store.episodes(task)
    spans = [(0, store.record(task).rows)]
    if chosen is not None:
        table = table[chosen]
        spans = [(int(e["start"]), int(e["start"]) + int(e["length"])) for e in table]
    table = table.copy()
    used = [store.behaviours[i] for i in np.unique(table["behaviour"])]
    behaviours = list(dict.fromkeys([*target.behaviours, *used]))
    for name, known, wanted in (
        ("behaviour", store.behaviours, behaviours),
        ("source", tuple(store.sources), list(target.sources)),
    ):
        places = [wanted.index(word) if word in wanted else 0 for word in known]
        table[name] = np.array(places)[table[name]]
    lengths = table["length"].astype(np.int64)
    table["start"] = np.cumsum(lengths) - lengths
    target.append_records(task, _rows(store, task, spans), table, behaviours)


def _rows(store: EpisodeStore, task: str, spans: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    for first, stop in spans:
        for start in range(first, stop, _ROWS):
            yield store.rows(task, start, min(start + _ROWS, stop))
