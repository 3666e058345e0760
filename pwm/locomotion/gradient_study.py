"""Gradients of returns through a simulator and a world model, against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pwm.locomotion.batched_simulation import BatchedSimulation
from pwm.locomotion.policy_space import Act, PolicySpace
from pwm.models.math import survival, symexp
from pwm.models.world_model import WorldModel


class Rollout(NamedTuple):
    """Acting for H steps from N states, time first."""

    returns: Tensor  # (H, N), undiscounted sums of rewards up to and with each step
    actions: list[Tensor]  # H of (N, action_size), through which the returns can be differentiated
    features: Tensor  # (H, N, size), what the policy saw, without gradient


class World(Protocol):
    """What can be acted in."""

    def roll_out(self, act: Act, noise: Tensor, seed: int) -> Rollout:
        """Act under noise (H, N, action_size) from the states that a seed gives."""
        ...


class SimulatorWorld:
    """Acting in a simulator; episodes that end add nothing more.

    Args:
        simulation: of N environments.
        features: of observations (N, observation_size), what the policy sees.
    """

    def __init__(self, simulation: BatchedSimulation, features: Callable[[Tensor], Tensor]) -> None:
        self.simulation, self._features = simulation, features

    def roll_out(self, act: Act, noise: Tensor, seed: int) -> Rollout:
        """See :class:`World`."""
        observation = self.simulation.reset(seed)
        total = torch.zeros(len(observation), device=observation.device)
        alive = torch.ones_like(total)
        returns, actions, seen = [], [], []
        for step_noise in noise:
            features = self._features(observation)
            action = _with_gradient(act(features, step_noise))
            step = self.simulation.step(action)
            total = total + torch.where(alive > 0, step.reward, 0.0)
            alive = alive * ~(step.terminated | step.truncated)
            observation = step.observation
            returns.append(total)
            actions.append(action)
            seen.append(features.detach())
        return Rollout(torch.stack(returns), actions, torch.stack(seen))


class ModelWorld:
    """Acting in a world model of one task, from states of the simulator.

    Args:
        model: the world model, frozen.
        simulation: gives the states that rollouts begin in.
    """

    def __init__(self, model: WorldModel, simulation: BatchedSimulation) -> None:
        self._model, self._simulation = model, simulation
        self._task = torch.zeros(1, dtype=torch.int64, device=model.bins.device)

    def encode(self, observation: Tensor) -> Tensor:
        """(N, latent) of observations."""
        return self._model.encode(observation, self._task)

    def roll_out(self, act: Act, noise: Tensor, seed: int) -> Rollout:
        """See :class:`World`; rewards count as much as the episode is likely to get there."""
        model, task = self._model, self._task
        z = self.encode(self._simulation.reset(seed)).detach()
        rewards, latents, actions, seen = [], [], [], []
        for step_noise in noise:
            action = _with_gradient(act(z, step_noise))
            seen.append(z.detach())
            rewards.append(symexp(model.symlog_reward(z, action, task)))
            z = model.next(z, action, task)
            latents.append(z)
            actions.append(action)
        reward = torch.stack(rewards)
        if model.episodic:
            reward = reward * survival(model.continuation(torch.stack(latents), task))[:-1]
        return Rollout(reward.cumsum(0), actions, torch.stack(seen))


def _with_gradient(action: Tensor) -> Tensor:
    if not torch.is_grad_enabled() or action.requires_grad:
        return action
    return action.requires_grad_()


class Sampled(NamedTuple):
    """Derivatives along K directions at each horizon, of N samples."""

    values: Tensor  # (horizons, K, N)

    @property
    def mean(self) -> Tensor:
        """(horizons, K)."""
        return self.values.mean(-1)

    @property
    def variance(self) -> Tensor:
        """(horizons,) of a single sample, a mean over directions."""
        return self.values.var(-1).mean(-1)

    @property
    def standard_error(self) -> Tensor:
        """(horizons,) of the mean."""
        return (self.variance / self.values.shape[-1]).sqrt()


def first_order(
    world: World,
    space: PolicySpace,
    directions: Sequence[Sequence[Tensor]],
    horizons: Sequence[int],
    noise: Tensor,
    seed: int,
) -> Sampled:
    """What the gradient through a world says, sample by sample.

    A return depends on the weights through the actions alone. So one backward pass gives each
    sample's gradient of its own actions, and their product with how a direction changes the
    actions is the sample's derivative along it.
    """
    rollout = world.roll_out(space.at(), noise, seed)
    changes = torch.stack([_changes(space, direction, rollout, noise) for direction in directions])
    found = []
    for horizon in horizons:
        objective = rollout.returns[horizon - 1].sum()
        own = rollout.actions[:horizon]
        grads = torch.autograd.grad(objective, own, retain_graph=True, materialize_grads=True)
        found.append((changes[:, :horizon] * torch.stack(grads)).sum((1, 3)))
    return Sampled(torch.stack(found).detach())


def _changes(
    space: PolicySpace, direction: Sequence[Tensor], rollout: Rollout, noise: Tensor
) -> Tensor:
    """(H, N, action_size) derivatives of a rollout's actions along a direction."""
    flat = space.change(direction, rollout.features.flatten(0, 1), noise.flatten(0, 1))
    return flat.view_as(noise)


def steepest(
    world: World, space: PolicySpace, horizon: int, noise: Tensor, seed: int
) -> list[Tensor]:
    """The direction in which the mean return of a horizon rises fastest, by the gradient."""
    rollout = world.roll_out(space.at(), noise[:horizon], seed)
    grads = torch.autograd.grad(rollout.returns[-1].sum(), rollout.actions, materialize_grads=True)
    flat = rollout.features.flatten(0, 1), noise[:horizon].flatten(0, 1)
    return space.gradient(*flat, torch.stack(grads).flatten(0, 1))


@torch.no_grad()
def finite_differences(
    world: World,
    space: PolicySpace,
    directions: Sequence[Sequence[Tensor]],
    horizons: Sequence[int],
    noise: Tensor,
    seed: int,
    distance: float,
) -> Sampled:
    """Central differences of returns, each sample with the same state and noise on both sides."""
    rows = torch.tensor(list(horizons), device=noise.device) - 1
    found = []
    for direction in directions:
        ahead, behind = (
            world.roll_out(space.at(direction, sign * distance), noise, seed).returns[rows]
            for sign in (1, -1)
        )
        found.append((ahead - behind) / (2 * distance))
    return Sampled(torch.stack(found, 1))


@torch.no_grad()
def slice_along(
    world: World,
    space: PolicySpace,
    direction: Sequence[Tensor],
    distances: Sequence[float],
    noise: Tensor,
    seed: int,
) -> list[float]:
    """Mean returns of policies at distances along a direction."""
    return [
        float(world.roll_out(space.at(direction, d), noise, seed).returns[-1].mean())
        for d in distances
    ]


def compared(estimate: Sampled, truth: Sampled) -> dict[str, list[float]]:
    """By horizon: variance, bias and agreement of an estimate.

    ``bias`` is the root mean squared difference of mean derivatives from the truth's, over
    directions, as a share of the truth's root mean square; ``noise`` is what chance alone would
    give it. ``signal`` is a mean derivative's square over its variance.
    """
    difference, size = estimate.mean - truth.mean, truth.mean.square().mean(-1).sqrt()
    by_chance = (estimate.standard_error**2 + truth.standard_error**2).sqrt()
    signal = estimate.mean.square().mean(-1) / estimate.variance.clamp(min=1e-30)
    floor = size.clamp(min=1e-12)
    return {
        "variance": estimate.variance.tolist(),
        "bias": (difference.square().mean(-1).sqrt() / floor).tolist(),
        "noise": (by_chance / floor).tolist(),
        "correlation": _correlation(estimate.mean, truth.mean).tolist(),
        "signal": signal.tolist(),
    }


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Over directions, around zero, since a direction's sign is arbitrary."""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp(min=1e-12)


def ruggedness(returns: Sequence[float]) -> float:
    """How far a slice goes up and down, in units of its range: 1 on a slope, 2 over one hill."""
    values = torch.tensor(list(returns), dtype=torch.float64)
    return float(values.diff().abs().sum() / (values.max() - values.min()).clamp(min=1e-12))
