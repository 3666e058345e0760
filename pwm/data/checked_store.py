"""Opening a store that is to be trained on: bad data are found at the door where possible."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pwm.core.suites import Task
from pwm.data.inspection import value_problems, verify_task
from pwm.data.problems import BadData, DataError, Problem
from pwm.data.store import ROWS_NAME, EpisodeStore

_WHOLE_BYTES = 2**28  # of rows: what takes about a second to check
_SAMPLES = 16


def open_checked(path: str | os.PathLike[str], bad: BadData) -> EpisodeStore:
    """Opens a store for reading and checks it quickly.

    A store whose rows take less than 256 MiB is checked in full, as `pwm.data.inspection.verify`
    does. Of a larger one the files' sizes, the episode tables and the values of 16 episodes a task
    are checked here; the other values are as they are read.

    Args:
        path: the store's directory.
        bad: told of what is found. If it leaves bad data out, tasks with a file that cannot be
            used are like tasks without episodes.

    Raises:
        PwmError: if there is no store.
        DataError: for bad data that are not to be left out.
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
