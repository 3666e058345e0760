"""The losses of the world model, its Q ensemble and its policy prior (TD-MPC2, ICLR 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.data.windows.sampler import Batch
from pwm.models.math import expected_bin, soft_cross_entropy, symexp, weighted_sum
from pwm.models.world_model import WorldModel


@dataclass
class LossWeights:
    """Coefficients of the world model's loss (TD-MPC2, appendix on hyperparameters)."""

    consistency: float = 20.0
    reward: float = 0.1
    value: float = 0.1
    termination: float = 1.0


class Term(NamedTuple):
    """One term of the loss of a batch of windows, without its coefficient."""

    mean: Tensor  # () over windows
    windows: Tensor  # (B,) of each window; their mean is ``mean`` up to rounding


class LatentRollout(NamedTuple):
    """Open-loop latents of a batch and the encoder's targets, time first."""

    latents: Tensor  # (H+1, B, latent)
    targets: Tensor  # (H, B, latent), no gradient
    predicted: tuple[Tensor, ...] = ()  # H of (B, latent), where the dynamics were frozen


def roll_out(model: WorldModel, batch: Batch, frozen: bool = False) -> LatentRollout:
    """Encode the first observation and follow the recorded actions through the dynamics.

    With ``frozen`` the dynamics get no gradients, but every latent that they predict keeps its own:
    :func:`dynamics_gradient_loss` gives the dynamics theirs.
    """
    # With gradients first: before torch 2.11 autocast kept what it rounded without them.
    z = model.encode(batch.obs[0], batch.task)
    with torch.no_grad():
        targets = model.encode(batch.obs[1:], batch.task)
    embedding = model.task_embedding(batch.task)
    follow = model.next_without_gradients() if frozen else model.next
    if frozen:
        embedding = embedding.detach()
        if not z.requires_grad:  # of an encoder that learns nothing
            z.requires_grad_()
    latents = [z]
    for action in batch.action:
        z = follow(z, action, embedding)
        latents.append(z)
    predicted = tuple(latents[1:]) if frozen else ()
    for z in predicted:
        z.retain_grad()
    return LatentRollout(torch.stack(latents), targets, predicted)


def dynamics_gradient_loss(model: WorldModel, batch: Batch, rollout: LatentRollout) -> Tensor:
    """What has the dynamics' gradient of a loss whose gradient the latents of a rollout have.

    The loss depends on the dynamics through the predicted latents alone. So their gradient is that
    of one prediction of all steps at once, in place of a sum of one for each step.
    """
    latents = model.next(rollout.latents[:-1].detach(), batch.action, batch.task)
    return (latents * torch.stack([_gradient(z) for z in rollout.predicted])).sum()


def _gradient(z: Tensor) -> Tensor:
    assert z.grad is not None
    return z.grad


def horizon_weights(steps: Tensor, rho: float) -> Tensor:
    """rho^t / H for t = 0..H-1, where H is the length, and the dtype that, of ``steps``."""
    return rho ** torch.arange(len(steps), device=steps.device, dtype=steps.dtype) / len(steps)


def world_model_loss(
    model: WorldModel, batch: Batch, rollout: LatentRollout, rho: float
) -> dict[str, Term]:
    """Latent consistency and reward loss of a batch of windows (TD-MPC2, eq. 3).

    Args:
        model: the world model.
        batch: windows of H steps.
        rollout: their :func:`roll_out`.
        rho: weight of a step relative to the one before it.

    Returns:
        The terms ``consistency`` and ``reward``.
    """
    steps = horizon_weights(batch.action, rho)
    error = F.mse_loss(rollout.latents[1:], rollout.targets, reduction="none")
    logits = model.reward_logits(rollout.latents[:-1], batch.action, batch.task)
    cross_entropy = soft_cross_entropy(logits, batch.reward, model.bins)
    return {
        "consistency": Term(
            weighted_sum(error.mean((1, 2)), steps), weighted_sum(error.mean(2), steps)
        ),
        "reward": Term(
            weighted_sum(cross_entropy.mean(1), steps), weighted_sum(cross_entropy, steps)
        ),
    }


def model_terms(
    model: WorldModel, batch: Batch, rollout: LatentRollout, rho: float
) -> dict[str, Term]:
    """The terms of :func:`world_model_loss`, and ``termination`` of a model that predicts it."""
    terms = world_model_loss(model, batch, rollout, rho)
    if model.episodic:
        terms["termination"] = termination_loss(model, batch, rollout)
    return terms


def total_loss(
    terms: Mapping[str, Term], coefficients: LossWeights, of_windows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of the terms times their coefficients.

    Args:
        terms: by the names of their coefficients.
        coefficients: of the terms.
        of_windows: (B,) weights of the windows in the mean over them; 1 by default.

    Returns:
        The loss, a scalar, and that of each window, (B,), without weights and gradient.
    """
    scaled = [(getattr(coefficients, name), term) for name, term in terms.items()]
    windows = _sum(c * term.windows for c, term in scaled)
    if of_windows is None:
        return _sum(c * term.mean for c, term in scaled), windows.detach()
    return (windows * of_windows).mean(), windows.detach()


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return reduce(add, terms)


def termination_loss(model: WorldModel, batch: Batch, rollout: LatentRollout) -> Term:
    """Cross-entropy of predicted and recorded terminations, where each step leads (TD-MPC2).

    An episode ends at most once, and then in a window's last row. So latents that were predicted
    over fewer steps never are of an end; those that the encoder gives of the same rows stand for
    them.

    Args:
        model: a world model with a termination head.
        batch: windows of H steps, with ``terminated``.
        rollout: their :func:`roll_out`.

    Returns:
        The mean over both kinds of latents and all steps.
    """
    assert batch.terminated is not None
    latents = torch.stack([rollout.latents[1:], rollout.targets])
    logits = model.termination_logits(latents, batch.task)
    terminated = batch.terminated.to(logits.dtype).expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, terminated, reduction="none")
    return Term(each.mean(), each.mean((0, 1)))


class PriorNoise(NamedTuple):
    """The random numbers of one update of Q ensemble and policy prior."""

    target: Tensor  # (H, B, action_dim) standard normal
    policy: Tensor  # (H+1, B, action_dim) standard normal
    members: Tensor  # (4,) ensemble members: two for the TD target, two for the policy

    def part(self, windows: slice | Tensor) -> PriorNoise:
        """Those of some of the windows, by a slice or their numbers."""
        return PriorNoise(self.target[:, windows], self.policy[:, windows], self.members)


def value_loss(
    model: WorldModel,
    batch: Batch,
    rollout: LatentRollout,
    discount: Tensor,
    rho: float,
    noise: PriorNoise,
) -> Term:
    """Cross-entropy of every Q member to the one-step TD target of the policy prior.

    Args:
        model: a world model with Q ensemble and prior.
        batch: windows of H steps.
        rollout: their :func:`roll_out`.
        discount: (B,) per-task discount.
        rho: weight of a step relative to the one before it.
        noise: the update's random numbers.

    Returns:
        The mean over members and steps, with the weights rho^t.
    """
    with torch.no_grad():
        action, _ = model.sample_prior(rollout.targets, batch.task, noise.target)
        logits = model.target_q_logits(rollout.targets, action, batch.task, noise.members[:2])
        pair = symexp(expected_bin(logits, model.bins))
        later = discount * pair.amin(0)
        if batch.terminated is not None:
            later = later.masked_fill(batch.terminated, 0.0)
        target = batch.reward + later
    logits = model.q_logits(rollout.latents[:-1], batch.action, batch.task)
    loss = soft_cross_entropy(logits, target.expand(len(logits), -1, -1), model.bins)
    steps = horizon_weights(batch.action, rho)
    return Term(weighted_sum(loss.mean((0, 2)), steps), weighted_sum(loss.mean(0), steps))


def prior_loss(
    model: WorldModel,
    rollout: LatentRollout,
    task: Tensor,
    q_scale: Tensor,
    rho: float,
    noise: PriorNoise,
    entropy_weight: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Maximum-entropy objective of the policy prior on detached latents (TD-MPC2, eq. 4).

    Args:
        model: a world model with Q ensemble and prior.
        rollout: a batch's :func:`roll_out`.
        task: (B,) ids.
        q_scale: scalar that Q-values are divided by.
        rho: weight of a step relative to the one before it.
        noise: the update's random numbers.
        entropy_weight: of the prior's log-probability.

    Returns:
        The scalar loss, and the detached Q-values at t = 0, (B,), for the running scale.
    """
    z = rollout.latents.detach()
    action, log_prob = model.sample_prior(z, task, noise.policy)
    logits = model.q_logits(z, action, task, noise.members[2:])
    q = symexp(expected_bin(logits, model.bins)).mean(0)
    loss = (entropy_weight * log_prob - q / q_scale).mean(1)
    return weighted_sum(loss, horizon_weights(z, rho)), q[0].detach()
