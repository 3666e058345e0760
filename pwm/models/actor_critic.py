"""Actors and critic ensembles of K tasks at once, and the policy that a user deploys.

Tensors of K tasks carry the task dimension right before the batch: (K, B, ...), or (H, K, B, ...)
with time first. K = 1 is not a special case.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.suites import Task, task_from_table
from pwm.core.validation import (
    from_plain,
    require_at_least,
    require_choice,
    require_finite,
    require_positive,
    require_share,
)
from pwm.models.angles import angle_periods, wrapped
from pwm.models.layers import SimNorm, StackedMLP, mlp
from pwm.models.world_model import LARGEST_WIDTH, ModelSize, WorldModel
from pwm.runtime.checkpoint import halved, load_checkpoint, read_meta, rebuild, save_checkpoint

REWARD_UNITS = ("symlog", "real")

_ENCODER = "encoder"


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
        for name in ("actor", "critic"):
            widths = getattr(self, name)
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
            std = self.log_std.clamp(min=self.min_log_std).exp()
            pre_tanh = pre_tanh + noise * std.unsqueeze(1)
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


class Policy(nn.Module):
    """A self-contained policy of one task: normalization, encoder, task embedding and actor.

    ``act`` takes what the environment returns and gives what it accepts.

    Attributes:
        task: what it was made for; fixes observation and action size.
    """

    obs_mean: Tensor
    obs_scale: Tensor
    obs_period: Tensor
    embedding: Tensor

    def __init__(
        self,
        task: Task,
        encoder: nn.Module | None,
        embedding: Tensor,
        obs_mean: Tensor,
        obs_scale: Tensor,
        actor: Actors,
        architecture: dict[str, Any],
    ) -> None:
        super().__init__()
        self.task, self.architecture = task, architecture
        self._wrap_angles: bool = architecture.get("wrap_angles", False)
        self.encoder, self.actor = encoder, actor
        self.register_buffer("embedding", embedding)
        self.register_buffer("obs_mean", obs_mean)
        self.register_buffer("obs_scale", obs_scale)
        if self._wrap_angles:
            period = angle_periods([task], len(obs_mean))[0]
            self.register_buffer("obs_period", period.to(obs_mean.device), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_latent_actor(
        cls, world_model: WorldModel, task: Task, actors: Actors, index: int, size: ActorCriticSize
    ) -> Policy:
        """The policy of one of K actors that read a world model's latents."""
        suite, device = world_model.suite, world_model.bins.device
        task_id = torch.tensor(suite.id(task.name), device=device)
        mean = torch.zeros(suite.obs_dim, device=device)
        scale = torch.ones(suite.obs_dim, device=device)
        if world_model.normalize_obs:
            mean, scale = world_model.obs_mean[task_id], world_model.obs_scale[task_id]
        architecture = {
            "obs_dim": suite.obs_dim,
            "model": asdict(world_model.size),
            "actor": asdict(size),
            "action_dim": suite.action_dim,
            "wrap_angles": world_model.normalize_obs and world_model.wrap_angles,
        }
        return cls(
            task,
            copy.deepcopy(world_model.encoder),
            world_model.task_embedding(task_id).detach().clone(),
            mean.clone(),
            scale.clone(),
            _single_actor(actors, index, size),
            architecture,
        )

    @classmethod
    def from_observation_actor(
        cls,
        task: Task,
        obs_mean: Tensor,
        obs_scale: Tensor,
        actors: Actors,
        index: int,
        size: ActorCriticSize,
    ) -> Policy:
        """The policy of one of K actors that read normalized observations, without an encoder."""
        architecture = {
            "obs_dim": len(obs_mean),
            "model": None,
            "actor": asdict(size),
            "action_dim": actors.action_mask.shape[1],
        }
        embedding = torch.zeros(0, device=obs_mean.device)
        actor = _single_actor(actors, index, size)
        return cls(task, None, embedding, obs_mean.clone(), obs_scale.clone(), actor, architecture)

    @overload
    def act(self, obs: np.ndarray, noise: float = ..., rng: Any = ...) -> np.ndarray: ...
    @overload
    def act(self, obs: Tensor, noise: float = ..., rng: Any = ...) -> Tensor: ...
    @torch.no_grad()
    def act(
        self,
        obs: np.ndarray | Tensor,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray | Tensor:
        """The action for an observation, or one for each of a batch.

        Args:
            obs: (obs_dim,) or (..., obs_dim), NumPy or torch; the result is of the same kind.
            noise: standard deviation of Gaussian noise added to the action, then clipped.
            rng: its source; a fresh one by default.

        Returns:
            (action_dim,) or (..., action_dim), float32 in [-1, 1].

        Raises:
            PwmError: if the last dimension is not the task's observation size.
        """
        # A copy: torch takes no read-only or reversed arrays, which simulators and users have.
        given = (
            obs.float() if isinstance(obs, Tensor) else torch.from_numpy(np.array(obs, np.float32))
        )
        if given.shape[-1:] != (self.task.obs_dim,):
            raise PwmError(
                f"the policy of {self.task.name} takes observations of size {self.task.obs_dim}, "
                f"got an array of shape {tuple(given.shape)}."
            )
        action = self(given.to(self.obs_mean.device))
        if noise:
            rng = rng or np.random.default_rng()
            jitter = rng.standard_normal(tuple(action.shape), dtype=np.float32)
            action = (action + noise * torch.from_numpy(jitter).to(action.device)).clamp(-1, 1)
        return action.to(given.device) if isinstance(obs, Tensor) else action.cpu().numpy()

    def forward(self, obs: Tensor) -> Tensor:
        """The most likely action: (..., obs_dim) -> (..., action_dim), sizes of the task."""
        padding = self.architecture["obs_dim"] - self.task.obs_dim
        obs = nn.functional.pad(obs, (0, padding))
        if self._wrap_angles:
            obs = wrapped(obs, self.obs_period)
        features = (obs - self.obs_mean) / self.obs_scale
        if self.encoder is not None:
            embedding = self.embedding.expand(*features.shape[:-1], -1)
            features = self.encoder(torch.cat([features, embedding], -1))
        flat = features.reshape(1, -1, features.shape[-1])
        action = self.actor(flat).reshape(*features.shape[:-1], -1)
        return action[..., : self.task.action_dim]

    def save(
        self,
        path: str | Path,
        meta: Mapping[str, Any] | None = None,
        critic: TaskCritic | None = None,
        compact: bool = False,
    ) -> None:
        """Write a checkpoint directory that :func:`load_policy` opens.

        Args:
            path: created or replaced.
            meta: how the policy was made, anything JSON can hold.
            critic: saved beside the policy for :func:`load_critic`.
            compact: keep weight matrices in float16, and the encoder in a file beside ``path``,
                which it shares with other policies that were extracted from the same world model.
        """
        content: dict[str, Any] = {
            "task": self.task.table(),
            "architecture": self.architecture,
            "made_by": dict(meta or {}),
        }
        groups, shared = {"policy": self.state_dict()}, {}
        if compact:
            state = halved(groups["policy"])
            encoder = {k: v for k, v in state.items() if k.startswith(f"{_ENCODER}.")}
            groups["policy"] = {k: v for k, v in state.items() if k not in encoder}
            if encoder:
                shared[_ENCODER] = encoder
                content["shared"] = [_ENCODER]
        if critic is not None:
            groups["critic"] = critic.values.state_dict()
            content["critic"] = {
                "reward_units": critic.reward_units,
                "discount": critic.discount,
                "scale": critic.values.scale,
            }
        save_checkpoint(Path(path), "policy", groups, content, shared)


def _single_actor(actors: Actors, index: int, size: ActorCriticSize) -> Actors:
    weight = actors.mean[0].weight
    assert isinstance(weight, Tensor)
    single = Actors(weight.shape[-1], actors.action_mask[index : index + 1].clone(), size)
    single.load_state_dict({k: v[index : index + 1] for k, v in actors.state_dict().items()})
    return single.to(actors.action_mask.device)


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Open a policy that extraction or cloning wrote.

    Args:
        path: the directory of one task's policy.
        device: where it runs.

    Raises:
        PwmError: if there is none, or it is damaged.
    """
    meta = read_meta(Path(path), "policy")
    shared = (_ENCODER,) if meta.get("shared") == [_ENCODER] else ()
    checkpoint = load_checkpoint(Path(path), "policy", groups=("policy", *shared))
    state = {name: t for items in checkpoint.tensors.values() for name, t in items.items()}
    return rebuild(checkpoint.path, lambda: _described_policy(checkpoint.meta), state).to(device)


def _described_policy(meta: Mapping[str, Any]) -> Policy:
    """The policy that :meth:`Policy.save` described, with other weights."""
    architecture = meta["architecture"]
    task = task_from_table(meta["task"])
    size = from_plain(ActorCriticSize, architecture["actor"])
    size.validate()
    encoder, task_dim = None, 0
    inputs = obs_dim = architecture["obs_dim"]
    if architecture["model"] is not None:
        model = from_plain(ModelSize, architecture["model"])
        model.validate()
        task_dim = model.task_dim
        encoder = mlp(
            inputs + task_dim,
            [model.encoder_dim] * model.encoder_layers,
            model.latent_dim,
            SimNorm(model.simnorm_dim),
        )
        inputs = model.latent_dim
    mask = torch.zeros(1, architecture["action_dim"])
    mask[0, : task.action_dim] = 1
    return Policy(
        task,
        encoder,
        torch.zeros(task_dim),
        torch.zeros(obs_dim),
        torch.ones(obs_dim),
        Actors(inputs, mask, size),
        architecture,
    )


def load_critic(path: str | Path, device: str | torch.device = "cpu") -> TaskCritic:
    """Open the critic that extraction saved beside a policy.

    Args:
        path: the directory of one task's policy.
        device: where it runs.

    Raises:
        PwmError: if there is none, or it is damaged.
    """
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
