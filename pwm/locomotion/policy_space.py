"""A policy as a point in the space of its weights, which can be moved along directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call

from pwm.models.actor_critic import Actors

Act = Callable[[Tensor, Tensor], Tensor]
"""Actions (N, action_size) from features (N, size) and noise (N, action_size)."""


_DIFFERENCE = 1e-6  # in float64, of weights, in units of directions, for derivatives of actions


class PolicySpace:
    """One actor's weights, and actions as a function of where they are.

    Directions are lists of tensors like the weights. Their unit is a change of actions: along a
    direction of length 1 the root of the mean squared change of actions, at given states, is 1.
    """

    def __init__(self, actors: Actors) -> None:
        self._actors = actors
        self._names = [name for name, _ in actors.mean.named_parameters()]
        self._weights = [weight.detach() for _, weight in actors.mean.named_parameters()]

    def at(self, direction: Sequence[Tensor] | None = None, distance: float = 0.0) -> Act:
        """The policy some way along a direction, without gradients of weights."""
        weights = self._weights
        if direction is not None:
            moved = zip(weights, direction, strict=True)
            weights = [weight + distance * part for weight, part in moved]
        return partial(self._act, weights)

    def _act(self, weights: Sequence[Tensor], features: Tensor, noise: Tensor) -> Tensor:
        named = {f"mean.{n}": w for n, w in zip(self._names, weights, strict=True)}
        named |= {"log_std": self._actors.log_std.detach()}
        given = features.unsqueeze(0), noise.unsqueeze(0)
        found: Tensor = functional_call(self._actors, named, given)[0]
        return found

    def change(self, direction: Sequence[Tensor], features: Tensor, noise: Tensor) -> Tensor:
        """Derivatives (n, action_size) of actions along a direction, states held where they are."""
        at = [w.double() for w in self._weights]
        step = [_DIFFERENCE * part.double() for part in direction]
        with torch.no_grad():
            ahead, behind = (
                self._act(
                    [w + sign * d for w, d in zip(at, step, strict=True)],
                    features.double(),
                    noise.double(),
                )
                for sign in (1, -1)
            )
        return ((ahead - behind) / (2 * _DIFFERENCE)).to(features)

    def random(self, generator: torch.Generator, features: Tensor) -> list[Tensor]:
        """A random direction of length 1 at states (n, size)."""
        parts = [
            torch.randn(w.shape, generator=generator, device=w.device, dtype=w.dtype)
            for w in self._weights
        ]
        return self.of_length_one(parts, features)

    def gradient(self, features: Tensor, noise: Tensor, of_actions: Tensor) -> list[Tensor]:
        """The direction of length 1 in which a return rises whose gradients of actions are given.

        Args:
            features: (n, size), the states.
            noise: (n, action_size).
            of_actions: (n, action_size).
        """
        weights = list(self._actors.mean.parameters())
        with torch.enable_grad():
            flags = [weight.requires_grad for weight in weights]
            for weight in weights:
                weight.requires_grad_(True)
            actions = self._actors(features.unsqueeze(0), noise.unsqueeze(0))[0]
            grads = torch.autograd.grad((actions * of_actions).sum(), weights)
            for weight, flag in zip(weights, flags, strict=True):
                weight.requires_grad_(flag)
        return self.of_length_one(grads, features)

    def of_length_one(self, direction: Sequence[Tensor], features: Tensor) -> list[Tensor]:
        """The same direction in units of actions' change at states (n, size)."""
        scale = torch.stack([part.square().sum() for part in direction]).sum().sqrt()
        unit = [part / scale.clamp(min=1e-12) for part in direction]
        noise = torch.zeros(
            len(features), self._actors.action_mask.shape[1], device=features.device
        )
        length = self.change(unit, features, noise).square().mean().sqrt()
        return [part / length.clamp(min=1e-12) for part in unit]
