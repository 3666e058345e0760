"""The losses of policy extraction: pure functions of tensors and networks, for K tasks at once.

They are those of PWM (Georgiev et al., ICLR 2025), section 4 and Algorithm 1. Every loss is (K,),
one per task; their sum is what is differentiated, so no task's gradient depends on another's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pwm.extraction.inputs import Demonstrations, Transitions
from pwm.models.actor_critic import Actors, Critics
from pwm.models.math import discounted_sum, survival


def bootstrapped_return(
    rewards: Tensor, last_value: Tensor, discount: float, continuation: Tensor | None = None
) -> Tensor:
    """sum_t discount^t r_t + discount^H V(z_H) of imagined rollouts (PWM, eq. 5).

    With ``continuation`` every term is weighted by the probability that the episode gets there.

    Args:
        rewards: (H, K, B).
        last_value: (K, B), the value of the state that the last step leads to.
        discount: gamma, per decision step.
        continuation: (H, K, B), the probability that a step does not end the episode.

    Returns:
        (K, B).
    """
    if continuation is not None:
        alive = survival(continuation)
        rewards, last_value = alive[:-1] * rewards, alive[-1] * last_value
    return discounted_sum(rewards, discount) + discount ** len(rewards) * last_value


def actor_loss(returns: Tensor, return_scale: Tensor) -> Tensor:
    """Minus the mean return, in units of its running standard deviation (PWM, eq. 5).

    Args:
        returns: (K, B), from :func:`bootstrapped_return`, differentiable down to the actors.
        return_scale: (K,), without gradient.

    Returns:
        (K,).
    """
    return -returns.mean(1) / return_scale


def bc_loss(actors: Actors, demonstrations: Demonstrations) -> Tensor:
    """(K,) mean squared errors of the most likely action, per entry of an action (BC)."""
    mode = actors(demonstrations.latent)
    return distance_of_modes(mode, demonstrations.action, actors.action_mask)


def distance_of_modes(mode: Tensor, other: Tensor, action_mask: Tensor) -> Tensor:
    """(K,) mean squared distances of actions (K, n, action_dim), per entry that a task has.

    Twice the variance times the Kullback-Leibler divergence of Gaussians of one deviation: what
    holds a policy to another in BRAC (Wu et al. 2019).
    """
    return (mode - other).square().sum(-1).mean(1) / action_mask.sum(-1)


def pessimistic_value(critics: Critics, latent: Tensor) -> Tensor:
    """(K, n), the smallest value that a member of the ensemble gives: (K, n, latent)."""
    return critics(latent).amin(1)


def bellman_target(transitions: Transitions, next_value: Tensor) -> Tensor:
    """(K, B) n-step targets of recorded transitions: their rewards plus the discounted value."""
    return transitions.reward + transitions.discount * next_value


def critic_loss(
    critics: Critics, latent: Tensor, target: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Mean squared error of all ensemble members, in units of the critics' scale.

    Args:
        critics: K ensembles.
        latent: (K, n, latent) states.
        target: (K, n) their values' targets, without gradient.
        counts: (K, n), 1 for states that the mean is over and 0 for others; all by default.

    Returns:
        (K,).
    """
    error = critics(latent) - target.unsqueeze(1)
    squared = (error / critics.scale).square()
    return squared.mean((1, 2)) if counts is None else mean_of_counted(squared.mean(1), counts)


def expectile_loss(critics: Critics, latent: Tensor, target: Tensor, expectile: float) -> Tensor:
    """Squared errors of which those below the target count ``expectile``, others the rest of 1.

    Its least is where the values are that expectile of the targets (IQL, Kostrikov et al. 2022).

    Args:
        critics: K ensembles.
        latent: (K, n, latent) states.
        target: (K, n), without gradient.
        expectile: between 0 and 1; 0.5 gives half of :func:`critic_loss`.

    Returns:
        (K,).
    """
    error = (target.unsqueeze(1) - critics(latent)) / critics.scale
    weight = torch.where(error > 0, expectile, 1 - expectile)
    return (weight * error.square()).mean((1, 2))


def mean_of_counted(x: Tensor, counts: Tensor) -> Tensor:
    """(K,) means of the entries of (K, n) that count, 1 and not 0; zero where none does."""
    return (counts * x).sum(1) / counts.sum(1).clamp(min=1)
