"""Fitted Q evaluation: what a policy gains until an episode ends, from recorded steps alone.

A function of state and action is fitted to what follows for one step to go, then for two, and so on
to a whole episode (Le, Voloshin and Yue 2019; linear in its features as in Duan, Jia and Wang
2020). So returns of whole episodes come out without a discount, and so does success at an
episode's last step. Each fit is a ridge regression, which has a closed form: nothing is trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BOUNDED_EVERY = 5  # sweeps, the last one too; to bound values takes all rows


@dataclass(frozen=True)
class Gain:
    """What episodes of a task are valued by.

    Attributes:
        steps: T, of a whole episode.
        least, most: of what a step gives.
        at_the_end: only an episode's last step gives something.
    """

    steps: int
    least: float
    most: float
    at_the_end: bool = False

    def bounds(self, to_go: int) -> tuple[float, float]:
        """The least and the most that can be gained with so many steps to go."""
        count = min(to_go, 1) if self.at_the_end else to_go
        return count * min(self.least, 0.0), count * max(self.most, 0.0)


class RandomFeatures:
    """E draws of F rectified random projections of a state and an action, and a constant.

    Args:
        members: E.
        states: size of a state, whose entries should have a variance of one.
        actions: size of an action in [-1, 1].
        count: F.
        generator: of the draws, on the device of what they are applied to.
    """

    def __init__(
        self, members: int, states: int, actions: int, count: int, generator: torch.Generator
    ) -> None:
        shape, device = (members, states + actions, count), generator.device
        scale = torch.full((states + actions, 1), states**-0.5, device=device)
        scale[states:] = actions**-0.5
        self._weight = scale * torch.randn(shape, generator=generator, device=device)
        drawn = torch.rand(members, 1, count, generator=generator, device=device)
        self._bias = 2 * drawn - 1

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """(n, states), (n, actions) -> (E, n, F + 1)."""
        projected = torch.cat([state, action], -1) @ self._weight + self._bias
        return torch.cat([projected.relu(), torch.ones_like(projected[..., :1])], -1)


class FittedEvaluation:
    """E evaluations on the same recorded steps, each with features and weights of its own.

    Args:
        features: (E, n, F) of states and of what was done there.
        weight: (E, n), how much a step counts.
        reward: (n,), what it gave.
        gain: what episodes are valued by.
        ridge: penalty, in units of a feature's mean square.
    """

    def __init__(
        self, features: Tensor, weight: Tensor, reward: Tensor, gain: Gain, ridge: float
    ) -> None:
        self._reward, self._gain = reward, gain
        share = weight / weight.sum(1, keepdim=True).clamp(min=1e-8)
        weighted = (features * share.unsqueeze(-1)).mT.double()
        gram = weighted @ features.double()
        diagonal = gram.diagonal(dim1=1, dim2=2).clamp(min=1e-8)
        self._fit = torch.linalg.solve(gram + ridge * torch.diag_embed(diagonal), weighted).float()

    def coefficients(self, next_features: Tensor) -> Tensor:
        """(E, F) of the function for whole episodes.

        Args:
            next_features: (E, n, F) of the states that steps led to and of what a policy does
                there; zero where the episode ended.
        """
        gain, found = self._gain, torch.zeros_like(next_features[:, 0]).unsqueeze(-1)
        onward = self._fit @ next_features  # a sweep without bounds is a product of (F, F)
        each = self._fit @ self._reward.unsqueeze(-1)
        for to_go in range(gain.steps):
            rewarded = to_go == 0 or not gain.at_the_end
            if (gain.steps - 1 - to_go) % _BOUNDED_EVERY:
                found = onward @ found
            else:
                found = self._fit @ (next_features @ found).clamp(*gain.bounds(to_go))
            found = found + each if rewarded else found
        return found.squeeze(-1)

    def value(self, coefficients: Tensor, features: Tensor) -> Tensor:
        """(E, m) values of whole episodes from states and actions with features (E, m, F) on."""
        values = (features @ coefficients.unsqueeze(-1)).squeeze(-1)
        return values.clamp(*self._gain.bounds(self._gain.steps))
