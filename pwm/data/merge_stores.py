"""``pwm data merge``: the episodes of several stores in one, whatever made them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, unfinished_path
from pwm.core.locks import LOCK_NAME
from pwm.core.progress import progress_bar
from pwm.core.suites import Suite, Task, short_name
from pwm.core.validation import require_writable
from pwm.data.store import EpisodeStore

_ROWS = 2**16  # read at a time


def merge(out: str, directories: Sequence[str]) -> Path:
    """A new store with all episodes of others, in the order given; packed ones' pieces stay pieces.

    A killed merge leaves no ``out``, and the same command begins anew.

    Raises:
        PwmError: if ``out`` is there, a store cannot be read or is given twice, or the stores
            differ in a task, in its environment, or in how a source is described.
    """
    directory = Path(out)
    if directory.exists() or directory.is_symlink():
        raise PwmError(f"{out} is there already; give a new directory.")
    require_writable(out)
    stores = [EpisodeStore.open(path) for path in directories]
    _require_different(stores)
    unfinished = unfinished_path(directory)
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    make_directory(unfinished.parent)
    suite = _suite(stores)
    try:
        with EpisodeStore.create(unfinished, suite) as merged:
            _fill(merged, stores)
        (unfinished / LOCK_NAME).unlink(missing_ok=True)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return directory


def _require_different(stores: Sequence[EpisodeStore]) -> None:
    seen: dict[str, Path] = {}
    for store in stores:
        if store.digest in seen:
            raise PwmError(
                f"{store.path} and {seen[store.digest]} are the same store; give each once, since "
                "its episodes would count twice."
            )
        seen[store.digest] = store.path


def _suite(stores: Sequence[EpisodeStore]) -> Suite:
    """The tasks of all: the largest store's suite if it has them, or each store's in its order."""
    tasks: dict[str, tuple[Task, Path]] = {}
    for store in stores:
        for task in store.suite:
            known, path = tasks.setdefault(task.name, (task, store.path))
            if known != task:
                raise PwmError(
                    f"task '{task.name}' is not the same in {path} and in {store.path}; merge "
                    "stores that have its sizes and its environment in common."
                )
    largest = max((store.suite for store in stores), key=len)
    if len(largest) == len(tasks):
        return largest
    return Suite(short_name(list(tasks)), tuple(task for task, _ in tasks.values()))


def _fill(merged: EpisodeStore, stores: Sequence[EpisodeStore]) -> None:
    for store in stores:
        for key, description in store.sources.items():
            merged.add_source(key, description)
    total = sum(sum(1 for task in store.suite if store.count(task.name)) for store in stores)
    with progress_bar() as progress:
        bar = progress.add_task("merge", total=total, note="")
        for store in stores:
            for task in store.suite.names:
                if store.count(task):
                    progress.update(bar, note=task)
                    _add(merged, store, task)
                    progress.advance(bar)


def _add(merged: EpisodeStore, store: EpisodeStore, task: str) -> None:
    if made_of := store.environments.get(task):
        merged.set_environment(task, made_of)
    table = store.episodes(task).copy()
    used = [store.behaviours[i] for i in np.unique(table["behaviour"])]
    behaviours = list(dict.fromkeys([*merged.behaviours, *used]))
    for name, known, wanted in (
        ("behaviour", store.behaviours, behaviours),
        ("source", tuple(store.sources), list(merged.sources)),
    ):
        places = [wanted.index(word) if word in wanted else 0 for word in known]
        table[name] = np.array(places)[table[name]]
    merged.append_records(task, _rows(store, task), table, behaviours)


def _rows(store: EpisodeStore, task: str) -> Iterator[np.ndarray]:
    total = store.record(task).rows
    for start in range(0, total, _ROWS):
        yield store.rows(task, start, min(start + _ROWS, total))
