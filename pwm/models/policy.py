"""The policy of one task that a user deploys."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from pwm.core.action_bounds import with_bounds
from pwm.core.errors import PwmError
from pwm.core.suites import Task, task_from_table
from pwm.core.validation import (
    from_plain,
)
from pwm.models.actor_critic import ActorCriticSize, Actors, TaskCritic
from pwm.models.angles import angle_periods, wrapped
from pwm.models.layers import SimNorm, mlp
from pwm.models.observations import as_observations, require_finite_action
from pwm.models.world_model import ModelSize, WorldModel
from pwm.runtime.checkpoint import load_checkpoint, read_meta, rebuild, save_checkpoint, to_float16
from pwm.runtime.device import resolve_device

_ENCODER = "encoder"
_UNKNOWN_BOUNDS = (
    "the policy of {0} does not know the bounds of its environment's actions, and gives actions in "
    "[-1, 1]; call policy.set_action_bounds(env.action_space.low, env.action_space.high), or "
    "act(obs, normalized=True) where these are wanted."
)


class Policy(nn.Module):
    """A self-contained policy of one task: normalization, encoder, task embedding and actor.

    ``act`` takes what the environment returns and gives what it accepts.

    Attributes:
        task: what it was made for; fixes observation and action size, and has the environment's
            action bounds where they are known.
    """

    obs_mean: Tensor
    obs_scale: Tensor
    obs_period: Tensor
    embedding: Tensor
    action_bounds: Tensor | None  # (2, action_dim), lowest and highest
    _has_warned: bool

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
        self.architecture = architecture
        self._wrap_angles: bool = architecture.get("wrap_angles", False)
        self.encoder, self.actor = encoder, actor
        self.register_buffer("embedding", embedding)
        self.register_buffer("obs_mean", obs_mean)
        self.register_buffer("obs_scale", obs_scale)
        self._know(task)
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
    def act(
        self, obs: np.ndarray, noise: float = ..., rng: Any = ..., normalized: bool = ...
    ) -> np.ndarray: ...
    @overload
    def act(
        self, obs: Tensor, noise: float = ..., rng: Any = ..., normalized: bool = ...
    ) -> Tensor: ...
    @torch.no_grad()
    def act(
        self,
        obs: np.ndarray | Tensor,
        noise: float = 0.0,
        rng: np.random.Generator | None = None,
        normalized: bool = False,
    ) -> np.ndarray | Tensor:
        """The action for an observation, or one for each of a batch.

        A task of a suite takes actions in [-1, 1], as its environment here does. Of a user-defined
        task the action is in the units of the environment that ``gymnasium.make`` makes; ``envs``
        scales actions itself, and so takes normalized ones. A policy that does not know the
        bounds, which those saved before they were kept do not, warns and gives normalized actions
        until :meth:`set_action_bounds` tells it.

        Args:
            obs: (obs_dim,) or (..., obs_dim), NumPy or torch; the result is of the same kind. A
                batch of none gives none.
            noise: standard deviation of Gaussian noise added to the action in [-1, 1], which is
                then clipped.
            rng: its source; a fresh one by default.
            normalized: give actions in [-1, 1] whatever the environment's bounds.

        Returns:
            (action_dim,) or (..., action_dim), float32 within the environment's action bounds.

        Raises:
            PwmError: for what is no array of the task's observation size, or not finite.
        """
        given = as_observations(obs, self.task)
        action = self(given.to(self.obs_mean.device))
        require_finite_action(action, given, self.task)
        if noise:
            rng = rng or np.random.default_rng()
            jitter = rng.standard_normal(tuple(action.shape), dtype=np.float32)
            action = (action + noise * torch.from_numpy(jitter).to(action.device)).clamp(-1, 1)
        if not normalized:
            action = self._in_units(action)
        return action.to(given.device) if isinstance(obs, Tensor) else action.cpu().numpy()

    def _in_units(self, action: Tensor) -> Tensor:
        if self.task.domain != "gymnasium":
            return action
        if self.action_bounds is None:
            if not self._has_warned:
                warnings.warn(_UNKNOWN_BOUNDS.format(self.task.name), stacklevel=4)
            self._has_warned = True
            return action
        low, high = self.action_bounds
        return torch.clamp((low + high) / 2 + action * ((high - low) / 2), low, high)

    def set_action_bounds(self, low: Any, high: Any) -> None:
        """Tell the bounds of the environment's actions, which :meth:`save` keeps.

        Args:
            low: (action_dim,) such as ``env.action_space.low``, or one number for all entries.
            high: likewise.

        Raises:
            PwmError: if they are no bounds of this task, or it knows others.
        """
        size = self.task.action_dim
        low, high = (b if np.ndim(b) else [float(b)] * size for b in (low, high))
        self._know(with_bounds(self.task, low, high))

    def _know(self, task: Task) -> None:
        self.task, self._has_warned = task, False
        bounds = None
        if task.action_low is not None and task.action_high is not None:
            bounds = torch.tensor([task.action_low, task.action_high], device=self.obs_mean.device)
        self.register_buffer("action_bounds", bounds, persistent=False)

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
        action = self.actor(flat)
        action = action.reshape(*features.shape[:-1], action.shape[-1])
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
            state = to_float16(groups["policy"])
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
        PwmError: if there is none, it is damaged, or torch cannot compute on the device.
    """
    device = resolve_device(str(device))
    meta = read_meta(Path(path), "policy")
    shared = (_ENCODER,) if meta.get("shared") == [_ENCODER] else ()
    checkpoint = load_checkpoint(Path(path), "policy", groups=("policy", *shared))
    state = {name: t for items in checkpoint.tensors.values() for name, t in items.items()}
    return rebuild(checkpoint.path, lambda: _described_policy(checkpoint.meta), state).to(device)


def saved_task(path: Path) -> Task:
    """The task of a saved policy; raises PwmError if there is none, or it is damaged."""
    try:
        return task_from_table(read_meta(path, "policy")["task"])
    except LookupError as error:
        raise PwmError(f"{path} cannot be used: it names no task; use another checkpoint.") from (
            error
        )


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
