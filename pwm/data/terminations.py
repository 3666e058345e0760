"""Which tasks have episodes that ended by themselves, not by a time limit."""

from __future__ import annotations

from collections.abc import Sequence

from pwm.core.suites import Suite
from pwm.data.problems import BadData, DataError
from pwm.data.shared_tasks import shared_tasks
from pwm.data.splits import spread_episodes
from pwm.data.store import EpisodeStore


def terminating_tasks(
    store: EpisodeStore, suite: Suite, bad: BadData, tasks: Sequence[str] | None = None
) -> list[str]:
    """Tasks of which a train episode terminated, by its last row.

    Args:
        store: where the episodes are.
        suite: limits the tasks to its own.
        bad: its episodes are left out.
        tasks: of the suite, by default all that the store has.
    """
    return [
        task.name
        for task in shared_tasks(store, suite, tasks)
        if _terminates(store, task.name, bad)
    ]


def _terminates(store: EpisodeStore, task: str, bad: BadData) -> bool:
    table = store.episodes(task)
    for episode in spread_episodes(store, task, bad).tolist():
        end = int(table["start"][episode]) + int(table["length"][episode])
        try:
            if store.rows(task, end - 1, end)["terminated"][0]:
                return True
        except DataError:  # told where windows are read
            return False
    return False
