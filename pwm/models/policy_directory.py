"""Where the policies of many tasks are saved: a directory per task, or one policy alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.files import unfinished_path, writing
from pwm.core.suites import Task, get_suite
from pwm.models.policy import Policy, load_policy, saved_task
from pwm.runtime.checkpoint import is_checkpoint


def policy_path(directory: Path, task: str) -> Path:
    """Where a task's policy is, in a directory of policies or the policy's own."""
    return directory if is_checkpoint(directory) else directory / task


def put_policies(source: Path, to: Path, tasks: Iterable[str]) -> None:
    """Put tasks' policies into another directory of policies, as links to the same files if it can.

    Each appears there whole or not at all, and one that is there is kept.

    Raises:
        PwmError: if one is missing, or cannot be written.
    """
    for name in tasks:
        if is_checkpoint(to / name):
            continue
        if not is_checkpoint(source / name):
            raise PwmError(f"{source} has no policy for {name}; give the command that makes it.")
        unfinished = unfinished_path(to / name)
        with writing(to / name):
            shutil.rmtree(unfinished, ignore_errors=True)  # of one that was killed here
            shutil.copytree(source / name, unfinished, copy_function=_link_or_copy)
            os.replace(unfinished, to / name)


def _link_or_copy(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:  # a file system without links
        shutil.copy2(source, to)


def policy_tasks(path: Path) -> dict[str, Task]:
    """The tasks that have a policy, by name, in the benchmark's order.

    Args:
        path: a directory of policies, one per task, or a single policy's directory.

    Raises:
        PwmError: if there is none, or one is damaged.
    """
    children = sorted(path.iterdir()) if path.is_dir() else []
    saved = [path] if is_checkpoint(path) else [p for p in children if is_checkpoint(p)]
    found = {p.name: saved_task(p) for p in saved}
    if not found:
        raise PwmError(f"{path} holds no policy; give what `pwm extract` wrote as out=.")
    if is_checkpoint(path):
        found = {task.name: task for task in found.values()}
    order = get_suite("mt80").names
    names = sorted(found, key=lambda n: (order.index(n) if n in order else len(order), n))
    return {name: found[name] for name in names}


def require_policy(path: Path, known: Mapping[str, Task], task: str) -> None:
    """Raise PwmError unless :func:`policy_tasks` found a task's policy at a path."""
    if task not in known:
        raise PwmError(f"{path} has no policy for {task}; it has {', '.join(known)}.")


def find_policies(path: Path, tasks: Sequence[str] | None = None) -> dict[str, Policy]:
    """Policies by task name, in the suite's order.

    Args:
        path: a directory of policies, one per task, or a single policy's directory.
        tasks: the tasks wanted; all that are there by default.

    Raises:
        PwmError: if there is none, or one that was asked for is missing.
    """
    found = policy_tasks(path)
    missing = [name for name in tasks or () if name not in found]
    if missing:
        raise PwmError(
            f"{path} has no policy for {', '.join(missing)}; it has {', '.join(sorted(found))}."
        )
    return {name: load_policy(policy_path(path, name)) for name in tasks or found}
