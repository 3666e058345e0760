"""Running mean and deviation of observations, which networks get normalized."""

from __future__ import annotations

import torch
from torch import Tensor

from pwm.models.math import running_moments

_FLOOR = 0.01  # of a deviation, so that an entry that never changed is no huge input once it does


class ObservationMoments:
    """Of all observations so far, each batch with the same weight.

    Attributes:
        mean, std: (observation_size,), 0 and 1 before the first batch.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._moments = torch.zeros(3, size, device=device)

    def update(self, observations: Tensor) -> None:
        """Take in observations (..., observation_size)."""
        batch = observations.detach().flatten(0, -2).T
        mean, variance, weight = self._moments.unbind()
        self._moments.copy_(torch.stack(running_moments(mean, variance, weight, batch, 1.0)))

    @property
    def mean(self) -> Tensor:
        """See the class."""
        return self._moments[0]

    @property
    def std(self) -> Tensor:
        """See the class."""
        _, variance, weight = self._moments.unbind()
        return torch.where(weight > 0, variance.sqrt().clamp(min=_FLOOR), 1.0)

    def normalized(self, observations: Tensor) -> Tensor:
        """In units of the deviation around the mean."""
        return (observations - self.mean) / self.std

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"mean,variance,weight": self._moments}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """What :meth:`tensors` gave."""
        self._moments.copy_(tensors["mean,variance,weight"])
