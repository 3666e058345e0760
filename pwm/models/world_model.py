"""The multi-task latent world model and its loss (TD-MPC2, ICLR 2024; PWM, ICLR 2025).

Shapes below: ``...`` is any number of leading dimensions, and ``task`` is an integer tensor that
broadcasts against them, so ``(B,)`` serves both (B, ...) and time-first (H, B, ...) inputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, suite_from_table, suite_table
from pwm.core.validation import (
    from_plain,
    require_at_least,
    require_at_most,
    require_finite,
    require_share,
)
from pwm.models.angles import angle_periods, wrapped
from pwm.models.frozen import with_frozen_weights
from pwm.models.grouped_weights import of_tasks
from pwm.models.layers import SimNorm, StackedMLP, init_weights, mlp, side_by_side
from pwm.models.low_rank import on_its_base
from pwm.models.math import at_least_float32, bin_centers, expected_bin, symexp
from pwm.models.policy_records import extracted_from, policies_in
from pwm.runtime.checkpoint import Checkpoint, load_checkpoint, rebuild
from pwm.runtime.device import resolve_device
from pwm.runtime.grouped import member_of
from pwm.runtime.training_checkpoints import load_latest

KIND = "world_model"
LARGEST_WIDTH = 2**20  # of a layer; a file or a config that says more is mistaken


@dataclass
class ModelSize:
    """The architecture apart from a suite's sizes; ``configs/model`` holds the published ones.

    Attributes:
        encoder_dim, encoder_layers: width and number of the encoder's hidden layers.
        mlp_dim: width of the two hidden layers of dynamics, reward, Q and prior.
        latent_dim: latent size, a multiple of ``simnorm_dim``.
        task_dim: task embedding size; 0 for a model of a single task without embedding.
        num_q: members of the Q ensemble, if there is one.
    """

    encoder_dim: int = 256
    encoder_layers: int = 1
    mlp_dim: int = 512
    latent_dim: int = 512
    task_dim: int = 96
    num_q: int = 5
    simnorm_dim: int = 8
    num_bins: int = 101
    vmin: float = -10.0
    vmax: float = 10.0
    dropout: float = 0.01

    def validate(self) -> None:
        """Raise PwmError for sizes that cannot work."""
        require_at_least(self, 1, "encoder_dim", "encoder_layers", "mlp_dim", "num_q")
        require_at_most(
            self, LARGEST_WIDTH, "encoder_dim", "mlp_dim", "latent_dim", "task_dim", "num_bins"
        )
        require_at_most(self, 2**10, "encoder_layers", "num_q")
        require_at_least(self, 1, "latent_dim", "simnorm_dim")
        require_at_least(self, 0, "task_dim")
        require_at_least(self, 2, "num_bins")
        require_finite(self, "vmin", "vmax")
        require_share(self, "dropout")
        if self.latent_dim % self.simnorm_dim:
            raise PwmError(
                f"simnorm_dim={self.simnorm_dim} must divide latent_dim={self.latent_dim}."
            )
        if not self.vmin < self.vmax:
            raise PwmError(f"vmin={self.vmin} must be below vmax={self.vmax}.")


class WorldModel(nn.Module):
    """Encoder, latent dynamics and reward of a task suite, and what else is asked for.

    Args:
        size: the architecture.
        suite: fixes padding sizes, the number of task embeddings and the action masks.
        q_and_prior: add the Q ensemble, its target and the policy prior of TD-MPC2.
        normalize_obs: subtract and divide by per-task buffers ``obs_mean`` and ``obs_scale``.
        wrap_angles: of observations that are normalized, first wrap the angles that grow without
            bound (:mod:`pwm.models.angles`).
        episodic: add a head that predicts whether an episode ends where a step leads.
    """

    action_mask: Tensor
    obs_period: Tensor
    bins: Tensor
    obs_mean: Tensor
    obs_scale: Tensor

    def __init__(
        self,
        size: ModelSize,
        suite: Suite,
        q_and_prior: bool = False,
        normalize_obs: bool = False,
        wrap_angles: bool = True,
        episodic: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.suite, self.normalize_obs = size, suite, normalize_obs
        self.wrap_angles, self.episodic = wrap_angles, episodic
        latent, hidden = size.latent_dim, [size.mlp_dim] * 2
        joint = latent + size.task_dim + suite.action_dim
        if size.task_dim:
            self.task_emb = nn.Embedding(len(suite), size.task_dim)
        self.encoder = mlp(
            suite.obs_dim + size.task_dim,
            [size.encoder_dim] * size.encoder_layers,
            latent,
            SimNorm(size.simnorm_dim),
        )
        self.dynamics = mlp(joint, hidden, latent, SimNorm(size.simnorm_dim))
        self.reward_head = mlp(joint, hidden, size.num_bins)
        if q_and_prior:
            self.prior = mlp(latent + size.task_dim, hidden, 2 * suite.action_dim)
            self.q_ensemble = StackedMLP(size.num_q, joint, hidden, size.num_bins, size.dropout)
            self.q_target = StackedMLP(size.num_q, joint, hidden, size.num_bins)
        self.has_q = q_and_prior
        if episodic:  # last, so that the other networks begin as they do without it
            self.termination_head = mlp(latent + size.task_dim, hidden, 1)
        mask = torch.zeros(len(suite), suite.action_dim)
        for i, task in enumerate(suite):
            mask[i, : task.action_dim] = 1
        self.register_buffer("action_mask", mask, persistent=False)
        self.register_buffer(
            "bins", bin_centers(size.num_bins, size.vmin, size.vmax), persistent=False
        )
        if normalize_obs:
            self.register_buffer("obs_mean", torch.zeros(len(suite), suite.obs_dim))
            self.register_buffer("obs_scale", torch.ones(len(suite), suite.obs_dim))
            period = angle_periods(suite, suite.obs_dim)
            self.register_buffer("obs_period", period, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        self.apply(init_weights)
        nn.init.zeros_(self._last_weight(self.reward_head))
        if self.has_q:
            nn.init.zeros_(self._last_weight(self.q_ensemble))
            self.q_target.load_state_dict(self.q_ensemble.state_dict())
            self.q_target.requires_grad_(False)

    def unfreeze(self) -> WorldModel:
        """Make a model that :func:`load_world_model` opened trainable, except the target Q."""
        self.train().requires_grad_(True)
        if self.has_q:
            self.q_target.requires_grad_(False)
        return self

    def freeze_encoder(self) -> None:
        """Have training leave alone what latents follow from: encoder and task embeddings."""
        self.encoder.requires_grad_(False)
        if self.size.task_dim:
            self.task_emb.requires_grad_(False)

    @staticmethod
    def _last_weight(net: nn.Sequential) -> Tensor:
        weight = net[-1].weight
        assert isinstance(weight, Tensor)
        return weight

    def task_embedding(self, task: Tensor) -> Tensor:
        """Embeddings with norm at most 1: (...,) ids -> (..., task_dim)."""
        if not self.size.task_dim:
            return torch.empty(*task.shape, 0, device=task.device)
        embedding = self.task_emb(task)
        return embedding / embedding.norm(dim=-1, keepdim=True).clamp(min=1.0)

    def _with_task(self, x: Tensor, task: Tensor, *rest: Tensor) -> Tensor:
        embedding = task if task.is_floating_point() else self.task_embedding(task)
        embedding = embedding.to(x.dtype)
        return side_by_side(x, embedding.expand(*x.shape[:-1], -1), *rest)

    def encode(self, obs: Tensor, task: Tensor) -> Tensor:
        """Observations (..., obs_dim), zero-padded to the suite's size -> (..., latent)."""
        if self.normalize_obs:
            if self.wrap_angles:
                obs = wrapped(obs, self.obs_period[task])
            obs = (obs - self.obs_mean[task]) / self.obs_scale[task]
        return self.encoder(self._with_task(obs, task))

    def next(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """One step of latent dynamics: (..., latent), (..., action_dim) -> (..., latent).

        In place of task ids it also takes their embeddings, which many steps can share.
        """
        return self.dynamics(self._with_task(z, task, action))

    def next_without_gradients(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """:meth:`next` as it is now, without gradients of its weights."""
        dynamics = with_frozen_weights(self.dynamics)
        return lambda z, action, task: dynamics(self._with_task(z, task, action))

    def reward_logits(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Logits over symlog reward bins for the step taken from z: (..., bins)."""
        return self.reward_head(self._with_task(z, task, action))

    def symlog_reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Expected reward in symlog units, differentiable through the softmax: (...)."""
        return expected_bin(self.reward_logits(z, action, task), self.bins)

    def reward(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Predicted reward of a decision step in the environment's units: (..., 1)."""
        return symexp(self.symlog_reward(z, action, task)).unsqueeze(-1)

    def termination_logits(self, z: Tensor, task: Tensor) -> Tensor:
        """Logits of the probability that the episode has ended at latents (..., latent): (...)."""
        logits = self.termination_head(self._with_task(z, task)).squeeze(-1)
        return at_least_float32(logits)

    def continuation(self, z: Tensor, task: Tensor) -> Tensor:
        """Probability that the episode goes on at latents (..., latent), differentiable: (...)."""
        return torch.sigmoid(-self.termination_logits(z, task))

    def _stacked(self, net: StackedMLP, x: Tensor, members: Tensor | None) -> Tensor:
        flat = net(x.reshape(1, -1, x.shape[-1]), members)
        return flat.reshape(len(flat), *x.shape[:-1], flat.shape[-1])

    def q_logits(
        self, z: Tensor, action: Tensor, task: Tensor, members: Tensor | None = None
    ) -> Tensor:
        """Logits of the Q ensemble, (num_q, ..., bins), or of some members (M,) alone."""
        return self._stacked(self.q_ensemble, self._with_task(z, task, action), members)

    def target_q_logits(
        self, z: Tensor, action: Tensor, task: Tensor, members: Tensor | None = None
    ) -> Tensor:
        """Logits of the slowly moving target ensemble, as :meth:`q_logits`."""
        return self._stacked(self.q_target, self._with_task(z, task, action), members)

    def q(self, z: Tensor, action: Tensor, task: Tensor) -> Tensor:
        """Value of every member of the Q ensemble in reward units: (num_q, ..., 1)."""
        logits = self.q_logits(z, action, task)
        return symexp(expected_bin(logits, self.bins)).unsqueeze(-1)

    def policy_prior(self, z: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """The prior's mean action after tanh and its log-std, unused dimensions zero.

        Returns:
            Two tensors (..., action_dim).
        """
        mean, log_std = self._prior_parameters(z, task)
        return torch.tanh(mean), log_std

    def _prior_parameters(self, z: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.prior(self._with_task(z, task)).chunk(2, -1)
        log_std = -10 + 6 * (torch.tanh(log_std) + 1)
        mask = self.action_mask[task]
        return mean * mask, log_std * mask

    def sample_prior(self, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterized action of the policy prior and its log-probability.

        Args:
            z: (..., latent).
            task: ids that broadcast against the leading dimensions.
            noise: standard normal, (..., action_dim).

        Returns:
            action (..., action_dim) in [-1, 1], log-probability (...) over the used dimensions.
        """
        mean, log_std = self._prior_parameters(z, task)
        mask = self.action_mask[task]
        pre_tanh = mean + noise * mask * log_std.exp()
        normal = -0.5 * noise**2 - log_std - 0.9189385332046727
        squash = 2 * (0.6931471805599453 - pre_tanh - F.softplus(-2 * pre_tanh))
        return torch.tanh(pre_tanh), ((normal - squash) * mask).sum(-1)


def model_meta(model: WorldModel) -> dict[str, Any]:
    """What a checkpoint's JSON must say for the model to be rebuilt."""
    return {
        "size": asdict(model.size),
        "suite": suite_table(model.suite),
        "q_and_prior": model.has_q,
        "normalize_obs": model.normalize_obs,
        "wrap_angles": model.wrap_angles,
        "episodic": model.episodic,
    }


def load_world_model(
    path: str | Path,
    device: str | torch.device = "cpu",
    tasks: Iterable[str] | None = None,
) -> WorldModel:
    """Open a world model, frozen and in evaluation mode.

    Args:
        path: a pretraining run directory (its newest whole checkpoint is taken) or one checkpoint.
        device: where it runs.
        tasks: names; of several world models the one for these tasks is opened.

    Raises:
        PwmError: if there is none, it is damaged, or torch cannot compute on the device.
    """
    device = resolve_device(str(device))  # before anything is read
    return model_of(of_tasks(find_world_model(member_of(Path(path), tasks)), tasks), device)


def model_of(checkpoint: Checkpoint, device: str | torch.device) -> WorldModel:
    """The model that a checkpoint of one is of, as :func:`load_world_model` opens it."""
    device = resolve_device(str(device))
    checkpoint = on_its_base(checkpoint, find_world_model)
    meta = checkpoint.meta
    model = rebuild(checkpoint.path, lambda: _described(meta), checkpoint.tensors.get("model", {}))
    return model.to(device).eval().requires_grad_(False)


def _described(meta: Mapping[str, Any]) -> WorldModel:
    """The model that :func:`model_meta` described, with other weights."""
    size = from_plain(ModelSize, meta["size"])
    size.validate()
    suite = suite_from_table(meta["suite"])
    return WorldModel(
        size,
        suite,
        bool(meta["q_and_prior"]),
        bool(meta["normalize_obs"]),
        wraps_angles(meta),
        is_episodic(meta),
    )


def wraps_angles(meta: Mapping[str, Any]) -> bool:
    """What :func:`model_meta` said of it; models of before it could be said do not."""
    return bool(meta.get("wrap_angles", False))


def is_episodic(meta: Mapping[str, Any]) -> bool:
    """What :func:`model_meta` said of it; models of before it could be said are not."""
    return bool(meta.get("episodic", False))


def find_world_model(path: Path) -> Checkpoint:
    """The checkpoint that :func:`load_world_model` opens, of which it may take a base beside it.

    Raises:
        PwmError: if there is none, or it is damaged.
    """
    if (path / "checkpoints").is_dir():
        found = load_latest(path / "checkpoints", KIND, warnings.warn)
        if found is None:
            raise PwmError(f"{path} holds no whole checkpoint yet; let pretraining save one.")
        return found
    if policies := policies_in(path):
        source = extracted_from(policies[0])
        wanted = f"{source}, which they are of" if source else "what pwm pretrain wrote as out="
        raise PwmError(f"{path} holds policies, and a world model is wanted; give {wanted}.")
    return load_checkpoint(path, KIND, groups=("model",))
