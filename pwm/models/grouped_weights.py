"""Checkpoints of a world model of which some weights differ by group of tasks.

Where a weight ``<name>`` differs by low-rank changes, its factors ``<name>.delta_in`` and
``<name>.delta_out`` (:mod:`pwm.models.low_rank`) are stacked, those of the first group first. Where
a network ``<name>`` is there once a group, the weights of the group g begin with
``<name>.of_group.<g>``. The JSON part says which tasks are in which group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pwm.core.errors import PwmError
from pwm.models.low_rank import FACTORS
from pwm.runtime.checkpoint import Checkpoint

TASK_GROUPS = "task_groups"
"""The entry of a checkpoint's JSON part with the names of each group's tasks."""

_OF_GROUP = ".of_group."
_SHOWN = 8  # groups in a message


def task_groups(meta: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The names of each group's tasks; none of a model whose weights are of all tasks."""
    return [tuple(names) for names in meta.get(TASK_GROUPS, ())]


def of_tasks(checkpoint: Checkpoint, tasks: Iterable[str] | None) -> Checkpoint:
    """The world model of the group that some tasks are in, or of all tasks if there are no groups.

    Args:
        checkpoint: of a world model.
        tasks: names; None for all.

    Raises:
        PwmError: if they are not all in one group.
    """
    groups = task_groups(checkpoint.meta)
    if not groups:
        return checkpoint
    wanted = {name for names in groups for name in names} if tasks is None else {*tasks}
    for number, names in enumerate(groups):
        if wanted <= {*names}:
            return of_group(checkpoint, number)
    parts = "; ".join(", ".join(names) for names in groups[:_SHOWN])
    parts += "; ..." if len(groups) > _SHOWN else ""
    raise PwmError(
        f"{checkpoint.path} has weights of their own for each of {len(groups)} groups of tasks, "
        "and what is asked for takes one world model: name tasks of one group, where tasks can be "
        f"named ({parts}), or give a world model whose weights all tasks share."
    )


def of_group(checkpoint: Checkpoint, number: int) -> Checkpoint:
    """The world model of one group, as if there were no others."""
    state = {}
    for name, tensor in checkpoint.tensors["model"].items():
        network, is_of_group, rest = name.partition(_OF_GROUP)
        if is_of_group:
            group, _, name = rest.partition(".")
            if int(group) == number:
                state[f"{network}.{name}"] = tensor
        else:
            state[name] = tensor[number] if name.endswith(FACTORS) else tensor
    meta = {name: value for name, value in checkpoint.meta.items() if name != TASK_GROUPS}
    return replace(checkpoint, tensors={**checkpoint.tensors, "model": state}, meta=meta)


def own_parts(checkpoint: Checkpoint) -> set[str]:
    """Names of the networks that differ by group."""
    return {
        name.split(".", 1)[0]
        for name in checkpoint.tensors["model"]
        if _OF_GROUP in name or name.endswith(FACTORS)
    }


def differ_by_changes_alone(checkpoint: Checkpoint) -> bool:
    """Whether groups have no networks of their own, but low-rank changes of shared ones."""
    return not any(_OF_GROUP in name for name in checkpoint.tensors["model"])
