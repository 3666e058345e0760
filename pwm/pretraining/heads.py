"""Which heads of a world model differ by group of tasks, as ``sharing`` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pwm.core.errors import PwmError
from pwm.core.fingerprints import MadeOf, fingerprint
from pwm.core.suites import Task
from pwm.models.grouped_weights import task_groups
from pwm.models.world_model import WorldModel, find_world_model
from pwm.multitask.groups import Groups, chosen_groups
from pwm.multitask.sharing import GroupHeads
from pwm.pretraining.config import PretrainConfig
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.grouped import is_grouped


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
    heads = GroupHeads(
        model, names, ids, model.suite.names, config.sharing, config.heads, config.seed
    )
    if (begun := begun_heads(config)) is not None:
        _go_on(heads, begun, config)
    return heads


def begun_heads(config: PretrainConfig) -> Checkpoint | None:
    """The checkpoint of ``init``, if heads of it differ by group of tasks.

    Raises:
        PwmError: if the settings need it to be one model.
    """
    if config.init is None or is_grouped(Path(config.init)):
        return None
    found = find_world_model(Path(config.init))
    if not task_groups(found.meta):
        return None
    if config.sampling.surprise:
        raise PwmError(
            f"sampling.surprise={config.sampling.surprise:g} takes errors of one world model, and "
            f"heads of {config.init} differ by group of tasks; leave it out."
        )
    return found


def _go_on(heads: GroupHeads, begun: Checkpoint, config: PretrainConfig) -> None:
    """Have heads begin as those of a checkpoint."""
    shapes, before = (
        {name: tensor.shape for name, tensor in state.items()}
        for state in (heads.state_dict(), begun.tensors["model"])
    )
    if shapes != before or task_groups(heads.meta) != task_groups(begun.meta):
        raise PwmError(
            f"sharing={config.sharing} is to go on from {config.init}, whose heads differ by other "
            "groups of tasks or in another way; give its sharing=, groups=, heads= and suite=, or "
            "another init=."
        )
    heads.load_state_dict(begun.tensors["model"])
