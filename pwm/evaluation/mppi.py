"""Planning at test time: MPPI on a world model, as TD-MPC2 does it (ICLR 2024, section 3.2).

N environments, of the same or of different tasks, are planned for in lockstep. Shapes below: S
candidate action sequences per environment, H decision steps ahead, A the suite's action size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pwm.core.errors import PwmError
from pwm.core.validation import (
    require_at_least,
    require_finite,
    require_positive,
)
from pwm.models.actor_critic import Actors, Critics, TaskCritic, load_critic
from pwm.models.math import expected_bin, symexp
from pwm.models.policy import Policy
from pwm.models.policy_directory import policy_path
from pwm.models.world_model import WorldModel


@dataclass
class PlannerConfig:
    """Settings of MPPI; the values are TD-MPC2's.

    Attributes:
        horizon: H, decision steps ahead.
        samples: S, candidate sequences per environment and iteration.
        policy_trajectories: how many of them a policy proposes.
        elites: the best candidates, to which the sampling distribution is fitted.
        iterations: rounds of sampling and fitting.
        temperature: elites weigh exp(temperature x (value - best value)).
        min_std, max_std: bounds of the sampling distribution; it starts from the upper one.
        max_rows: candidates evaluated at once; more environments than fit take turns.
    """

    horizon: int = 3
    samples: int = 512
    policy_trajectories: int = 24
    elites: int = 64
    iterations: int = 6
    temperature: float = 0.5
    min_std: float = 0.05
    max_std: float = 2.0
    max_rows: int = 16_384

    def validate(self) -> None:
        """Raise PwmError for values that cannot work."""
        require_at_least(self, 1, "horizon", "samples", "elites", "iterations", "max_rows")
        require_at_least(self, 0, "policy_trajectories")
        for name in ("elites", "policy_trajectories"):
            if (count := getattr(self, name)) > self.samples:
                raise PwmError(f"{name}={count} must be at most samples={self.samples}.")
        require_finite(self, "temperature")
        require_positive(self, "min_std", "max_std")
        if self.min_std > self.max_std:
            raise PwmError(f"min_std={self.min_std} must be at most max_std={self.max_std}.")


class TerminalValue(Protocol):
    """A policy that proposes actions, and the value of where a plan ends.

    Attributes:
        discount: (tasks,) per decision step, by task id.
        reward_units: ``real`` or ``symlog``, the units of the value; rewards are summed in them.
    """

    discount: Tensor
    reward_units: str

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """Actions (N, n, A) sampled at latents (N, n, latent) of tasks (N, 1)."""

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """Values (N, n) of latents; ``noise`` (N, n, A) is for a value that samples an action."""


class TDMPC2Guide:
    """TD-MPC2's own guide: the policy prior and the Q ensemble of a world model.

    The value is the mean over all members, which is what TD-MPC2's mean of two random members
    estimates.

    Raises:
        PwmError: if the world model has neither.
    """

    reward_units = "real"

    def __init__(self, model: WorldModel) -> None:
        if not model.has_q:
            raise PwmError(
                "this world model has no Q ensemble and policy prior, so planning has no value to "
                "end on; pretrain with q_and_prior=true, or give extracted policies and use "
                "planner+actor."
            )
        self.model = model
        discounts = [task.discount for task in model.suite]
        self.discount = torch.tensor(discounts, device=model.bins.device)

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        return self.model.sample_prior(z, task, noise)[0]

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        logits = self.model.q_logits(z, self.propose(z, task, noise), task)
        return symexp(expected_bin(logits, self.model.bins)).mean(0)


class ActorAndCritic:
    """One extracted actor and critic ensemble per task, in the place of the prior and Q.

    Args:
        model: the world model that the policies were extracted from.
        policies: by task name.
        critics: by task name, as extraction saved them beside each policy.

    Raises:
        PwmError: for a policy of another world model, or policies of different settings.
    """

    def __init__(
        self,
        model: WorldModel,
        policies: Mapping[str, Policy],
        critics: Mapping[str, TaskCritic],
    ) -> None:
        for policy in policies.values():
            _require_same_encoder(model, policy)
        first = next(iter(policies))
        like = _settings(policies[first], critics[first])
        unlike = [name for name in policies if _settings(policies[name], critics[name]) != like]
        if unlike:
            raise PwmError(
                f"the policies of {first} and {unlike[0]} were extracted with different networks, "
                "discounts or reward units; plan for them in separate evaluations."
            )
        device = model.bins.device
        self._actor, self._critic = policies[first].actor, critics[first].values
        self._actors = _stack([policy.actor for policy in policies.values()], device)
        self._critics = _stack([critics[name].values for name in policies], device)
        self._place = torch.zeros(len(model.suite), dtype=torch.long, device=device)
        for place, name in enumerate(policies):
            self._place[model.suite.id(name)] = place
        self.reward_units = critics[first].reward_units
        self.discount = torch.full((len(model.suite),), critics[first].discount, device=device)

    @classmethod
    def load(
        cls, model: WorldModel, policies: Mapping[str, Policy], directory: Path
    ) -> ActorAndCritic:
        """Policies with the critics that are saved beside them in a directory.

        Raises:
            PwmError: as the constructor does, or for a policy without a critic.
        """
        critics = {name: load_critic(policy_path(directory, name)) for name in policies}
        return cls(model, policies, critics)

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        return self._call(self._actor, self._actors, task, z, noise)

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`: the least of the ensemble's values."""
        return self._call(self._critic, self._critics, task, z).amin(1)

    def _call(
        self, module: nn.Module, stacked: Mapping[str, Tensor], task: Tensor, *inputs: Tensor
    ) -> Tensor:
        place = self._place[task.squeeze(1)]
        weights = {name: tensor[place].flatten(0, 1) for name, tensor in stacked.items()}
        return functional_call(module, weights, inputs)


def _stack(modules: Sequence[Actors | Critics], device: torch.device) -> dict[str, Tensor]:
    """Parameters and buffers of equal modules of one task each: (tasks, 1 or members, ...)."""
    tensors = [dict(module.named_parameters()) | dict(module.named_buffers()) for module in modules]
    return {name: torch.stack([t[name] for t in tensors]).to(device) for name in tensors[0]}


def _settings(policy: Policy, critic: TaskCritic) -> tuple[object, ...]:
    networks = policy.architecture["actor"]
    return networks, critic.reward_units, critic.discount, critic.values.scale


def _require_same_encoder(model: WorldModel, policy: Policy) -> None:
    read = {} if policy.encoder is None else policy.encoder.state_dict()
    encoder = model.encoder.state_dict()
    same = read.keys() == encoder.keys() and all(
        torch.equal(tensor.cpu(), read[name].cpu()) for name, tensor in encoder.items()
    )
    if not same:
        raise PwmError(
            f"the policy of {policy.task.name} does not read this world model's latents (its "
            "encoder differs); give the world model that it was extracted from as checkpoint=."
        )


class PlanNoise(NamedTuple):
    """The random numbers of one decision; those of an environment come from its own stream."""

    policy: Tensor  # (N, H, policy trajectories, A) standard normal
    samples: Tensor  # (N, iterations, H, other candidates, A) standard normal
    terminal: Tensor  # (N, iterations, S, A) standard normal
    choice: Tensor  # (N,) uniform

    @classmethod
    def draw(
        cls, streams: Sequence[torch.Generator], config: PlannerConfig, actions: int
    ) -> PlanNoise:
        """Draw from one stream per environment; ``actions`` is A."""
        rest = config.samples - config.policy_trajectories
        shapes = (
            (config.horizon, config.policy_trajectories, actions),
            (config.iterations, config.horizon, rest, actions),
            (config.iterations, config.samples, actions),
        )
        sizes = [int(np.prod(shape)) for shape in shapes]
        normal = torch.stack(
            [torch.randn(sum(sizes), generator=g, device=g.device) for g in streams]
        )
        uniform = torch.stack([torch.rand((), generator=g, device=g.device) for g in streams])
        policy, samples, terminal = (
            part.unflatten(1, shape)
            for part, shape in zip(normal.split(sizes, 1), shapes, strict=True)
        )
        return cls(policy, samples, terminal, uniform)


class Fit(NamedTuple):
    """A sampling distribution fitted to the best candidates."""

    mean: Tensor  # (N, H, A)
    std: Tensor  # (N, H, A)
    elites: Tensor  # (N, H, E, A), best first
    weight: Tensor  # (N, E), sums to one


def fit_elites(actions: Tensor, value: Tensor, config: PlannerConfig) -> Fit:
    """Mean and deviation of the best candidates, weighted by value (TD-MPC2, eq. 6).

    Args:
        actions: candidates (N, H, S, A).
        value: (N, S).
        config: how many are the best, and how they weigh.
    """
    best, index = value.topk(config.elites, dim=1)
    weight = (config.temperature * (best - best[:, :1])).softmax(1)
    shape = (-1, actions.shape[1], -1, actions.shape[3])
    elites = actions.gather(2, index[:, None, :, None].expand(shape))
    share = weight[:, None, :, None]
    mean = (share * elites).sum(2)
    variance = (share * (elites - mean.unsqueeze(2)).square()).sum(2)
    return Fit(mean, variance.sqrt().clamp(config.min_std, config.max_std), elites, weight)


class Plan(NamedTuple):
    """One decision per environment."""

    action: Tensor  # (N, A), in [-1, 1], zero in unused dimensions
    mean: Tensor  # (N, H, A), of the fitted distribution


class Planner:
    """Model-predictive path integral control for many environments at once.

    Args:
        model: the world model.
        guide: where proposals and terminal values come from.
        config: see :class:`PlannerConfig`.
    """

    def __init__(self, model: WorldModel, guide: TerminalValue, config: PlannerConfig) -> None:
        config.validate()
        self.model, self.guide, self.config = model, guide, config

    @torch.no_grad()
    def plan(
        self, obs: Tensor, task: Tensor, start: Tensor, streams: Sequence[torch.Generator]
    ) -> Plan:
        """Decide for every environment; one does not depend on which are planned for beside it.

        Args:
            obs: (N, obs_dim), zero-padded to the suite's size.
            task: (N,) task ids.
            start: (N, H, A) means to start sampling around: :func:`shifted` from the last
                decision's, zeros at an episode's first.
            streams: one generator per environment, on the model's device.
        """
        size = max(1, self.config.max_rows // self.config.samples)
        actions = self.model.action_mask.shape[1]
        plans = []
        for first in range(0, len(obs), size):
            part = slice(first, first + size)
            noise = PlanNoise.draw(streams[part], self.config, actions)
            plans.append(self._plan(obs[part], task[part], start[part], noise))
        return Plan(*(torch.cat(parts) for parts in zip(*plans, strict=True)))

    def _plan(self, obs: Tensor, task: Tensor, start: Tensor, noise: PlanNoise) -> Plan:
        z = self.model.encode(obs, task)
        task = task.unsqueeze(1)
        mask = self.model.action_mask[task].unsqueeze(1)  # (N, 1, 1, A)
        proposals = self._proposals(z, task, noise.policy)
        mean, std = start, torch.full_like(start, self.config.max_std)
        for i in range(self.config.iterations):
            sampled = mean.unsqueeze(2) + std.unsqueeze(2) * noise.samples[:, i]
            actions = torch.cat([proposals, sampled.clamp(-1, 1)], 2) * mask
            value = self.value(z, actions, task, noise.terminal[:, i])
            fit = fit_elites(actions, value, self.config)
            mean, std = fit.mean, fit.std
        return Plan(_choose(fit, noise.choice), mean)

    def _proposals(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """(N, H, policy trajectories, A) actions of the guide's policy, followed in imagination."""
        z = z.unsqueeze(1).expand(-1, noise.shape[2], -1)
        actions = [self.guide.propose(z, task, noise[:, 0])]
        for step in range(1, noise.shape[1]):
            z = self.model.next(z, actions[-1], task)
            actions.append(self.guide.propose(z, task, noise[:, step]))
        return torch.stack(actions, 1)

    def value(self, z: Tensor, actions: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """Discounted reward of action sequences, and the value of where they end.

        Nothing counts after a state at which the model holds a termination for likelier than not.

        Args:
            z: (N, latent), where they start.
            actions: (N, H, S, A).
            task: (N, 1) task ids.
            noise: (N, S, A), passed to the guide's value.

        Returns:
            (N, S), in the guide's reward units.
        """
        z = z.unsqueeze(1).expand(-1, actions.shape[2], -1)
        discount = self.guide.discount[task]
        total: Tensor | float = 0.0
        alive = torch.ones(z.shape[:2], device=z.device)
        for step, action in enumerate(actions.unbind(1)):
            reward = self.model.symlog_reward(z, action, task)
            if self.guide.reward_units == "real":
                reward = symexp(reward)
            total = total + discount**step * (alive * reward)
            z = self.model.next(z, action, task)
            if self.model.episodic:
                alive = alive * (self.model.continuation(z, task) >= 0.5)
        last = alive * self.guide.value(z, task, noise)
        return total + discount ** actions.shape[1] * last


def _choose(fit: Fit, uniform: Tensor) -> Tensor:
    """The first action of an elite drawn by weight: (N, A)."""
    passed = fit.weight.cumsum(1) <= uniform.unsqueeze(1)
    index = passed.sum(1).clamp(max=fit.weight.shape[1] - 1)
    return fit.elites[torch.arange(len(index), device=index.device), 0, index]


def shifted(mean: Tensor) -> Tensor:
    """Means to start the next decision from: (N, H, A) moved on by one step, zeros at the end."""
    return F.pad(mean[:, 1:], (0, 0, 0, 1))
