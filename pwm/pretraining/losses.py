"""The losses of the world model, its Q ensemble and its policy prior (TD-MPC2, ICLR 2024)."""

from __future__ import annotations

from dataclasses import dataclass
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
    model: WorldModel, batch: Batch, rollout: LatentRollout, rho: float, weights: LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """Latent consistency and reward loss of a batch of windows (TD-MPC2, eq. 3).

    Args:
        model: the world model.
        batch: windows of H steps.
        rollout: their :func:`roll_out`.
        rho: weight of a step relative to the one before it.
        weights: coefficients of the terms.

    Returns:
        The weighted scalar loss, and its unweighted parts as detached scalars.
    """
    steps = horizon_weights(batch.action, rho)
    error = F.mse_loss(rollout.latents[1:], rollout.targets, reduction="none")
    consistency = weighted_sum(error.mean((1, 2)), steps)
    logits = model.reward_logits(rollout.latents[:-1], batch.action, batch.task)
    cross_entropy = soft_cross_entropy(logits, batch.reward, model.bins)
    reward = weighted_sum(cross_entropy.mean(1), steps)
    loss = weights.consistency * consistency + weights.reward * reward
    return loss, {"consistency_loss": consistency.detach(), "reward_loss": reward.detach()}


def termination_loss(model: WorldModel, batch: Batch, rollout: LatentRollout) -> Tensor:
    """Cross-entropy of predicted and recorded terminations, where each step leads (TD-MPC2).

    An episode ends at most once, and then in a window's last row. So latents that were predicted
    over fewer steps never are of an end; those that the encoder gives of the same rows stand for
    them.

    Args:
        model: a world model with a termination head.
        batch: windows of H steps, with ``terminated``.
        rollout: their :func:`roll_out`.

    Returns:
        A scalar, the mean over both kinds of latents, all steps and windows.
    """
    assert batch.terminated is not None
    latents = torch.stack([rollout.latents[1:], rollout.targets])
    logits = model.termination_logits(latents, batch.task)
    terminated = batch.terminated.to(logits.dtype).expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, terminated)


class PriorNoise(NamedTuple):
    """The random numbers of one update of Q ensemble and policy prior."""

    target: Tensor  # (H, B, action_dim) standard normal
    policy: Tensor  # (H+1, B, action_dim) standard normal
    members: Tensor  # (4,) ensemble members: two for the TD target, two for the policy


def value_loss(
    model: WorldModel,
    batch: Batch,
    rollout: LatentRollout,
    discount: Tensor,
    rho: float,
    noise: PriorNoise,
) -> Tensor:
    """Cross-entropy of every Q member to the one-step TD target of the policy prior.

    Args:
        model: a world model with Q ensemble and prior.
        batch: windows of H steps.
        rollout: their :func:`roll_out`.
        discount: (B,) per-task discount.
        rho: weight of a step relative to the one before it.
        noise: the update's random numbers.

    Returns:
        A scalar, averaged over members and steps with the weights rho^t.
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
    return weighted_sum(loss.mean((0, 2)), horizon_weights(batch.action, rho))


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
