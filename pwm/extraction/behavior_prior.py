"""Staying near a known policy wherever imagination leads, with a weight that sets itself."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from pwm.extraction.losses import distance_of_modes
from pwm.extraction.offline_settings import PriorConfig
from pwm.models.actor_critic import Actors

_RATE = 0.03  # of the logarithm of a weight, per iteration at twice the target or more
_LARGEST = 1e4


class BehaviorPrior:
    """K actors as they were when iterations began, and the price of leaving them.

    Where the actors are farther from them than the target, the price of a task rises by up to 3 %
    an iteration, and where they are nearer it falls: a dual variable of the constraint on the mean
    distance, so that the scale of returns, which differs between tasks, does not matter.

    Args:
        actors: of which this keeps a copy, renewed by :meth:`renew`.
        config: see :class:`PriorConfig`.
    """

    def __init__(self, actors: Actors, config: PriorConfig) -> None:
        self._config = config
        self.actors = copy.deepcopy(actors).requires_grad_(False)
        weight = torch.full((len(actors.action_mask),), config.weight)
        self.log_weight = weight.log().to(actors.action_mask.device)
        target = math.inf if config.target is None else config.target
        self.target = torch.full_like(self.log_weight, target)

    @property
    def weight(self) -> Tensor:
        """(K,), of the distance beside the normalized return."""
        return self.log_weight.exp()

    @torch.no_grad()
    def renew(self, actors: Actors, spread: Tensor | None = None) -> None:
        """Become a copy of the actors as they are now.

        Args:
            actors: those.
            spread: (K,) mean distances of recorded actions from theirs, of which relative targets
                are shares.
        """
        for own, given in zip(self.actors.parameters(), actors.parameters(), strict=True):
            own.copy_(given)
        if self._config.relative_target is not None:
            assert spread is not None
            self.target.copy_(self._config.relative_target * spread)

    def distance(self, mode: Tensor, latent: Tensor) -> Tensor:
        """(K,) mean distances at latents (K, n, latent) of the actors' modes (K, n, action_dim)."""
        with torch.no_grad():
            own = self.actors(latent)
        return distance_of_modes(mode, own, self.actors.action_mask)

    @torch.no_grad()
    def set_weight(self, distance: Tensor) -> None:
        """Raise or lower the weights after an iteration at distances (K,)."""
        if self._config.target is None and self._config.relative_target is None:
            return
        excess = (distance / self.target - 1).clamp(-1, 1).nan_to_num(0.0)
        self.log_weight.add_(_RATE * excess).clamp_(-math.log(_LARGEST), math.log(_LARGEST))

    def tensors(self) -> dict[str, Tensor]:
        """All state, for a checkpoint."""
        own = {"log_weight": self.log_weight}
        if self._config.relative_target is not None:
            own["target"] = self.target
        return own | self.actors.state_dict()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` gave."""
        actors = dict(tensors)
        self.log_weight.copy_(actors.pop("log_weight"))
        if self._config.relative_target is not None:
            self.target.copy_(actors.pop("target"))
        self.actors.load_state_dict(actors)
