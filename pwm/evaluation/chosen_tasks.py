"""Which tasks an evaluation plays, and how they are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pwm.core.described_tasks import differences, require_same_sizes
from pwm.core.progress import console
from pwm.core.suites import SUITES, Suite, Task, get_suite


def chosen_suite(spec: Any, known: Mapping[str, Task], owner: object) -> Suite:
    """The tasks to play, as a suite with a known one's name if it has the same tasks.

    A task that a file describes is played as the file has it, and a line says so where that is not
    what its policy or world model was made for.

    Args:
        spec: what names tasks; None for all.
        known: by name, the tasks that there is a policy for or a world model has.
        owner: has them, for messages.

    Raises:
        PwmError: for unknown tasks, or a file's with other sizes than the owner's.
    """
    asked = list(known.values()) if spec is None else list(get_suite(spec, known.values()))
    tasks = tuple(_as_described(task, known.get(task.name), owner) for task in asked)
    names = [task.name for task in tasks]
    for suite in SUITES.values():
        if set(suite.names) == set(names):
            return Suite(suite.name, tasks)
    return Suite(",".join(names), tasks)


def _as_described(task: Task, own: Task | None, owner: object) -> Task:
    if own is None:  # its owner says that it lacks the task
        return task
    if task.domain != "gymnasium":
        return own
    require_same_sizes(task, own, owner)
    if found := differences(task, own):
        console.print(
            f"{task.name} is played as its file describes it: {', '.join(found)} as in {owner}.",
            soft_wrap=True,
        )
    return task
