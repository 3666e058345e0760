"""Policy extraction written straight from the equations: what the fast version is measured against.

One task, eager, one module a network, one optimizer step a minibatch; nothing is shared, stacked,
fused or folded. It starts from a learner's networks and takes the learner's random numbers, so
that one iteration of both must end in the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pwm.extraction.inputs import Noise
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.layers import StackedMLP
from pwm.models.math import running_moments


class PlainSimNorm(nn.Module):
    """Softmax over groups of the last dimension."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(..., features) to the same shape."""
        shape = x.shape
        return torch.softmax(x.view(*shape[:-1], -1, self.group), -1).view(shape)


def plain_mlp(state: dict[str, Tensor], activation: nn.Module | None = None) -> nn.Sequential:
    """An MLP of torch's own layers with the weights of a ``pwm.models.layers.mlp``'s state."""
    layers: list[nn.Module] = []
    count = 1 + max(int(name.split(".")[0]) for name in state)
    for i in range(count):
        weight, bias = state[f"{i}.weight"], state[f"{i}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers.append(linear)
        if f"{i}.ln.weight" in state:
            norm = nn.LayerNorm(len(bias))
            norm.load_state_dict({"weight": state[f"{i}.ln.weight"], "bias": state[f"{i}.ln.bias"]})
            layers += [norm, activation if i == count - 1 and activation else nn.Mish()]
    return nn.Sequential(*layers)


def unstack(stacked: StackedMLP) -> list[nn.Sequential]:
    """The members of a stack as MLPs of their own."""
    state = stacked.state_dict()
    members = len(next(iter(state.values())))
    return [plain_mlp({name: value[i] for name, value in state.items()}) for i in range(members)]


class PlainExtraction:
    """One task's actor, critics and optimizers, and an iteration of learning.

    Args:
        learner: a learner of one task, whose networks are copied as they are now.
    """

    def __init__(self, learner: ActorCriticLearner) -> None:
        model, config = learner.model, learner.config
        device = model.bins.device
        activation = PlainSimNorm(model.size.simnorm_dim)
        self.config, self.bins = config, model.bins
        self.embedding = model.task_embedding(learner.task_ids[0])
        self.mask = learner.actors.action_mask[0]
        self.dynamics = plain_mlp(model.dynamics.state_dict(), activation).to(device)
        self.reward = plain_mlp(model.reward_head.state_dict()).to(device)
        for frozen in (self.dynamics, self.reward):
            frozen.requires_grad_(False)
        self.actor = unstack(learner.actors.mean)[0].to(device)
        self.log_std = nn.Parameter(learner.actors.log_std[0].detach().clone())
        self.critics = nn.ModuleList(unstack(learner.critics.value)).to(device)
        self.value_scale = learner.critics.scale
        self.actor_parameters = [*self.actor.parameters(), self.log_std]
        betas = (config.betas[0], config.betas[1])
        self.actor_optimizer = torch.optim.Adam(
            self.actor_parameters, lr=config.actor_lr, betas=betas
        )
        self.critic_optimizer = torch.optim.Adam(
            self.critics.parameters(), lr=config.critic_lr, betas=betas
        )
        none = torch.zeros(1, device=device)
        self.moments = (none, none, none)

    def joint(self, z: Tensor, action: Tensor) -> Tensor:
        """Latents, task embedding and actions side by side."""
        return torch.cat([z, self.embedding.expand(len(z), -1), action], -1)

    def values(self, z: Tensor) -> Tensor:
        """Every critic's value: (n, latent) -> (E, n)."""
        return torch.stack([self.value_scale * critic(z).squeeze(-1) for critic in self.critics])

    def iteration(self, start: Tensor, noise: Noise) -> Tensor:
        """One actor step and the critics' steps from (B, latent); returns the last critic loss."""
        config = self.config
        z, latents, rewards, total = start, [start], [], torch.zeros_like(start[:, 0])
        for t in range(config.horizon):
            features = z.detach() if config.detach_actor_input else z
            std = self.log_std.clamp(min=-1.427).exp()
            action = torch.tanh(self.actor(features) + noise.action[t, 0] * std) * self.mask
            logits = self.reward(self.joint(z, action))
            reward = (torch.softmax(logits, -1) * self.bins).sum(-1)
            z = self.dynamics(self.joint(z, action))
            total = total + config.discount**t * reward
            rewards.append(reward)
            latents.append(z)
        value = self.values(z).min(0).values
        returns = total + config.discount**config.horizon * value
        batch = returns.detach().unsqueeze(0)
        self.moments = running_moments(*self.moments, batch, config.return_decay)
        loss = -returns.mean() / self.moments[1].sqrt().clamp(min=1e-2)
        self.actor_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.actor_parameters, config.actor_clip)
        self.actor_optimizer.step()
        return self._critics([z.detach() for z in latents], [r.detach() for r in rewards], noise)

    def _critics(
        self, latents: Sequence[Tensor], rewards: Sequence[Tensor], noise: Noise
    ) -> Tensor:
        config = self.config
        with torch.no_grad():
            target = self.values(latents[-1]).min(0).values
            targets = []
            for t in reversed(range(config.horizon)):
                value = self.values(latents[t + 1]).min(0).values
                mixed = (1 - config.lam) * value + config.lam * target
                target = rewards[t] + config.discount * mixed
                targets.insert(0, target)
        states, wanted = torch.cat(list(latents[:-1])), torch.cat(targets)
        for permutation in noise.order:
            for part in permutation.chunk(config.critic_minibatches):
                error = (self.values(states[part]) - wanted[part]) / self.value_scale
                loss = error.square().mean()
                self.critic_optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.critics.parameters(), config.critic_clip)
                self.critic_optimizer.step()
        return loss.detach()
