"""Which tasks are learned together: settled once, so that a resumed extraction repeats it.

How many fit depends on the memory that is free at the moment, and how many are learned at once
shows in the last bits of their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.suites import Task
from pwm.runtime.checkpoint import is_checkpoint

_PLAN = "plan.json"


def planned_groups(
    out: Path, tasks: Sequence[Task], size_for: Callable[[int], int]
) -> list[list[Task]]:
    """All groups of the tasks, complete ones too.

    A group that was planned by an earlier run is kept if all of its tasks are still asked for. The
    other tasks that have no policy yet are cut into new groups, which join the plan on disk.

    Args:
        out: the extraction's directory, which gets one policy directory a task.
        tasks: what is asked for.
        size_for: the size of groups for a number of tasks.

    Raises:
        PwmError: if the plan on disk is damaged.
    """
    file = out / "groups" / _PLAN
    plan = _read(file)
    asked = {task.name: task for task in tasks}
    kept = [names for names in plan if asked.keys() >= set(names)]
    planned = {name for names in kept for name in names}
    left = [n for n in asked if n not in planned and not is_checkpoint(out / n)]
    size = size_for(len(left)) if left else 1
    new = [left[first : first + size] for first in range(0, len(left), size)]
    if new:
        make_directory(file.parent)
        write_atomically(file, json.dumps([*plan, *new]).encode())
    return [[asked[name] for name in names] for names in [*kept, *new]]


def _read(file: Path) -> list[list[str]]:
    if not file.is_file():
        return []
    try:
        plan = json.loads(file.read_bytes())
        if not all(isinstance(name, str) for names in plan for name in names):
            raise TypeError("names are not text")
    except (OSError, ValueError, TypeError) as error:
        raise PwmError(
            f"{file} is damaged ({error}); put it back from a copy, or give another out=."
        ) from error
    return [list(names) for names in plan]
