"""What one iteration of extraction takes, for K tasks at once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Demonstrations(NamedTuple):
    """States of good episodes and what was done there, for behavior cloning."""

    latent: Tensor  # (K, B, latent)
    action: Tensor  # (K, B, action_dim)


class Transitions(NamedTuple):
    """Recorded transitions, for the critics."""

    latent: Tensor  # (K, B, latent)
    action: Tensor  # (K, B, action_dim)
    reward: Tensor  # (K, B), discounted sum over n steps, in the units that critics learn in
    discount: Tensor  # (K, B), of the value of the state after these steps
    next_latent: Tensor  # (K, B, latent)


class QInputs(NamedTuple):
    """What the Q functions of K tasks learn from in a few steps, one part a step."""

    transitions: Transitions  # of (steps * B) rows per task
    noise: Tensor  # (steps, K, B, action_dim) standard normal


class Noise(NamedTuple):
    """The random numbers of one iteration."""

    action: Tensor  # (H, K, B, action_dim) standard normal
    order: Tensor  # (critic iterations, H * B) permutations that cut the critics' batches


class Inputs(NamedTuple):
    """Everything that an iteration reads and does not change.

    Attributes:
        start: (K, B, latent), where imagined rollouts begin.
        noise: the iteration's random numbers.
        demonstrations: what to clone, in every iteration or in none.
        transitions: recorded transitions for the critics, in every iteration or in none.
        ensemble_start_latents: the start states as latents of the ensemble's further world models,
            each (K, B, that model's latent).
        q: what the Q functions learn from, if there are any.
    """

    start: Tensor
    noise: Noise
    demonstrations: Demonstrations | None = None
    transitions: Transitions | None = None
    ensemble_start_latents: tuple[Tensor, ...] = ()
    q: QInputs | None = None
