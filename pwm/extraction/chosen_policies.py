"""The best policies of an extraction so far, chosen by what is found of them on the way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from pwm.core.suites import Task
from pwm.extraction.stacked_networks import keep_tasks
from pwm.models.actor_critic import Actors
from pwm.models.policy import Policy


class Found(Protocol):
    """What is found of a policy."""

    @property
    def score(self) -> float:
        """0..100."""

    @property
    def low(self) -> float:
        """The lower end of its interval."""

    @property
    def high(self) -> float:
        """The upper end."""


Judged = Callable[[Sequence[Policy]], Sequence[Found]]
"""What is found of K tasks' policies."""


class Judge(Protocol):
    """Scores policies by what an extraction itself has not, such as simulators."""

    def require(self, tasks: Sequence[Task]) -> None:
        """Raise PwmError if it will not be able to score policies of these tasks."""

    def __call__(self, policies: Sequence[Policy], /) -> Sequence[Found]:
        """What is found of policies, of a task each."""


class ChosenPolicies:
    """K actors as they were when their scores were highest.

    Not the lower ends of intervals: those of expected scores are wider for better policies, and
    ranked them badly (docs/results/offline-choice.md).

    Args:
        judged: what is found of K policies.
        name: of the scores, among the metrics.
        policies: the K tasks' policies of given actors.
        actors: of which this keeps a copy.

    Attributes:
        actors: the best so far.
        score: (K,), theirs.
        first: (K,), of the actors that were considered first.
        at: (K,), the iteration after which the best came.
        considered: how often there was a choice.
    """

    def __init__(
        self,
        judged: Judged,
        name: str,
        policies: Callable[[Actors], list[Policy]],
        actors: Actors,
    ) -> None:
        self._judged, self._name, self._policies = judged, name, policies
        self.actors = copy.deepcopy(actors).requires_grad_(False)
        tasks = len(actors.action_mask)
        device = actors.action_mask.device
        self.score = torch.full((tasks,), -torch.inf, device=device)
        self.first, self.at = torch.zeros_like(self.score), torch.zeros_like(self.score)
        self.considered = torch.zeros((), device=device)

    def consider(self, actors: Actors, iteration: int) -> dict[str, Tensor]:
        """Keep the tasks' actors that are better than those before; (K,) metrics of what came.

        Args:
            actors: K of them, as they are now.
            iteration: after which they are.
        """
        found = self._judged(self._policies(actors))
        score = torch.tensor([each.score for each in found], device=self.score.device)
        if not self.considered:
            self.first.copy_(score)
        better = score > self.score
        keep_tasks(self.actors, actors, better)
        self.score.copy_(torch.where(better, score, self.score))
        self.at.masked_fill_(better, iteration)
        self.considered += 1
        return metrics_of(found, self._name)

    def table(self, tasks: Sequence[Task], what: str) -> Table:
        """A terminal table: a row per task.

        Args:
            tasks: the K tasks.
            what: the scores are of.
        """
        table = Table(
            title="Policies that are kept",
            caption=f"Scores, {what}. The best of {int(self.considered)}, so a little flattered; "
            "`pwm evaluate` plays other episodes.",
            box=SIMPLE_HEAD,
            caption_justify="left",
        )
        table.add_column("task")
        for head in ("before", "kept", "after iteration"):
            table.add_column(head, justify="right")
        columns = (self.first.tolist(), self.score.tolist(), self.at.tolist())
        for task, first, score, at in zip(tasks, *columns, strict=True):
            table.add_row(task.name, f"{first:z.1f}", f"{score:z.1f}", f"{at:,.0f}")
        return table

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        return {**self._numbers(), **self.actors.state_dict()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` gave."""
        actors = dict(tensors)
        for name, own in self._numbers().items():
            own.copy_(actors.pop(name, own))
        self.actors.load_state_dict(actors)

    def _numbers(self) -> dict[str, Tensor]:
        return {
            "score": self.score,
            "first": self.first,
            "at": self.at,
            "considered": self.considered,
        }


def metrics_of(found: Sequence[Found], name: str) -> dict[str, Tensor]:
    """(K,) scores and the ends of their intervals, by name."""
    return {
        name: torch.tensor([each.score for each in found]),
        f"{name}_low": torch.tensor([each.low for each in found]),
        f"{name}_high": torch.tensor([each.high for each in found]),
    }
