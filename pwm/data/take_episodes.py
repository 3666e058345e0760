"""``pwm data take``: some episodes of each task of a store in a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.progress import progress_bar
from pwm.core.suites import Suite, short_name
from pwm.core.validation import nearest
from pwm.data.copy_episodes import copy_episodes, copy_sources, new_store
from pwm.data.store import EpisodeStore


def take(out: str, directory: str, episodes: int, tasks: Sequence[str], seed: int = 0) -> Path:
    """A new store with so many episodes of each task, drawn at random, in the order they had.

    Fewer episodes of the same seed are some of those of more.

    Args:
        out: a directory that is not there yet; a killed command leaves none.
        directory: the store.
        episodes: of each task.
        tasks: of the store; all that have episodes if none is named.
        seed: of what is drawn.

    Raises:
        PwmError: if ``out`` is there, the store cannot be read, or a task has too few episodes.
    """
    store = EpisodeStore.open(directory)
    names = list(dict.fromkeys(tasks)) or [n for n in store.suite.names if store.count(n)]
    for name in names:
        _require(store, name, episodes)
    suite = Suite(short_name(names), tuple(store.suite[name] for name in names))
    whole = len(names) == len(store.suite)
    with new_store(out, store.suite if whole else suite) as taken, progress_bar() as progress:
        copy_sources(taken, store)
        bar = progress.add_task("take", total=len(names), note="")
        for name in names:
            order = np.random.default_rng(seed).permutation(store.count(name))
            copy_episodes(taken, store, name, np.sort(order[:episodes]))
            progress.advance(bar)
    return Path(out)


def _require(store: EpisodeStore, task: str, episodes: int) -> None:
    if task not in store.suite:
        hint = nearest(task, store.suite.names)
        raise PwmError(f"{store.path} has no task '{task}'{hint or ';'} pwm data info lists them.")
    if not 1 <= episodes <= store.count(task):
        raise PwmError(
            f"{store.path} has {store.count(task)} episodes of {task}; take between one and all "
            f"of them, not {episodes}."
        )
