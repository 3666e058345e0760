"""The reference's extraction with a learner's networks: what the fast version is measured against.

One task, eager, an ensemble of critics under vmap, one optimizer step a minibatch; nothing is
shared between networks, fused or folded. As in PWM's published code the critics value every
imagined step where it is made, and backpropagation reaches the weights of the world model too,
which do not change. The equations are those of ``reference/pwm_minimal.py``; here is besides what
a suite of many tasks adds, task embeddings and action masks.
"""

from __future__ import annotations

import torch
from benchmarks.plain_networks import PlainEnsemble, PlainWorldModel, plain_mlp
from reference.pwm_minimal import Constants, actor_loss, descend, td_lambda
from torch import Tensor, nn

from pwm.extraction.learner import ActorCriticLearner
from pwm.models import actor_critic


class PlainActor(nn.Module):
    """The reference's actor with zeros in the action dimensions that the task does not have."""

    def __init__(self, actors: actor_critic.Actors) -> None:
        super().__init__()
        self.mean = plain_mlp(p[0] for p in actors.mean.parameters())
        self.log_std = nn.Parameter(actors.log_std[0].detach().clone())
        self.min_log_std, self.mask = actors.min_log_std, actors.action_mask[0]

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        """(B, latent), (B, action) -> (B, action)."""
        std = self.log_std.clamp(min=self.min_log_std).exp()
        return torch.tanh(self.mean(z) + noise * std) * self.mask


class PlainExtraction:
    """One task's actor and critics, and iterations of learning.

    Args:
        learner: a learner of one task, whose networks are copied as they are now.
    """

    def __init__(self, learner: ActorCriticLearner) -> None:
        config = learner.config
        self.c = Constants(
            horizon=config.horizon,
            iterations=config.iterations,
            gamma=config.discount,
            lam=config.lam,
            policy_lr=config.optim.actor_lr,
            policy_lr_final=config.optim.lr_final,
            betas=(config.optim.betas[0], config.optim.betas[1]),
            actor_grad_norm=config.optim.actor_grad_norm,
            critic_grad_norm=config.optim.critic_grad_norm,
            critic_iterations=config.critic.iterations,
            critic_batches=config.critic.batches,
            detach_actor_input=config.detach_actor_input,
        )
        self.model = PlainWorldModel(learner.model)
        self.model.task = learner.task_ids[0]
        self.actor = PlainActor(learner.actors)
        self.critics = PlainEnsemble(learner.critics.value)
        self.actor_adam, self.critic_adam = (
            torch.optim.Adam(net.parameters(), betas=self.c.betas)
            for net in (self.actor, self.critics)
        )
        self.iterations = 0
        self.mean = self.var = torch.zeros((), device=learner.task_ids.device)  # of all returns

    def iteration(self, start: Tensor) -> Tensor:
        """One actor step and the critics' steps from (B, latent); returns the mean return."""
        c, i = self.c, self.iterations
        lr = c.policy_lr + (c.policy_lr_final - c.policy_lr) * i / c.iterations
        latents, rewards, values = self.imagine(start)
        weights = c.gamma ** torch.arange(c.horizon, device=start.device)
        returns = weights @ rewards + c.gamma**c.horizon * values[-1]
        loss = actor_loss(returns, self.return_scale(returns.detach()))
        descend(self.actor_adam, lr, loss, c.actor_grad_norm)
        target = td_lambda(rewards.detach(), values.detach(), c).flatten()
        states = latents.detach().flatten(0, 1)
        for _ in range(c.critic_iterations):
            for part in torch.randperm(len(states), device=start.device).chunk(c.critic_batches):
                predicted = self.critics(states[part]).squeeze(-1)
                loss = (predicted - target[part]).square().mean()
                descend(self.critic_adam, lr, loss, c.critic_grad_norm)
        self.iterations += 1
        return returns.detach().mean()

    def imagine(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents z_0 .. z_H-1 (H, B, latent), rewards (H, B) and values of z_1 .. z_H (H, B)."""
        latents, rewards, values = [], [], []
        shape = self.c.horizon, len(z), len(self.actor.log_std)
        for noise in torch.randn(shape, device=z.device):
            latents.append(z)
            a = self.actor(z.detach() if self.c.detach_actor_input else z, noise)
            rewards.append(self.model.expected(self.model.reward_logits(z, a)))
            z = self.model.next(z, a)
            values.append(self.critics(z).squeeze(-1).amin(0))
        return torch.stack(latents), torch.stack(rewards), torch.stack(values)

    def return_scale(self, returns: Tensor) -> Tensor:
        """The running standard deviation, with these (B,) taken in."""
        i = self.iterations
        var, mean = torch.var_mean(returns, correction=0)
        self.var = (i * self.var + var + i / (i + 1) * (mean - self.mean) ** 2) / (i + 1)
        self.mean = (i * self.mean + mean) / (i + 1)
        return self.var.sqrt().clamp(min=0.01)
