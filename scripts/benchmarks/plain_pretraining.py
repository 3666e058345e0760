"""A pretraining update written straight from the equations, with Q ensemble and policy prior.

Eager, one module a network, a loop over steps, all members of the ensemble computed and two of them
taken, as in the method's usual code. It starts from a learner's networks and takes the learner's
random numbers, so that an update of both must end in the same weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from benchmarks.plain_extraction import PlainSimNorm, plain_mlp, unstack
from torch import Tensor, nn

from pwm.data.windows.sampler import Batch
from pwm.models.math import symlog
from pwm.pretraining.learner import WorldModelLearner
from pwm.pretraining.losses import PriorNoise


class PlainPretraining(nn.Module):
    """The networks of a world model, their optimizers, and an update.

    Args:
        learner: its networks are copied as they are now.
    """

    def __init__(self, learner: WorldModelLearner) -> None:
        super().__init__()
        model = learner.model
        self.config, self.size, self.bins = learner.config, model.size, model.bins
        self.discount, self.mask = learner.discount, model.action_mask
        self.embedding = nn.Embedding(len(model.suite), model.size.task_dim)
        self.embedding.load_state_dict(model.task_emb.state_dict())
        activation = PlainSimNorm(model.size.simnorm_dim)
        self.encoder = plain_mlp(model.encoder.state_dict(), activation)
        self.dynamics = plain_mlp(model.dynamics.state_dict(), activation)
        self.reward = plain_mlp(model.reward_head.state_dict())
        self.has_q = model.has_q
        if self.has_q:
            self.prior = plain_mlp(model.prior.state_dict())
            self.q = nn.ModuleList(
                _with_dropout(net, model.size.dropout) for net in unstack(model.q_ensemble)
            )
            self.q_target = nn.ModuleList(unstack(model.q_target)).requires_grad_(False)
        self.to(model.bins.device)
        rest = [self.embedding, self.dynamics, self.reward, *([self.q] if self.has_q else [])]
        self.trained = [p for net in (self.encoder, *rest) for p in net.parameters()]
        lr = self.config.lr
        self.optimizer = torch.optim.Adam(
            [
                {"params": self.encoder.parameters(), "lr": lr * self.config.encoder_lr_scale},
                {"params": [p for net in rest for p in net.parameters()]},
            ],
            lr=lr,
        )
        if self.has_q:
            self.prior_optimizer = torch.optim.Adam(self.prior.parameters(), lr=lr, eps=1e-5)
        self.q_scale = torch.ones((), device=model.bins.device)

    def joint(self, z: Tensor, task: Tensor, *action: Tensor) -> Tensor:
        """Latents, task embeddings of norm at most one, and actions side by side."""
        embedding = self.embedding(task)
        embedding = embedding / embedding.norm(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([z, embedding, *action], -1)

    def two_hot(self, x: Tensor) -> Tensor:
        """(n,) real targets to (n, bins)."""
        step = self.bins[1] - self.bins[0]
        position = (symlog(x).clamp(self.bins[0], self.bins[-1]) - self.bins[0]) / step
        lower = position.floor().clamp(max=len(self.bins) - 2)
        weight = (position - lower).unsqueeze(-1)
        below = F.one_hot(lower.long(), len(self.bins))
        return below * (1 - weight) + below.roll(1, -1) * weight

    def cross_entropy(self, logits: Tensor, x: Tensor) -> Tensor:
        """Mean over the batch."""
        return -(self.two_hot(x) * F.log_softmax(logits, -1)).sum(-1).mean()

    def expected(self, logits: Tensor) -> Tensor:
        """The mean under a categorical, in real units."""
        mean = (logits.softmax(-1) * self.bins).sum(-1)
        return mean.sign() * (mean.abs().exp() - 1)

    def act(self, z: Tensor, task: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """A sample of the prior and its log-probability."""
        mean, log_std = self.prior(self.joint(z, task)).chunk(2, -1)
        mask = self.mask[task]
        log_std = (-10 + 6 * (log_std.tanh() + 1)) * mask
        action = mean * mask + noise * mask * log_std.exp()
        gaussian = -0.5 * noise**2 - log_std - 0.9189385332046727
        squash = 2 * (0.6931471805599453 - action - F.softplus(-2 * action))
        return action.tanh(), ((gaussian - squash) * mask).sum(-1)

    def update(self, batch: Batch, noise: PriorNoise | None) -> Tensor:
        """One step of all optimizers; returns the world model's loss."""
        config, horizon, task = self.config, len(batch.action), batch.task
        with torch.no_grad():
            targets = [self.encoder(self.joint(obs, task)) for obs in batch.obs[1:]]
        z = self.encoder(self.joint(batch.obs[0], task))
        loss, latents = torch.zeros((), device=z.device), [z]
        for t in range(horizon):
            weight = config.rho**t / horizon
            joint = self.joint(z, task, batch.action[t])
            reward = self.cross_entropy(self.reward(joint), batch.reward[t])
            loss = loss + weight * config.loss.reward * reward
            if noise is not None:
                loss = loss + weight * config.loss.value * self.value_loss(
                    joint, batch, targets[t], t, noise
                )
            z = self.dynamics(joint)
            loss = loss + weight * config.loss.consistency * F.mse_loss(z, targets[t])
            latents.append(z)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, config.grad_clip)
        self.optimizer.step()
        if noise is not None:
            self.update_prior([z.detach() for z in latents], task, noise)
        return loss.detach()

    def value_loss(
        self, joint: Tensor, batch: Batch, following: Tensor, t: int, noise: PriorNoise
    ) -> Tensor:
        """Cross-entropy of every member to the one-step target."""
        with torch.no_grad():
            action, _ = self.act(following, batch.task, noise.target[t])
            there = self.joint(following, batch.task, action)
            values = torch.stack([self.expected(q(there)) for q in self.q_target])
            least = values[noise.members[:2]].min(0).values
            target = batch.reward[t] + self.discount[batch.task] * least
        return torch.stack([self.cross_entropy(q(joint), target) for q in self.q]).mean()

    def update_prior(self, latents: list[Tensor], task: Tensor, noise: PriorNoise) -> None:
        """The prior's step, the running scale and the target ensemble."""
        config, loss, first = self.config, torch.zeros((), device=task.device), None
        for t, z in enumerate(latents):
            action, log_prob = self.act(z, task, noise.policy[t])
            joint = self.joint(z, task, action)
            values = torch.stack([self.expected(q(joint)) for q in self.q])
            value = values[noise.members[2:]].mean(0)
            first = value.detach() if first is None else first
            step = (1e-4 * log_prob - value / self.q_scale).mean()
            loss = loss + config.rho**t / len(latents) * step
        self.prior_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.prior.parameters(), config.grad_clip)
        self.prior_optimizer.step()
        with torch.no_grad():
            low, high = torch.quantile(first, torch.tensor([0.05, 0.95], device=first.device))
            self.q_scale.lerp_((high - low).clamp(min=1.0), config.target_tau)
            for ours, theirs in zip(self.q_target.parameters(), self.q.parameters(), strict=True):
                ours.lerp_(theirs, config.target_tau)


def _with_dropout(net: nn.Sequential, share: float) -> nn.Sequential:
    if not share:
        return net
    first, *rest = net
    return nn.Sequential(first, nn.Dropout(share), *rest)
