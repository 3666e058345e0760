"""How much of a model tasks share: heads that differ by group of tasks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.validation import (
    require_at_least,
    require_choice,
    require_valid,
)
from pwm.models.grouped_weights import TASK_GROUPS
from pwm.models.low_rank import FACTORS
from pwm.models.stacked_deltas import RowGroups, StackedDeltas
from pwm.multitask.changes import Changes
from pwm.runtime.seeding import stream_seed

SHARINGS = ("hard", "soft", "branches")


@dataclass
class HeadSharing:
    """How many heads there are, and what the ways of sharing them depend on.

    Attributes:
        members: of an ensemble of dynamics and reward heads on one encoder, the first of which is
            the world model. Each further one trains beside it on its own half of the windows,
            without changing it, and ``pwm extract`` takes all of them as its ensemble.
        dynamics: whether the latent dynamics differ by group as the reward head does; by default
            with ``soft`` alone.
        rank: of ``soft``: of the changes of each layer's weights.
        penalty: of ``soft``: coefficient of the mean over groups of the squared distance of their
            weights from the shared ones.
    """

    members: int = 1
    dynamics: bool | None = None
    rank: int = 4
    penalty: float = 0.01

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "members", "rank")
        require_at_least(self, 0, "penalty")


def require_sharing(config: Any) -> None:
    """Raise PwmError unless a config's ``sharing`` and what it is to go with fit each other."""
    require_choice(config, "sharing", SHARINGS)
    require_valid("heads", config.heads)
    _require_one_model(config)
    if config.sharing == "hard":
        return
    if config.sharing == "branches" and config.groups is None:
        raise PwmError(
            "sharing=branches needs groups=, for each of which there is a head: their number, by "
            "embodiment, or a file of groups."
        )
    if config.finetune != "none":
        raise PwmError(
            f"sharing={config.sharing} is of training on all tasks, and finetune="
            f"{config.finetune} for some of them; leave one of them out."
        )
    if config.parallel == "fsdp":
        raise PwmError(
            f"sharing={config.sharing} does not go with parallel=fsdp; give parallel=ddp."
        )


def _require_one_model(config: Any) -> None:
    """Raise PwmError for an ensemble of heads beside what it does not go with."""
    others = {
        f"sharing={config.sharing}": config.sharing != "hard",
        f"groups={config.groups}": config.groups is not None,
        f"finetune={config.finetune}": config.finetune != "none",
        f"parallel={config.parallel}": config.parallel in ("ddp", "fsdp"),
        f"accumulate={config.accumulate}": config.accumulate > 1,
    }
    for other, given in others.items():
        if given and config.heads.members > 1:
            raise PwmError(
                f"heads.members={config.heads.members} trains heads beside one world model in one "
                f"pass and process, and does not go with {other}; leave one of them out."
            )


class Branches(nn.Module):
    """A copy of a network for each group of rows.

    Args:
        net: what all groups begin with.
        groups: their number.
        rows: which rows, of the last dimension but one, are of which group.
    """

    def __init__(self, net: nn.Module, groups: int, rows: RowGroups) -> None:
        super().__init__()
        self.of_group = nn.ModuleList(copy.deepcopy(net) for _ in range(groups))
        self._rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, inputs) -> (..., n, outputs).

        Groups without rows compute nothing, and get gradients, zeros.
        """
        now = self._rows.now
        parts = x.index_select(-2, now.order).split(now.counts, -2)
        found = [net(part) for net, part in zip(self.of_group, parts, strict=True)]
        return torch.cat(found, -2).index_select(-2, now.places)


class GroupHeads(Changes):
    """Heads of a model that differ by group of tasks.

    Args:
        model: is changed; what it computes is not, before it is trained.
        names: of its networks that are to differ.
        groups: of ids of tasks.
        tasks: the names of all tasks by id.
        sharing: ``soft`` or ``branches``.
        settings: of it.
        seed: of the factors of changes.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        groups: Sequence[Sequence[int]],
        tasks: Sequence[str],
        sharing: str,
        settings: HeadSharing,
        seed: int,
    ) -> None:
        super().__init__(model)
        self._settings, self._deltas = settings, dict[str, StackedDeltas]()
        self._rows = RowGroups(len(groups))
        self.meta = {TASK_GROUPS: [[tasks[task] for task in group] for group in groups]}
        device = next(model.parameters()).device
        self._group = torch.zeros(len(tasks), dtype=torch.int64, device=device)
        for number, group in enumerate(groups):
            self._group[list(group)] = number
        forked = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(forked):  # so that all else draws what it does with shared heads
            torch.manual_seed(stream_seed(seed, "heads"))
            for name in names:
                if sharing == "soft":
                    self._change(name, model.get_submodule(name))
                else:
                    branches = Branches(model.get_submodule(name), len(groups), self._rows)
                    setattr(model, name, branches)
                    self.own += branches.parameters()

    def _change(self, name: str, net: nn.Module) -> None:
        sets, rank = len(self.meta[TASK_GROUPS]), self._settings.rank
        for number, layer in net.named_children():
            assert isinstance(layer.weight, Tensor)
            weight = layer.weight.detach()
            layer.change = StackedDeltas.none_yet(weight, sets, rank, 1.0, self._rows.product)
            self._deltas[f"{name}.{number}"] = layer.change
            self.own += layer.change.parameters()

    def of_tasks(self, task: Tensor) -> AbstractContextManager[None]:
        """As that of what it is a kind of."""
        return self._rows.of(self._group.to(task.device)[task])

    def penalty(self) -> Tensor | None:
        """The weighted mean over groups of the squared distance from the shared weights."""
        if not self._deltas:
            return None
        norms = torch.stack([delta.squared_norms() for delta in self._deltas.values()])
        return self._settings.penalty * norms.sum(0).mean()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has, by the names of :mod:`pwm.models.grouped_weights`."""
        names = self._saved_names()
        return {names.get(name, name): value for name, value in super().state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        own = {saved: name for name, saved in self._saved_names().items()}
        super().load_state_dict({own.get(name, name): value for name, value in state.items()})

    def _saved_names(self) -> dict[str, str]:
        return {
            f"{layer}.change.{factor}": f"{layer}.weight{saved}"
            for layer in self._deltas
            for factor, saved in zip(("into", "out"), FACTORS, strict=True)
        }
