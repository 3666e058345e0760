"""Planning at test time: MPPI on a world model, as TD-MPC2 does it (ICLR 2024, section 3.2).

N environments, of the same or of different tasks, are planned for in lockstep. Shapes below: S
candidate action sequences per environment, H decision steps ahead, A the suite's action size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.core.errors import PwmError
from pwm.core.validation import (
    require_at_least,
    require_finite,
    require_positive,
)
from pwm.evaluation.mppi_guides import TerminalValue
from pwm.models.math import symexp
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Acceleration


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
        max_rows: candidates evaluated at once; more environments than fit take turns. A GPU with
            room takes up to four times as many.
        compile, precision: see :class:`pwm.runtime.acceleration.Acceleration`; but on a CPU
            ``compile=auto`` is never, so that decisions stay the same to the last bit.
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
    compile: str = "auto"
    precision: str = "auto"

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
        Acceleration(self.compile, self.precision).validate()

    def acceleration(self, device: torch.device) -> Acceleration:
        """How the arithmetic is to run on a device."""
        exact = self.compile == "auto" and device.type == "cpu"
        return Acceleration("never" if exact else self.compile, self.precision)


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
        device = model.action_mask.device
        self.accelerator = config.acceleration(device).prepare(device)
        self._decide = self.accelerator.capture(self._plan)
        self._environments = max(1, _rows_at_once(model, config) // config.samples)

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
        actions = self.model.action_mask.shape[1]
        plans = []
        for first in range(0, len(obs), self._environments):
            part = slice(first, first + self._environments)
            noise = PlanNoise.draw(streams[part], self.config, actions)
            with self.accelerator.arithmetic():
                plan = self._decide(obs[part], task[part], start[part], noise)
            plans.append([tensor.clone() for tensor in plan])  # the next call overwrites it
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


_BYTES_A_UNIT = 32  # of a Q ensemble's hidden layer at once: the layer, its norm, Mish's steps


def _rows_at_once(model: WorldModel, config: PlannerConfig) -> int:
    """``max_rows``, and on a GPU up to four times as many if they take half of the free memory."""
    device = model.action_mask.device
    if device.type != "cuda":
        return config.max_rows
    members = model.size.num_q if model.has_q else 1
    a_row = _BYTES_A_UNIT * members * model.size.mlp_dim
    fitting = torch.cuda.mem_get_info(device)[0] // (2 * a_row)
    return min(4 * config.max_rows, max(config.max_rows, fitting))


def _choose(fit: Fit, uniform: Tensor) -> Tensor:
    """The first action of an elite drawn by weight: (N, A)."""
    passed = fit.weight.cumsum(1) <= uniform.unsqueeze(1)
    index = passed.sum(1).clamp(max=fit.weight.shape[1] - 1)
    return fit.elites[torch.arange(len(index), device=index.device), 0, index]


def shifted(mean: Tensor) -> Tensor:
    """Means to start the next decision from: (N, H, A) moved on by one step, zeros at the end."""
    return F.pad(mean[:, 1:], (0, 0, 0, 1))
