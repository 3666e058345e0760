"""One world model, or several of which each is for some tasks, behind one face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, Task
from pwm.models.grouped_weights import of_group, parts_of_groups, task_groups
from pwm.models.world_model import WorldModel, find_world_model, load_world_model, model_of
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.grouped import is_grouped, read_members


class WorldModels:
    """World models and the tasks that each is for.

    Args:
        members: each with the names of its tasks; no task is in two.

    Attributes:
        suite: all tasks, member by member.
    """

    def __init__(self, members: Sequence[tuple[WorldModel, Sequence[str]]]) -> None:
        self._members = [(model, tuple(names)) for model, names in members]
        if len(self._members) == 1 and self._members[0][1] == self._members[0][0].suite.names:
            self.suite = self._members[0][0].suite
        else:
            tasks = tuple(model.suite[name] for model, names in members for name in names)
            self.suite = Suite(",".join(task.name for task in tasks), tasks)

    @property
    def models(self) -> list[WorldModel]:
        """All of them."""
        return [model for model, _ in self._members]

    def of(self, task: str) -> WorldModel:
        """The world model of a task; raises PwmError for a task that none is for."""
        self.suite.id(task)
        return next(model for model, names in self._members if task in names)

    def split(self, tasks: Iterable[Task]) -> list[tuple[WorldModel, list[Task]]]:
        """Tasks by their world model, those without tasks left out."""
        asked = list(tasks)
        parts = [
            (model, [task for task in asked if task.name in names])
            for model, names in self._members
        ]
        return [(model, some) for model, some in parts if some]


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
            return WorldModels(_of_groups(checkpoint, device))
        model = model_of(checkpoint, device)
        return WorldModels([(model, model.suite.names)])
    members = []
    for member in read_members(Path(path)):
        model = load_world_model(member.path, device)
        if unknown := [name for name in member.tasks if name not in model.suite]:
            raise PwmError(
                f"{member.path} does not know {', '.join(unknown)}, which {path} says that it is "
                "for; put it back from a copy."
            )
        members.append((model, member.tasks))
    return WorldModels(members)


def _of_groups(
    checkpoint: Checkpoint, device: str | torch.device
) -> list[tuple[WorldModel, tuple[str, ...]]]:
    """A world model for each group of tasks; what does not differ between them is there once."""
    groups, own = task_groups(checkpoint.meta), parts_of_groups(checkpoint)
    models = [model_of(of_group(checkpoint, number), device) for number in range(len(groups))]
    for model in models:
        for name, part in models[0].named_children():
            if name not in own:
                setattr(model, name, part)
    return list(zip(models, groups, strict=True))
