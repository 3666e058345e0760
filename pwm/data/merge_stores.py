"""``pwm data merge``: the episodes of several stores in one, whatever made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.progress import progress_bar
from pwm.core.suites import Suite, Task, short_name
from pwm.data.copy_episodes import copy_episodes, copy_sources, new_store
from pwm.data.store import EpisodeStore


def merge(out: str, directories: Sequence[str]) -> Path:
    """A new store with all episodes of others, in the order given; packed ones' pieces stay pieces.

    A killed merge leaves no ``out``, and the same command begins anew.

    Raises:
        PwmError: if ``out`` is there, a store cannot be read or is given twice, or the stores
            differ in a task, in its environment, or in how a source is described.
    """
    stores = [EpisodeStore.open(path) for path in directories]
    _require_different(stores)
    with new_store(out, _suite(stores)) as merged:
        _fill(merged, stores)
    return Path(out)


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
        copy_sources(merged, store)
    total = sum(sum(1 for task in store.suite if store.count(task.name)) for store in stores)
    with progress_bar() as progress:
        bar = progress.add_task("merge", total=total, note="")
        for store in stores:
            for task in store.suite.names:
                if store.count(task):
                    progress.update(bar, note=task)
                    copy_episodes(merged, store, task)
                    progress.advance(bar)
