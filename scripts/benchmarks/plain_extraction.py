"""The reference's extraction with a learner's networks: what the fast version is measured against.

One task, eager, one module a network, one optimizer step a minibatch; nothing is shared, stacked,
fused or folded. The equations are those of ``reference/pwm_minimal.py``; here is only what a
suite of many tasks adds, task embeddings and action masks.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from reference.pwm_minimal import Actor, Constants, Critics, WorldModel, extract, mlp, simnorm
from torch import Tensor, nn

from pwm.extraction.learner import ActorCriticLearner
from pwm.models import actor_critic, world_model
from pwm.models.layers import StackedMLP


def plain_mlp(parameters: Iterable[Tensor], act: nn.Module | None = None) -> nn.Sequential:
    """An MLP of the reference with the weights of a library's, given in their order."""
    theirs = list(parameters)
    weights = [parameter for parameter in theirs if parameter.dim() == 2]
    net = mlp(weights[0].shape[1], *(len(weight) for weight in weights), act=act)
    with torch.no_grad():
        for ours, given in zip(net.parameters(), theirs, strict=True):
            ours.copy_(given)
    return net.to(theirs[0].device)


def unstack(stacked: StackedMLP) -> list[nn.Sequential]:
    """The members of a stack as MLPs of their own."""
    members = len(next(stacked.parameters()))
    return [plain_mlp(p[i] for p in stacked.parameters()) for i in range(members)]


class PlainWorldModel(WorldModel):
    """The reference's world model with a task embedding beside every observation and latent.

    Args:
        model: its networks are copied as they are now; it must not normalize observations.

    Attributes:
        task: ids, () or (B,), of what the other methods are given.
    """

    task: Tensor

    def __init__(self, model: world_model.WorldModel) -> None:
        nn.Module.__init__(self)
        act = simnorm(model.size.simnorm_dim)
        self.encoder = plain_mlp(model.encoder.parameters(), act)
        self.dynamics = plain_mlp(model.dynamics.parameters(), act)
        self.reward_head = plain_mlp(model.reward_head.parameters())
        self.embedding = nn.Embedding.from_pretrained(model.task_emb.weight.clone(), freeze=False)
        self.bins, self.obs_mean, self.obs_std = model.bins, 0.0, 1.0

    def with_task(self, x: Tensor) -> Tensor:
        """Task embeddings of norm at most one beside (B, n)."""
        embedding = self.embedding(self.task)
        embedding = embedding / embedding.norm(dim=-1, keepdim=True).clamp(min=1.0)
        return torch.cat([x, embedding.expand(len(x), -1)], -1)

    def encode(self, o: Tensor) -> Tensor:
        """(B, obs) -> (B, latent)."""
        return super().encode(self.with_task(o))

    def next(self, z: Tensor, a: Tensor) -> Tensor:
        """(B, latent), (B, action) -> (B, latent)."""
        return super().next(self.with_task(z), a)

    def reward_logits(self, z: Tensor, a: Tensor) -> Tensor:
        """(B, latent), (B, action) -> (B, bins)."""
        return super().reward_logits(self.with_task(z), a)


class PlainActor(Actor):
    """The reference's actor with zeros in the action dimensions that the task does not have."""

    def __init__(self, actors: actor_critic.Actors) -> None:
        nn.Module.__init__(self)
        (self.mean,) = unstack(actors.mean)
        self.log_std = nn.Parameter(actors.log_std[0].detach().clone())
        self.min_log_std, self.mask = actors.min_log_std, actors.action_mask[0]

    def forward(self, z: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """(B, latent), (B, action) -> (B, action)."""
        return super().forward(z, noise) * self.mask


class PlainCritics(Critics):
    """The reference's critics."""

    def __init__(self, critics: actor_critic.Critics) -> None:
        nn.ModuleList.__init__(self, unstack(critics.value))


class PlainExtraction:
    """One task's actor and critics, and iterations of learning.

    Args:
        learner: a learner of one task, whose networks are copied as they are now.
    """

    def __init__(self, learner: ActorCriticLearner) -> None:
        config = learner.config
        c = Constants(
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
        model = PlainWorldModel(learner.model)
        model.task = learner.task_ids[0]
        self.actor, self.critics = PlainActor(learner.actors), PlainCritics(learner.critics)
        self._starts: list[Tensor] = []
        starts = iter(self._starts.pop, None)
        self._iterations = extract(model, self.actor, self.critics, starts, c)

    def iteration(self, start: Tensor) -> Tensor:
        """One actor step and the critics' steps from (B, latent); returns the mean return."""
        self._starts.append(start)
        return next(self._iterations)
