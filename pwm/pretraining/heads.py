"""Which heads of a world model differ by group of tasks, as ``sharing`` says."""

from __future__ import annotations

from collections.abc import Sequence

from pwm.core.fingerprints import MadeOf, fingerprint
from pwm.core.suites import Task
from pwm.models.world_model import WorldModel
from pwm.multitask.groups import Groups, chosen_groups
from pwm.multitask.sharing import GroupHeads
from pwm.pretraining.config import PretrainConfig


def head_groups(config: PretrainConfig, tasks: Sequence[Task]) -> Groups:
    """Names of the tasks of each group; none where all tasks share all.

    Raises:
        PwmError: if ``groups`` and tasks do not fit.
    """
    if config.sharing == "hard":
        return []
    if config.groups is None:
        return [[task.name] for task in tasks]
    some = config.suite is not None or config.init is not None
    return chosen_groups(config.groups, tasks, some)


def fingerprints(groups: Groups) -> MadeOf:
    """What a run records of groups, so that it goes on with these alone."""
    return {"groups=": fingerprint(groups)} if groups else {}


def share_heads(model: WorldModel, groups: Groups, config: PretrainConfig) -> GroupHeads | None:
    """Have heads of a model differ by group of tasks; what it computes stays the same so far."""
    if not groups:
        return None
    dynamics = config.heads.dynamics
    names = ["reward_head"]
    if config.sharing == "soft" if dynamics is None else dynamics:
        names.append("dynamics")
    ids = [[model.suite.id(name) for name in group] for group in groups]
    return GroupHeads(
        model, names, ids, model.suite.names, config.sharing, config.heads, config.seed
    )
