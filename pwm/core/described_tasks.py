"""A user-defined task as a file describes it now, beside how a store, model or policy has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.progress import console
from pwm.core.suites import Suite, Task, get_suite

_SIZES = ("obs_dim", "action_dim")
_ENVIRONMENT = (*_SIZES, "env_id", "env_kwargs", "action_repeat")
_ALL = (*_ENVIRONMENT, "episode_length", "score_min", "score_max")


def differences(described: Task, owned: Task, names: tuple[str, ...] = _ALL) -> list[str]:
    """The fields in which two descriptions of a task differ, with both values."""
    return [
        f"{name} {getattr(described, name)} and not {getattr(owned, name)}"
        for name in names
        if getattr(described, name) != getattr(owned, name)
    ]


def require_same_sizes(described: Task, owned: Task, owner: object) -> None:
    """Raise PwmError if observations or actions have other sizes than ``owner`` has them in."""
    _require(described, owned, owner, _SIZES)


def require_same_environments(described: Suite, owned: Suite, owner: object) -> None:
    """Raise PwmError if ``owner`` has a user-defined task in another environment than described.

    How it is scored and how long its episodes are may differ.
    """
    for task in described:
        if task.domain == "gymnasium" and task.name in owned:
            _require(task, owned[task.name], owner, _ENVIRONMENT)


def _require(described: Task, owned: Task, owner: object, names: tuple[str, ...]) -> None:
    if found := differences(described, owned, names):
        raise PwmError(
            f"task '{described.name}' is described with {', '.join(found)} as {owner} has it; "
            "describe it as it is there, or give the other one another name."
        )


def tell_differences(tasks: Iterable[Task], owner: object, data: Suite, path: object) -> None:
    """Say where the data of user-defined tasks are of other environments, scores or lengths.

    Args:
        tasks: as a model or a policy has them.
        owner: has them.
        data: the tasks of an episode store.
        path: of the store.
    """
    for task in tasks:
        own = data[task.name] if task.domain == "gymnasium" and task.name in data else task
        if found := differences(own, task):
            console.print(
                f"{path} has {task.name} with {', '.join(found)} as {owner} has it.",
                soft_wrap=True,
            )


def tasks_of(spec: Any, owned: Suite, owner: object) -> list[Task]:
    """The tasks that a setting names, of those of a store or model.

    Those of the benchmark are as the owner has them, and those that a file describes as the file
    has them.

    Raises:
        PwmError: for tasks that the owner lacks, or has in another environment.
    """
    asked = get_suite(spec, owned)
    require_same_environments(asked, owned, owner)
    own = {task.name: owned[task.name] for task in asked}
    return [task if task.domain == "gymnasium" else own[task.name] for task in asked]
