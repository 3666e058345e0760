"""Actors and critic ensembles of K tasks at once, and the policy that a user deploys.

Tensors of K tasks carry the task dimension right before the batch: (K, B, ...), or (H, K, B, ...)
with time first. K = 1 is not a special case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.core.validation import (
    from_plain,
    require_at_least,
    require_choice,
    require_finite,
    require_positive,
    require_share,
)
from pwm.models.layers import StackedLinear, StackedMLP
from pwm.models.world_model import LARGEST_WIDTH
from pwm.runtime.checkpoint import load_checkpoint, read_meta, rebuild
from pwm.runtime.device import resolve_device

REWARD_UNITS = ("symlog", "real")


@dataclass
class ActorCriticSize:
    """Network sizes of policy extraction (PWM, appendix on hyperparameters).

    Attributes:
        actor, critic: hidden layer widths.
        critics: members of the critic ensemble.
        log_std: initial log standard deviation of the actor, the same in all states.
        min_log_std: its lower bound.
    """

    actor: list[int]
    critic: list[int]
    critics: int = 3
    log_std: float = -1.0
    min_log_std: float = -1.427

    def validate(self) -> None:
        """Raise PwmError for sizes that cannot work."""
        require_at_least(self, 1, "critics")
        require_finite(self, "log_std", "min_log_std")
        require_widths(self, "actor", "critic")


def require_widths(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is no list of layer widths."""
    for name in names:
        widths = getattr(config, name)
        if not all(1 <= width <= LARGEST_WIDTH for width in widths):
            raise PwmError(f"{name}={widths} must be layer widths of 1 to {LARGEST_WIDTH}.")


class Actors(nn.Module):
    """K independent Gaussian policies squashed by tanh.

    Args:
        inputs: feature size, the latent's.
        action_mask: (K, action_dim), 1 for the action dimensions that a task has.
    """

    action_mask: Tensor

    def __init__(self, inputs: int, action_mask: Tensor, size: ActorCriticSize) -> None:
        super().__init__()
        tasks, action_dim = action_mask.shape
        self.min_log_std = size.min_log_std
        self.mean = StackedMLP(tasks, inputs, size.actor, action_dim)
        self.log_std = nn.Parameter(torch.full((tasks, action_dim), size.log_std))
        self.register_buffer("action_mask", action_mask, persistent=False)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the action before tanh, (K, action_dim), the same in all states."""
        return self.log_std.clamp(min=self.min_log_std).exp()

    def mean_std(self) -> Tensor:
        """(K,) means of it over the action dimensions that a task has."""
        return (self.std * self.action_mask).sum(1) / self.action_mask.sum(1)

    def forward(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions in [-1, 1], zero in unused dimensions.

        Args:
            features: (K, B, inputs).
            noise: standard normal (K, B, action_dim); without it, the mode tanh(mean).

        Returns:
            (K, B, action_dim).
        """
        pre_tanh = self.mean(features)
        if noise is not None:
            pre_tanh = pre_tanh + noise * self.std.unsqueeze(1)
        return torch.tanh(pre_tanh) * self.action_mask.unsqueeze(1)


class Critics(nn.Module):
    """K independent ensembles of E state-value functions.

    Args:
        scale: factor on the networks' outputs, so that values far from zero are learned at the
            same speed as values near it.
    """

    def __init__(self, tasks: int, inputs: int, size: ActorCriticSize, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.value = StackedMLP(tasks * size.critics, inputs, size.critic, 1)
        if size.critic:
            last_hidden = self.value[-2]
            assert isinstance(last_hidden, StackedLinear)
            last_hidden.fused_dtype = torch.float32

    def forward(self, latent: Tensor) -> Tensor:
        """Every member's value: (K, B, latent) -> (K, E, B).

        Under autocast the output layer stays in float32: bfloat16 has no room for a value's digits.
        """
        *hidden, output = self.value
        features = latent
        for layer in hidden:
            features = layer(features)
        with torch.autocast(latent.device.type, enabled=False):
            value = output(features.to(self.value.dtype))
        return self.scale * value.squeeze(-1).unflatten(0, (len(latent), -1))


@dataclass(frozen=True)
class TaskCritic:
    """The value function that extraction learned beside a task's policy.

    Attributes:
        values: an ensemble of one task over the world model's latents; its least is the value.
        reward_units: ``symlog`` or ``real``, the units of the rewards that values are sums of.
        discount: a decision step.
    """

    values: Critics
    reward_units: str
    discount: float


def load_critic(path: str | Path, device: str | torch.device = "cpu") -> TaskCritic:
    """Open the critic that extraction saved beside a policy.

    Args:
        path: the directory of one task's policy.
        device: where it runs.

    Raises:
        PwmError: if there is none, it is damaged, or torch cannot compute on the device.
    """
    device = resolve_device(str(device))
    meta = read_meta(Path(path), "policy")
    if "critic" not in meta:
        raise PwmError(
            f"{path} holds a policy without its critic; extract the policy again with this version "
            "of pwm (cloned and shipped policies have none)."
        )
    state = load_checkpoint(Path(path), "policy", groups=("critic",)).tensors["critic"]
    facts = from_plain(_CriticFacts, meta["critic"])
    facts.validate()

    def described() -> Critics:
        size = from_plain(ActorCriticSize, meta["architecture"]["actor"])
        size.validate()
        return Critics(1, meta["architecture"]["model"]["latent_dim"], size, facts.scale)

    values = rebuild(Path(path), described, state)
    values.to(device).eval().requires_grad_(False)
    return TaskCritic(values, facts.reward_units, facts.discount)


@dataclass
class _CriticFacts:
    """What a checkpoint says of a critic beside its networks."""

    reward_units: str = MISSING
    discount: float = MISSING
    scale: float = MISSING

    def validate(self) -> None:
        require_choice(self, "reward_units", REWARD_UNITS)
        require_share(self, "discount")
        require_positive(self, "scale")


def action_masks(tasks: Sequence[Task], action_dim: int) -> Tensor:
    """(K, action_dim): 1 for the dimensions that each task has."""
    dims = torch.tensor([task.action_dim for task in tasks])
    return (torch.arange(action_dim) < dims.unsqueeze(1)).float()
