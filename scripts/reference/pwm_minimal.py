"""The method in one file: a world model from recorded episodes, then a policy from that model.

Read it from top to bottom; docs/method.md has the equations. One task, plain torch, nothing fast.
Tests keep its updates equal, weight by weight, to the library's. Try it:

    pwm collect suite=pendulum-swingup episodes=60 out=runs/pendulum
    python scripts/reference/pwm_minimal.py runs/pendulum --task pendulum-swingup

o observation, z latent, a action, r reward, v value; H horizon, B batch, E critics; time is first.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.data.store import EpisodeStore
from pwm.data.windows.sampler import WindowSampler
from pwm.envs import make_env


@dataclass
class Constants:
    """Every number of the method, and [in brackets] the paper's where a small task needs less."""

    latent: int = 64  # size of z [768]
    hidden: int = 128  # units of a hidden layer of the world model [1792]
    group: int = 8  # entries of z that sum to one
    bins: tuple[float, float, int] = (-10, 10, 101)  # of symlog(r): first, last, how many
    horizon: int = 8  # H, steps of a recorded window and of an imagined rollout [16]
    batch_size: int = 64  # B, windows of an update [1024], rollouts of an iteration [512]
    # The world model's training
    updates: int = 1500
    rho: float = 0.99  # weight of a step in the loss relative to the one before it
    consistency: float = 20.0  # coefficient of the latents' loss
    reward: float = 0.1  # coefficient of the rewards' loss
    lr: float = 1e-3  # of Adam [3e-4]
    lr_final: float = 1e-4  # after the last update
    warmup: int = 200  # updates before lr is reached
    encoder_lr_scale: float = 0.3
    grad_norm: float = 20.0  # a longer gradient is cut to this length
    # Policy extraction
    iterations: int = 600  # [10,000]
    gamma: float = 0.99  # discount of a step
    lam: float = 0.95  # of TD(lambda): 0 looks one step ahead, 1 looks H
    policy_hidden: tuple[int, ...] = (128, 64)  # units of actor and critics [400, 200]
    critics: int = 3  # E
    log_std: float = -1.0  # of the actor's noise, at first
    min_log_std: float = -1.427
    policy_lr: float = 1e-3  # of Adam, for actor and critics [5e-4]
    policy_lr_final: float = 1e-5  # after the last iteration
    betas: tuple[float, float] = (0.7, 0.95)  # of Adam, for actor and critics
    actor_grad_norm: float = 1.0
    critic_grad_norm: float = 100.0
    critic_iterations: int = 1  # passes over an iteration's states [8]
    critic_batches: int = 4  # optimizer steps of a pass
    detach_actor_input: bool = True  # no gradient through the z that an action was chosen for
    seed: int = 0
    episodes: int = 10  # of the evaluation


def simnorm(group: int) -> nn.Sequential:
    """Softmax over groups of the last dimension, so that a latent cannot grow."""
    return nn.Sequential(nn.Unflatten(-1, (-1, group)), nn.Softmax(-1), nn.Flatten(-2))


def normed_linear(inputs: int, outputs: int, act: nn.Module) -> nn.Sequential:
    """Linear, LayerNorm, activation."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), act)


def mlp(*sizes: int, act: nn.Module | None = None) -> nn.Sequential:
    """Normed layers with Mish, then a linear one, or a normed one if it has an activation."""
    *hidden, last = pairwise(sizes)
    output = normed_linear(*last, act) if act else nn.Linear(*last)
    net = nn.Sequential(*(normed_linear(*layer, nn.Mish()) for layer in hidden), output)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return net


def two_hot(x: Tensor, bins: Tensor) -> Tensor:
    """(...) -> (..., bins): weights of the two bins around symlog(x) whose mean is symlog(x)."""
    symlog = x.sign() * x.abs().log1p()
    position = (symlog.clamp(bins[0], bins[-1]) - bins[0]) / (bins[1] - bins[0])
    lower = position.floor().clamp(max=len(bins) - 2)
    weight, below = (position - lower).unsqueeze(-1), F.one_hot(lower.long(), len(bins))
    return (1 - weight) * below + weight * below.roll(1, -1)


def cross_entropy(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Of predicted (..., bins) and true (...) numbers: the mean over all, ()."""
    return -(two_hot(x, bins) * logits.log_softmax(-1)).sum(-1).mean()


class WorldModel(nn.Module):
    """Encoder o -> z, dynamics z, a -> next z, and reward z, a -> r."""

    def __init__(self, obs_dim: int, action_dim: int, c: Constants) -> None:
        super().__init__()
        joint = c.latent + action_dim
        self.encoder = mlp(obs_dim, c.hidden, c.latent, act=simnorm(c.group))
        self.dynamics = mlp(joint, c.hidden, c.hidden, c.latent, act=simnorm(c.group))
        self.reward_head = mlp(joint, c.hidden, c.hidden, c.bins[2])
        nn.init.zeros_(self.reward_head[-1].weight)
        self.bins = nn.Buffer(torch.linspace(*c.bins))
        self.obs_mean = nn.Buffer(torch.zeros(obs_dim))
        self.obs_std = nn.Buffer(torch.ones(obs_dim))

    def encode(self, o: Tensor) -> Tensor:  # (..., obs) -> (..., latent)
        return self.encoder((o - self.obs_mean) / self.obs_std)

    def next(self, z: Tensor, a: Tensor) -> Tensor:  # (..., latent), (..., action) -> (..., latent)
        return self.dynamics(torch.cat([z, a], -1))

    def reward_logits(self, z: Tensor, a: Tensor) -> Tensor:  # -> (..., bins)
        return self.reward_head(torch.cat([z, a], -1))

    def reward(self, z: Tensor, a: Tensor) -> Tensor:  # -> (...), the expected symlog(r)
        return self.reward_logits(z, a).softmax(-1) @ self.bins


class Actor(nn.Module):
    """a = tanh(mean(z) + std * noise), with the same std in all states."""

    def __init__(self, action_dim: int, c: Constants) -> None:
        super().__init__()
        self.mean, self.min_log_std = mlp(c.latent, *c.policy_hidden, action_dim), c.min_log_std
        self.log_std = nn.Parameter(torch.full((action_dim,), c.log_std))

    def forward(self, z: Tensor, noise: Tensor | float = 0.0) -> Tensor:  # -> (..., action)
        return torch.tanh(self.mean(z) + noise * self.log_std.clamp(min=self.min_log_std).exp())


class Critics(nn.ModuleList):
    """E networks that estimate a state's value."""

    def __init__(self, c: Constants) -> None:
        super().__init__(mlp(c.latent, *c.policy_hidden, 1) for _ in range(c.critics))

    def forward(self, z: Tensor) -> Tensor:  # (..., latent) -> (E, ...)
        return torch.stack([critic(z).squeeze(-1) for critic in self])


def world_model_loss(
    model: WorldModel, o: Tensor, a: Tensor, r: Tensor, c: Constants
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Of o (H+1, B, obs), a (H, B, action), r (H, B) -> loss, z_0 to z_H, encoded o_1 to o_H."""
    with torch.no_grad():
        encoded = [model.encode(o_t) for o_t in o[1:]]
    z, loss = [model.encode(o[0])], torch.zeros((), device=o.device)
    for t in range(len(a)):
        reward = cross_entropy(model.reward_logits(z[t], a[t]), r[t], model.bins)
        z.append(model.next(z[t], a[t]))
        consistency = F.mse_loss(z[t + 1], encoded[t])
        loss = loss + c.rho**t / len(a) * (c.consistency * consistency + c.reward * reward)
    return loss, z, encoded


def descend(optimizer: Adam, lr: float, loss: Tensor, grad_norm: float) -> None:
    """One optimizer step."""
    optimizer.zero_grad()
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    nn.utils.clip_grad_norm_(weights, grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.step()


def pretrain(model: WorldModel, batches: Iterable[tuple], c: Constants) -> Iterator[Tensor]:
    """Train the world model; yields each update's loss."""
    encoder = {"params": model.encoder.parameters(), "lr_scale": c.encoder_lr_scale}
    rest = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    optimizer = Adam([encoder, {"params": rest}])
    for i, (o, a, r, *_) in enumerate(batches):  # the rest are task ids and terminations
        lr = min((i + 1) / c.warmup, 1) * (c.lr + (c.lr_final - c.lr) * i / c.updates)
        loss, _, _ = world_model_loss(model, o, a, r, c)
        descend(optimizer, lr, loss, c.grad_norm)
        yield loss.detach()


def imagine(model: WorldModel, actor: Actor, z: Tensor, c: Constants) -> tuple[Tensor, Tensor]:
    """Act in the world model from z_0 (B, latent): z (H+1, B, latent), r (H, B)."""
    latents, rewards = [z], []
    for noise in torch.randn(c.horizon, len(z), len(actor.log_std), device=z.device):
        a = actor(z.detach() if c.detach_actor_input else z, noise)
        rewards.append(model.reward(z, a))
        z = model.next(z, a)
        latents.append(z)
    return torch.stack(latents), torch.stack(rewards)


def bootstrapped_return(z: Tensor, r: Tensor, critics: Critics, c: Constants) -> Tensor:
    """sum_t gamma^t r_t + gamma^H min_i v_i(z_H) of each rollout: (B,)."""
    weights = c.gamma ** torch.arange(len(r), device=r.device)
    return weights @ r + c.gamma ** len(r) * critics(z[-1]).amin(0)


def actor_loss(returns: Tensor, return_scale: Tensor) -> Tensor:
    """Minus the mean return, in units of its running standard deviation: (B,), () -> ()."""
    return -returns.mean() / return_scale


def td_lambda(r: Tensor, v: Tensor, c: Constants) -> Tensor:
    """g_t = r_t + gamma ((1 - lam) v_{t+1} + lam g_{t+1}), g_H = v_H: (H, B); v is v_1 .. v_H."""
    g = [v[-1]]
    for r_t, v_next in zip(r.flip(0), v.flip(0), strict=True):
        g.append(r_t + c.gamma * ((1 - c.lam) * v_next + c.lam * g[-1]))
    return torch.stack(g[:0:-1])


def critic_loss(critics: Critics, z: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of all critics: (n, latent), (n,) -> ()."""
    return (critics(z) - target).square().mean()


def extract(
    model: WorldModel, actor: Actor, critics: Critics, starts: Iterable[Tensor], c: Constants
) -> Iterator[Tensor]:
    """Learn a policy from starts z_0 (B, latent) on; yields each iteration's mean return."""
    model.requires_grad_(False)
    actor_adam, critic_adam = (Adam(net.parameters(), betas=c.betas) for net in (actor, critics))
    mean = var = torch.zeros(())  # of the returns so far
    for i, start in enumerate(starts):
        lr = c.policy_lr + (c.policy_lr_final - c.policy_lr) * i / c.iterations
        z, r = imagine(model, actor, start, c)
        returns = bootstrapped_return(z, r, critics, c)
        new_var, new_mean = torch.var_mean(returns.detach(), correction=0)
        var = (i * var + new_var + i / (i + 1) * (new_mean - mean) ** 2) / (i + 1)
        mean = (i * mean + new_mean) / (i + 1)
        loss = actor_loss(returns, var.sqrt().clamp(min=0.01))
        descend(actor_adam, lr, loss, c.actor_grad_norm)
        with torch.no_grad():
            target = td_lambda(r, critics(z[1:]).amin(0), c).flatten()
        states = z[:-1].detach().flatten(0, 1)
        for _ in range(c.critic_iterations):
            for part in torch.randperm(len(states), device=z.device).chunk(c.critic_batches):
                loss = critic_loss(critics, states[part], target[part])
                descend(critic_adam, lr, loss, c.critic_grad_norm)
        yield returns.detach().mean()


@torch.no_grad()
def evaluate(task: str, act: Callable[[Tensor], Tensor], episodes: int) -> float:
    """The mean return of episodes in the simulator."""
    env, total = make_env(task), 0.0
    for seed in range(episodes):
        o, done = env.reset(seed=seed)[0], False
        while not done:
            o, r, terminated, truncated, _ = env.step(act(torch.from_numpy(o)).numpy())
            total, done = total + r, terminated or truncated
    return total / episodes


def main(words: list[str] | None = None) -> None:
    """Pretrain, extract, and compare the policy with random actions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="a directory that pwm collect wrote")
    parser.add_argument("--task", required=True)
    for field in fields(Constants):
        parser.add_argument(f"--{field.name}", type=ast.literal_eval, default=field.default)
    given = vars(parser.parse_args(words))
    store, task, c = EpisodeStore.open(given.pop("store")), given.pop("task"), Constants(**given)
    torch.manual_seed(c.seed)
    windows = WindowSampler(store, c.horizon, c.batch_size, c.seed, suite=get_suite(task))
    obs, action_dim = torch.tensor(store.rows(task)["obs"]), store.suite[task].action_dim
    model, actor = WorldModel(obs.shape[1], action_dim, c), Actor(action_dim, c)
    model.obs_mean, model.obs_std = obs.mean(0), obs.std(0).clamp(min=0.01)
    for i, loss in enumerate(pretrain(model, map(windows.batch, range(c.updates)), c)):
        if i % 100 == 0:
            print(f"update {i}: world model loss {loss:.3f}", flush=True)
    starts = (model.encode(windows.batch(i).obs[0]) for i in range(c.iterations))
    for i, imagined in enumerate(extract(model, actor, Critics(c), starts, c)):
        if i % 100 == 0:
            print(f"iteration {i}: imagined return {imagined:.3f}", flush=True)
    random = evaluate(task, lambda _: 2 * torch.rand(action_dim) - 1, c.episodes)
    policy = evaluate(task, lambda o: actor(model.encode(o)), c.episodes)
    print(f"mean return of {c.episodes} episodes: random {random:.1f}, policy {policy:.1f}")


if __name__ == "__main__":
    try:
        main()
    except PwmError as error:
        sys.exit(str(error))
