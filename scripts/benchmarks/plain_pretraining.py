"""TD-MPC2's update with a learner's networks: what the fast pretraining is measured against.

Plain eager torch, as in TD-MPC2's published code: an ensemble under vmap, all networks but the
dynamics evaluated for all steps at once, all members of the ensemble computed and two taken. It
takes the learner's random numbers, so that an update of both must end in the same weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.plain_networks import PlainEnsemble, PlainWorldModel, plain_mlp
from reference.pwm_minimal import descend
from torch import Tensor

from pwm.data.windows.sampler import Batch
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.losses import PriorNoise


class PlainPretraining:
    """The networks of a world model, their optimizers, and an update.

    Args:
        learner: its networks are copied as they are now.

    Attributes:
        lr: learning rate of the next update.
    """

    def __init__(self, learner: WorldModelLearner) -> None:
        model, config = learner.model, learner.config
        self.config, self.lr = config, config.lr
        self.discount, self.mask = learner.discount, model.action_mask
        self.model = PlainWorldModel(model)
        encoder = list(self.model.encoder.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("encoder.")]
        if model.has_q:
            self.prior = plain_mlp(model.prior.parameters())
            self.q = PlainEnsemble(model.q_ensemble, model.size.dropout)
            self.q_target = PlainEnsemble(model.q_target).requires_grad_(False)
            self.prior_optimizer = torch.optim.Adam(self.prior.parameters(), eps=1e-5)
            rest += self.q.parameters()
        self.optimizer = torch.optim.Adam(
            [{"params": encoder, "lr_scale": config.encoder_lr_scale}, {"params": rest}]
        )
        self.q_scale = torch.ones((), device=model.bins.device)

    def update(self, batch: Batch, noise: PriorNoise | None) -> Tensor:
        """One step of all optimizers; returns the world model's loss."""
        self.model.task = batch.task
        target = None
        with torch.no_grad():
            following = self.model.encode(batch.obs[1:])
            if noise is not None:
                target = self.td_target(following, batch, noise)
        latents, loss = self.roll_out(batch, following)
        loss = loss + self.head_losses(latents[:-1], batch, target)
        descend(self.optimizer, self.lr, loss, self.config.grad_clip)
        if noise is not None:
            self.update_prior(latents.detach(), noise)
            self.update_target()
        return loss.detach()

    def roll_out(self, batch: Batch, following: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (H+1, B, latent), and the loss of those after the first."""
        z, loss = self.model.encode(batch.obs[0]), torch.zeros((), device=following.device)
        latents = [z]
        for t, (action, encoded) in enumerate(zip(batch.action, following, strict=True)):
            z = self.model.next(z, action)
            latents.append(z)
            loss = loss + self.config.rho**t / len(following) * F.mse_loss(z, encoded)
        return torch.stack(latents), self.config.loss.consistency * loss

    def head_losses(self, z: Tensor, batch: Batch, target: Tensor | None) -> Tensor:
        """Of rewards, and of Q-values if there are targets (H, B) for them."""
        weights, steps = self.config.loss, self.step_weights(z)
        logits = self.model.reward_logits(z, batch.action)
        loss = weights.reward * steps @ self.cross_entropy(logits, batch.reward).mean(-1)
        if target is not None:
            logits = self.q(self.model.joint(z, batch.action))
            errors = self.cross_entropy(logits, target).mean((0, -1))
            loss = loss + weights.value * steps @ errors
        return loss

    def step_weights(self, z: Tensor) -> Tensor:
        """rho^t / H of (H, ...)."""
        return self.config.rho ** torch.arange(len(z), device=z.device) / len(z)

    def cross_entropy(self, logits: Tensor, x: Tensor) -> Tensor:
        """Of (..., H, B, bins) to the two bins around symlog(x), (H, B): (..., H, B)."""
        bins = self.model.bins
        symlog = x.sign() * x.abs().log1p()
        position = (symlog.clamp(bins[0], bins[-1]) - bins[0]) / (bins[1] - bins[0])
        lower = position.floor().clamp(max=len(bins) - 2)
        weight, below = (position - lower).unsqueeze(-1), lower.long().unsqueeze(-1)
        two_hot = torch.zeros(*x.shape, len(bins), device=x.device)
        two_hot = two_hot.scatter(-1, below, 1 - weight).scatter(-1, below + 1, weight)
        return -(two_hot * logits.log_softmax(-1)).sum(-1)

    def value(self, logits: Tensor) -> Tensor:
        """The mean under a categorical, in real units."""
        mean = self.model.expected(logits)
        return mean.sign() * (mean.abs().exp() - 1)

    def act(self, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A sample of the prior and its log-probability."""
        mean, log_std = self.prior(self.model.joint(z)).chunk(2, -1)
        mask = self.mask[self.model.task]
        log_std = (-10 + 6 * (log_std.tanh() + 1)) * mask
        action = mean * mask + noise * mask * log_std.exp()
        gaussian = -0.5 * noise**2 - log_std - 0.9189385332046727
        squash = 2 * (0.6931471805599453 - action - F.softplus(-2 * action))
        return action.tanh(), ((gaussian - squash) * mask).sum(-1)

    def td_target(self, following: Tensor, batch: Batch, noise: PriorNoise) -> Tensor:
        """One step's reward and the discounted value of where it leads: (H, B)."""
        action, _ = self.act(following, noise.target)
        logits = self.q_target(self.model.joint(following, action))
        least = self.value(logits[noise.members[:2]]).amin(0)
        return batch.reward + self.discount[batch.task] * least

    def update_prior(self, z: Tensor, noise: PriorNoise) -> None:
        """The prior's step and the running scale, from (H+1, B, latent)."""
        action, log_prob = self.act(z, noise.policy)
        logits = self.q(self.model.joint(z, action), frozen=True)
        value = self.value(logits[noise.members[2:]]).mean(0)
        loss = self.step_weights(z) @ (1e-4 * log_prob - value / self.q_scale).mean(-1)
        descend(self.prior_optimizer, self.lr, loss, self.config.grad_clip)
        shares = torch.tensor([0.05, 0.95], device=z.device)
        low, high = torch.quantile(value[0].detach(), shares)
        self.q_scale.lerp_((high - low).clamp(min=1.0), self.config.target_tau)

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target ensemble towards the ensemble."""
        online, target = list(self.q.parameters()), list(self.q_target.parameters())
        torch._foreach_lerp_(target, online, self.config.target_tau)
