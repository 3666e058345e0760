"""One world model, or several of which each is for some tasks, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import torch

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task, suite_from_table
from pwm.models.grouped_weights import differ_by_changes_alone, of_group, own_parts, task_groups
from pwm.models.stacked_world_model import StackedWorldModel
from pwm.models.world_model import WorldModel, find_world_model, load_world_model, model_of
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.grouped import is_grouped, read_members

Members = Sequence[tuple[Callable[[], WorldModel], Sequence[str]]]
"""What gives each of several world models, and the names of its tasks."""


class WorldModels:
    """World models and the tasks that each is for.

    Args:
        members: no task is in two.
        suite: all tasks, member by member.
        stack: gives the members as one, if there is such a thing.
    """

    def __init__(
        self, members: Members, suite: Suite, stack: Callable[[], StackedWorldModel] | None = None
    ) -> None:
        self._members = [(model, tuple(names)) for model, names in members]
        self.suite, self._stack = suite, stack

    @property
    def models(self) -> list[WorldModel]:
        """All of them."""
        return [model() for model, _ in self._members]

    @property
    def stack(self) -> StackedWorldModel | None:
        """The world models of all tasks as one that many tasks are called with at once."""
        return None if self._stack is None else self._stack()

    def of(self, task: str) -> WorldModel:
        """The world model of a task; raises PwmError for a task that none is for."""
        self.suite.id(task)
        return next(model() for model, names in self._members if task in names)

    def split(self, tasks: Iterable[Task]) -> list[tuple[WorldModel, list[Task]]]:
        """Tasks by their world model, those without tasks left out."""
        asked = list(tasks)
        parts = [
            (model, [task for task in asked if task.name in names])
            for model, names in self._members
        ]
        return [(model(), some) for model, some in parts if some]


def load_world_models(path: str | Path, device: str | torch.device = "cpu") -> WorldModels:
    """Open all world models at a path, frozen and in evaluation mode.

    Args:
        path: as for :func:`load_world_model`, or of several.
        device: where they run.

    Raises:
        PwmError: as :func:`load_world_model` does, or if one is not of the tasks it is said to be.
    """
    if not is_grouped(Path(path)):
        checkpoint = find_world_model(Path(path))
        if task_groups(checkpoint.meta):
            return _of_groups(checkpoint, device)
        model = model_of(checkpoint, device)
        return WorldModels([(lambda: model, model.suite.names)], model.suite)
    members = []
    for member in read_members(Path(path)):
        model = load_world_model(member.path, device)
        if unknown := [name for name in member.tasks if name not in model.suite]:
            raise PwmError(
                f"{member.path} does not know {', '.join(unknown)}, which {path} says that it is "
                "for; put it back from a copy."
            )
        members.append((model, member.tasks))
    if len(members) == 1 and members[0][1] == members[0][0].suite.names:
        suite = members[0][0].suite
    else:
        suite = _suite(model.suite[name] for model, names in members for name in names)
    return WorldModels([(partial(_same, model), names) for model, names in members], suite)


def _same(model: WorldModel) -> WorldModel:
    return model


def _suite(tasks: Iterable[Task]) -> Suite:
    chosen = tuple(tasks)
    return Suite(",".join(task.name for task in chosen), chosen)


def _of_groups(checkpoint: Checkpoint, device: str | torch.device) -> WorldModels:
    """A world model for each group of tasks; what does not differ between them is there once."""
    groups, own = task_groups(checkpoint.meta), own_parts(checkpoint)

    @cache
    def member(number: int) -> WorldModel:
        model = model_of(of_group(checkpoint, number), device)
        for name, part in member(0).named_children() if number else ():
            if name not in own:
                setattr(model, name, part)
        return model

    member(0)  # what is wrong with the checkpoint is to be said now
    known = suite_from_table(checkpoint.meta["suite"])
    suite = _suite(known[name] for names in groups for name in names)
    stack = None
    if differ_by_changes_alone(checkpoint):
        stack = cache(partial(StackedWorldModel, checkpoint, device))
    return WorldModels(
        [(partial(member, number), names) for number, names in enumerate(groups)], suite, stack
    )
