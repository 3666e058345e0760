"""The tasks that a store and a suite have in common."""

from __future__ import annotations

from collections.abc import Sequence

from pwm.core.action_bounds import as_known_by
from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.data.store import EpisodeStore


def shared_tasks(
    store: EpisodeStore, suite: Suite, names: Sequence[str] | None = None
) -> tuple[Task, ...]:
    """The tasks of a suite that the store has, in the suite's order; only ``names`` if given.

    Raises:
        PwmError: if there is none, a name is not in both, or they disagree about a task's
            sizes, action repeat or action bounds.
    """
    wanted = [name for name in store.suite.names if name in suite]
    if names is not None:
        wanted = [suite[store.suite[name].name].name for name in names]
    tasks = tuple(task for task in suite if task.name in wanted)
    if not tasks:
        raise PwmError(
            f"no task of suite '{suite.name}' is in {store.path}, which holds "
            f"{', '.join(store.suite.names)}; name one of those, or give other data."
        )
    for task in tasks:
        stored = store.suite[task.name]
        if (stored.obs_dim, stored.action_dim) != (task.obs_dim, task.action_dim):
            raise PwmError(
                f"task '{task.name}' has {stored.obs_dim} observation and {stored.action_dim} "
                f"action entries in {store.path}, but {task.obs_dim} and {task.action_dim} in "
                f"suite '{suite.name}'; give data of the same task."
            )
        if stored.action_repeat != task.action_repeat:
            raise PwmError(
                f"action_repeat of task '{task.name}' is {stored.action_repeat} in {store.path}, "
                f"and {task.action_repeat} in suite '{suite.name}', so the same action would do "
                "something else; give data of the same protocol."
            )
        as_known_by(task, stored)  # raises where their action bounds differ
    return tasks
