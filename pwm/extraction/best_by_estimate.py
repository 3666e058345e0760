"""The best policies of an extraction so far, chosen by what recorded data say of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pwm.extraction.expected_scores import ExpectedScore, ScoreEstimator
from pwm.extraction.stacked_networks import keep_tasks
from pwm.models.actor_critic import Actors
from pwm.models.policy import Policy


class BestByEstimate:
    """K actors as they were when their expected scores were highest.

    Not the lower ends of intervals: these are wider for better policies, and ranked them badly
    (docs/results/offline-choice.md).

    Args:
        estimators: of the K tasks.
        policies: the K tasks' policies of given actors.
        actors: of which this keeps a copy.
    """

    def __init__(
        self,
        estimators: Sequence[ScoreEstimator],
        policies: Callable[[Actors], list[Policy]],
        actors: Actors,
    ) -> None:
        self._estimators, self._policies = estimators, policies
        self.actors = copy.deepcopy(actors).requires_grad_(False)
        device = actors.action_mask.device
        self._score = torch.full((len(estimators),), -torch.inf, device=device)

    def estimate(self, actors: Actors) -> list[ExpectedScore]:
        """The expected score of each task's policy."""
        pairs = zip(self._estimators, self._policies(actors), strict=True)
        return [estimator(policy) for estimator, policy in pairs]

    def consider(self, actors: Actors) -> dict[str, Tensor]:
        """Keep the tasks' actors that are better than those before; (K,) metrics of what came."""
        found = self.estimate(actors)
        score = torch.tensor([each.score for each in found], device=self._score.device)
        better = score > self._score
        keep_tasks(self.actors, actors, better)
        self._score = torch.where(better, score, self._score)
        return estimate_metrics(found)

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        return {"score": self._score, **self.actors.state_dict()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` gave."""
        actors = dict(tensors)
        self._score.copy_(actors.pop("score"))
        self.actors.load_state_dict(actors)


def estimate_metrics(found: Sequence[ExpectedScore]) -> dict[str, Tensor]:
    """(K,) expected scores and the ends of their intervals, by name."""
    return {
        "expected_score": torch.tensor([score.score for score in found]),
        "expected_score_low": torch.tensor([score.low for score in found]),
        "expected_score_high": torch.tensor([score.high for score in found]),
    }
