"""Directories of several world models, each for a group of tasks, and which is for a task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.layout import GROUPS


class Member(NamedTuple):
    """One of the world models.

    Attributes:
        path: what a pretraining run wrote.
        tasks: names of those that it is for; it may know others.
    """

    path: Path
    tasks: tuple[str, ...]


def is_grouped(path: Path) -> bool:
    """Whether a directory holds several world models."""
    return (path / GROUPS).is_file()


def planned_members(out: Path, groups: Iterable[Sequence[str]]) -> list[Member]:
    """The members of groups of tasks, in a directory that may not be there yet."""
    return [Member(out / f"group_{i:02d}", tuple(names)) for i, names in enumerate(groups)]


def write_members(out: Path, members: Iterable[Member]) -> None:
    """Write the file that makes a directory one of several world models."""
    content = [{"directory": member.path.name, "tasks": member.tasks} for member in members]
    write_atomically(out / GROUPS, json.dumps({"members": content}, indent=1).encode())


def read_members(path: Path) -> list[Member]:
    """The members of a directory of several world models.

    Raises:
        PwmError: if what says so is damaged.
    """
    file = path / GROUPS
    try:
        found = []
        for member in json.loads(file.read_bytes())["members"]:
            name, tasks = member["directory"], member["tasks"]
            if Path(name).name != name or not all(isinstance(task, str) for task in tasks):
                raise ValueError(f"{name!r:.50} is no directory in it, or its tasks are no names")
            found.append(Member(path / name, tuple(tasks)))
        if not found:
            raise ValueError("it names no world model")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PwmError(f"{file} is damaged ({error}); put it back from a copy.") from error
    return found


def member_of(path: Path, tasks: Iterable[str] | None) -> Path:
    """The one world model at a path that is for all of some tasks.

    Args:
        path: of one world model, which is returned as it is, or of several.
        tasks: names; None for all.

    Raises:
        PwmError: if no member is for all of them.
    """
    if not is_grouped(path):
        return path
    members = read_members(path)
    wanted = {name for member in members for name in member.tasks} if tasks is None else {*tasks}
    for member in members:
        if wanted <= {*member.tasks}:
            return member.path
    parts = "; ".join(f"{member.path.name}: {', '.join(member.tasks)}" for member in members)
    raise PwmError(
        f"{path} holds {len(members)} world models, and none is for all tasks that are asked for; "
        f"give one of them ({parts})."
    )
