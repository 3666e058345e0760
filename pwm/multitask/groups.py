"""Groups of tasks: from a file that an analysis wrote, or by embodiment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pwm.core.errors import PwmError
from pwm.core.files import write_atomically
from pwm.core.suites import Task
from pwm.multitask.clusters import cluster

Groups = list[list[str]]
_OTHER_DOMAIN = 10.0


def embodiment(task: Task) -> str:
    """What a task moves, such as ``reacher with 3 actions``, or its environment's id.

    Tasks of dm_control share a body where the first word of their names and their actions do.
    """
    if task.domain == "metaworld":
        return "Sawyer"
    if task.domain == "gymnasium":
        return task.env_id
    return f"{task.name.split('-')[0]} with {task.action_dim} actions"


def by_embodiment(tasks: Sequence[Task], number: int | None = None) -> Groups:
    """Names of tasks by embodiment, those of the most similar sizes together.

    Args:
        tasks: at least one.
        number: of groups; by default one per embodiment.

    Raises:
        PwmError: if there are fewer embodiments than groups are asked for.
    """
    bodies = list(dict.fromkeys(map(embodiment, tasks)))
    number = len(bodies) if number is None else number
    if not 1 <= number <= len(bodies):
        raise PwmError(
            f"groups={number} must be 1 to {len(bodies)}, the number of embodiments of the tasks "
            f"({', '.join(bodies)}); or give a file of groups that pwm analyze wrote."
        )
    first = {body: next(t for t in tasks if embodiment(t) == body) for body in bodies}
    distance = np.array([[_apart(a, b) for b in first.values()] for a in first.values()])
    labels = dict(zip(bodies, cluster(distance, number).labels.tolist(), strict=True))
    return grouped([task.name for task in tasks], [labels[embodiment(task)] for task in tasks])


def _apart(one: Task, other: Task) -> float:
    sizes = np.log([one.obs_dim / other.obs_dim, one.action_dim / other.action_dim])
    return float(np.abs(sizes).sum()) + _OTHER_DOMAIN * (one.domain != other.domain)


def grouped(names: Iterable[str], labels: Iterable[int]) -> Groups:
    """Names by label, in the order in which each first appears."""
    found: dict[int, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        found.setdefault(label, []).append(name)
    return list(found.values())


def write_groups(path: Path, by: str, groups: Groups) -> None:
    """Write a file that ``pwm pretrain groups=`` takes; ``by`` says what the groups are by."""
    write_atomically(path, json.dumps({"by": by, "groups": groups}, indent=1).encode())


def read_groups(path: Path) -> Groups:
    """The groups in a file.

    Raises:
        PwmError: if there is none, or it is not as :func:`write_groups` writes it.
    """
    try:
        groups = json.loads(path.read_bytes())["groups"]
        if any(isinstance(group, str) for group in groups):
            raise ValueError("a group is a list of names, also of one")
        names = [name for group in groups for name in group]
        if not names or not all(groups) or not all(isinstance(name, str) for name in names):
            raise ValueError("a group is empty, or a name is no text")
        if len(set(names)) < len(names):
            raise ValueError("a task is in two groups")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PwmError(
            f"groups={path} cannot be read as groups of tasks ({error}); give a number, or a file "
            'such as {"groups": [["walker-run", "walker-walk"], ["cup-catch"]]}.'
        ) from error
    return [list(group) for group in groups]


def chosen_groups(groups: Any, tasks: Sequence[Task], suite_given: bool) -> Groups:
    """The groups that a setting asks for.

    Args:
        groups: their number, by embodiment, or the path of a file.
        tasks: all that are to be in them.
        suite_given: whether a file may name other tasks too, which are left out.

    Raises:
        PwmError: if groups and tasks do not fit.
    """
    if isinstance(groups, int):
        return by_embodiment(tasks, groups)
    found, names = read_groups(Path(groups)), [task.name for task in tasks]
    known = {name for group in found for name in group}
    others = sorted(known - set(names))
    if missing := [name for name in names if name not in known]:
        strange = others and not suite_given
        unknown = f", and names {', '.join(others)}, which the data lack" if strange else ""
        raise PwmError(
            f"{groups} has no group for {', '.join(missing)}{unknown}; add them, or leave them "
            "out with suite=."
        )
    if not suite_given and others:
        raise PwmError(
            f"{groups} names {', '.join(others)}, which the data lack; remove them from it, or "
            "name the tasks to train on with suite=."
        )
    kept = [[name for name in group if name in names] for group in found]
    return [group for group in kept if group]
