"""The reference's pretraining update with a learner's networks, and with Q ensemble and prior.

Eager, one module a network, a loop over steps, all members of the ensemble computed and two of them
taken, as in the method's usual code. The world model's loss is that of
``scripts/reference/pwm_minimal.py``. It takes the learner's random numbers, so that an update of
both must end in the same weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.plain_extraction import PlainWorldModel, plain_mlp, unstack
from reference.pwm_minimal import Constants, cross_entropy, descend, world_model_loss
from torch import Tensor, nn

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
        self.c = Constants(
            rho=config.rho,
            consistency=config.loss.consistency,
            reward=config.loss.reward,
            encoder_lr_scale=config.encoder_lr_scale,
            grad_norm=config.grad_clip,
        )
        self.model = PlainWorldModel(model)
        encoder = list(self.model.encoder.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("encoder.")]
        if model.has_q:
            self.prior = plain_mlp(model.prior.parameters())
            self.q = nn.ModuleList(
                _with_dropout(net, model.size.dropout) for net in unstack(model.q_ensemble)
            )
            self.q_target = nn.ModuleList(unstack(model.q_target)).requires_grad_(False)
            self.prior_optimizer = torch.optim.Adam(self.prior.parameters(), eps=1e-5)
            rest += self.q.parameters()
        self.optimizer = torch.optim.Adam(
            [{"params": encoder, "lr_scale": config.encoder_lr_scale}, {"params": rest}]
        )
        self.q_scale = torch.ones((), device=model.bins.device)

    def update(self, batch: Batch, noise: PriorNoise | None) -> Tensor:
        """One step of all optimizers; returns the world model's loss."""
        self.model.task = batch.task
        loss, z, encoded = world_model_loss(self.model, *batch[:3], self.c)
        if noise is not None:
            loss = loss + self.config.loss.value * self.value_loss(z, encoded, batch, noise)
        descend(self.optimizer, self.lr, loss, self.c.grad_norm)
        if noise is not None:
            self.update_prior([z_t.detach() for z_t in z], noise)
        return loss.detach()

    def expected(self, logits: Tensor) -> Tensor:
        """The mean under a categorical, in real units."""
        mean = logits.softmax(-1) @ self.model.bins
        return mean.sign() * (mean.abs().exp() - 1)

    def act(self, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A sample of the prior and its log-probability."""
        mean, log_std = self.prior(self.model.with_task(z)).chunk(2, -1)
        mask = self.mask[self.model.task]
        log_std = (-10 + 6 * (log_std.tanh() + 1)) * mask
        action = mean * mask + noise * mask * log_std.exp()
        gaussian = -0.5 * noise**2 - log_std - 0.9189385332046727
        squash = 2 * (0.6931471805599453 - action - F.softplus(-2 * action))
        return action.tanh(), ((gaussian - squash) * mask).sum(-1)

    def joint(self, z: Tensor, action: Tensor) -> Tensor:
        """What a Q function reads."""
        return torch.cat([self.model.with_task(z), action], -1)

    def value_loss(
        self, z: list[Tensor], encoded: list[Tensor], batch: Batch, noise: PriorNoise
    ) -> Tensor:
        """Cross-entropy of every member to the one-step target."""
        loss, horizon = torch.zeros((), device=batch.task.device), len(encoded)
        for t, following in enumerate(encoded):
            with torch.no_grad():
                action, _ = self.act(following, noise.target[t])
                there = self.joint(following, action)
                values = torch.stack([self.expected(q(there)) for q in self.q_target])
                least = values[noise.members[:2]].min(0).values
                target = batch.reward[t] + self.discount[batch.task] * least
            here = self.joint(z[t], batch.action[t])
            errors = [cross_entropy(q(here), target, self.model.bins) for q in self.q]
            loss = loss + self.c.rho**t / horizon * torch.stack(errors).mean()
        return loss

    def update_prior(self, latents: list[Tensor], noise: PriorNoise) -> None:
        """The prior's step, the running scale and the target ensemble."""
        loss, first = torch.zeros((), device=self.q_scale.device), None
        for t, z in enumerate(latents):
            action, log_prob = self.act(z, noise.policy[t])
            joint = self.joint(z, action)
            values = torch.stack([self.expected(q(joint)) for q in self.q])
            value = values[noise.members[2:]].mean(0)
            first = value.detach() if first is None else first
            step = (1e-4 * log_prob - value / self.q_scale).mean()
            loss = loss + self.c.rho**t / len(latents) * step
        descend(self.prior_optimizer, self.lr, loss, self.c.grad_norm)
        with torch.no_grad():
            low, high = torch.quantile(first, torch.tensor([0.05, 0.95], device=first.device))
            self.q_scale.lerp_((high - low).clamp(min=1.0), self.config.target_tau)
            for ours, theirs in zip(self.q_target.parameters(), self.q.parameters(), strict=True):
                ours.lerp_(theirs, self.config.target_tau)


def _with_dropout(net: nn.Sequential, share: float) -> nn.Sequential:
    """The same with dropout after the first linear map."""
    if not share:
        return net
    (linear, *norm_and_act), *rest = net
    return nn.Sequential(nn.Sequential(linear, nn.Dropout(share), *norm_and_act), *rest)
