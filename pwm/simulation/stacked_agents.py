"""Soft actor-critics of K tasks in one stack of networks (SAC, Haarnoja et al. 2018).

As in FastTD3 and FastSAC (Seo et al. 2025) they learn from large batches, with LayerNorm and
normalized observations. Every task has weights, an entropy weight, a normalization and random draws
of its own, so that what it learns does not depend on which tasks are beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pwm.core.suites import Task
from pwm.models.actor_critic import action_masks
from pwm.models.layers import StackedLinear, StackedMLP, side_by_side
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import Groups
from pwm.runtime.seeding import stream_seed
from pwm.simulation.agents_config import AgentsConfig
from pwm.simulation.agents_replay import Transitions

_LOG_STD = (-5.0, 2.0)
_ZERO_LOG_STD = math.log(5 / 2)  # what the sigmoid between the two takes to 0
_CRITICS = 2
_VALUE_SCALE = 10.0  # of critics' outputs: returns are far from where networks begin
_LEAST_STD = 1e-2  # of an observation's entry, by which it is divided
_LARGEST_OBS = 10.0  # in standard deviations


class _Networks(nn.Module):
    """What is learned of K tasks, with padded inputs and outputs."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, tasks: int, obs_dim: int, action_dim: int, config: AgentsConfig) -> None:
        super().__init__()
        hidden = config.net_arch
        self.actor = StackedMLP(tasks, obs_dim, hidden, 2 * action_dim)
        self.critic = StackedMLP(_CRITICS * tasks, obs_dim + action_dim, hidden, 1)
        last = self.critic[-2]
        assert isinstance(last, StackedLinear)
        last.fused_dtype = torch.float32
        self.target = deepcopy(self.critic).requires_grad_(False)
        self.log_entropy = nn.Parameter(torch.full((tasks,), math.log(config.initial_entropy)))
        for name, value in (("mean", 0.0), ("var", 1.0)):
            self.register_buffer(name, torch.full((tasks, obs_dim), value, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(tasks, dtype=torch.float64))


class Agents:
    """A stack of agents that act and learn in one batch.

    Args:
        tasks: of which each is one, K.
        obs_dim: padded size of observations.
        action_dim: padded size of actions.
        config: how they learn.
        accelerator: how their arithmetic runs, and on which device.
        states: what :meth:`state` gave of each.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        obs_dim: int,
        action_dim: int,
        config: AgentsConfig,
        accelerator: Accelerator,
        states: Sequence[Groups],
    ) -> None:
        self.tasks, self._config, self._accelerator = tasks, config, accelerator
        self._sizes = obs_dim, action_dim
        device = accelerator.device
        self.networks = _Networks(len(tasks), obs_dim, action_dim, config).to(device)
        self._mask = action_masks(tasks, action_dim).unsqueeze(1).to(device)
        gammas = [task.discount if config.gamma is None else config.gamma for task in tasks]
        self._gamma = torch.tensor(gammas, device=device).unsqueeze(1)
        self._least_entropy = -self._mask.sum((1, 2))
        nets = self.networks
        self._critic = list(nets.critic.parameters())
        self._actor = [*nets.actor.parameters(), nets.log_entropy]
        self._optimizer = accelerator.adam([*self._critic, *self._actor], lr=config.learning_rate)
        for parameter in [*self._critic, *self._actor]:
            self._optimizer.state[parameter] = {
                "step": torch.zeros((), device=device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        for k, state in enumerate(states):
            self._load(k, state)
        self._update = accelerator.capture(self._learn)

    def _entries(self, k: int) -> Iterator[tuple[str, str, Tensor, tuple[int, Tensor] | None]]:
        """All that changes of a task: group, name, view, and which of a dimension it has."""
        tasks = len(self.tasks)
        nets = self.networks
        for name, tensor in nets.state_dict(keep_vars=True).items():
            kept = self._kept(k, name)
            entries = {"networks": tensor}
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                moments = self._optimizer.state[tensor]
                entries |= {kind: moments[kind] for kind in ("exp_avg", "exp_avg_sq")}
            for group, values in entries.items():
                yield group, name, values.detach().view(tasks, -1, *values.shape[1:])[k], kept

    def _kept(self, k: int, name: str) -> tuple[int, Tensor] | None:
        """The dimension of a tensor that is padded, and a task's own entries of it."""
        (obs_dim, action_dim), task = self._sizes, self.tasks[k]
        device = self._accelerator.device
        obs, action = (torch.arange(n, device=device) for n in (task.obs_dim, task.action_dim))
        last = len(self._config.net_arch)
        if name in ("mean", "var", "actor.0.weight"):
            return -1, obs
        if name in ("critic.0.weight", "target.0.weight"):
            return -1, torch.cat([obs, obs_dim + action])
        if name in (f"actor.{last}.weight", f"actor.{last}.bias"):
            return -2 if name.endswith("weight") else -1, torch.cat([action, action_dim + action])
        return None

    def state(self, k: int) -> Groups:
        """All that learning has made of task k, in the task's own sizes."""
        groups: Groups = {}
        for group, name, values, kept in self._entries(k):
            own = values if kept is None else values.index_select(*kept)
            groups.setdefault(group, {})[name] = own.clone()
        step = self._optimizer.state[self._critic[0]]["step"]
        groups["exp_avg"]["step"] = step.clone()
        return groups

    def _load(self, k: int, state: Groups) -> None:
        for group, name, values, kept in self._entries(k):
            own = state[group][name].to(values.device)
            if kept is None:
                values.copy_(own)
            else:
                values.fill_(1.0 if name == "var" else 0.0)
                values.index_copy_(values.ndim + kept[0], kept[1], own)
        for moments in self._optimizer.state.values():
            moments["step"].copy_(state["exp_avg"]["step"])

    def _normalized(self, obs: Tensor) -> Tensor:
        nets = self.networks
        mean, std = nets.mean.float(), nets.var.sqrt().clamp(min=_LEAST_STD).float()
        scaled = (obs - mean.unsqueeze(1)) / std.unsqueeze(1)
        return scaled.clamp(-_LARGEST_OBS, _LARGEST_OBS)

    @torch.no_grad()
    def observe(self, obs: Tensor) -> None:
        """Adds observations, (K, E, obs_dim), to the means and variances of the tasks."""
        nets, fresh = self.networks, obs.double()
        count = nets.count + fresh.shape[1]
        share = (count.reciprocal() * fresh.shape[1]).unsqueeze(1)
        mean, var = fresh.mean(1), fresh.var(1, correction=0)
        apart = mean - nets.mean
        nets.var += share * (var - nets.var + (1 - share) * apart.square())
        nets.mean += share * apart
        nets.count.copy_(count)

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> np.ndarray:
        """Actions, (K, E, action_dim) in [-1, 1], zero where a task has none.

        ``noise`` is standard normal, of their shape.
        """
        action, _ = self._drawn(self._normalized(obs), noise)
        return action.cpu().numpy()

    def _drawn(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of the policies, (K, B, action_dim), and their log densities, (K, B)."""
        with self._accelerator.arithmetic():
            out = self.networks.actor(side_by_side(obs))
        mean, raw = out.float().chunk(2, -1)
        low, high = _LOG_STD
        log_std = low + (high - low) * torch.sigmoid(raw + _ZERO_LOG_STD)
        before = mean + noise * log_std.exp()
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        squash = 2 * (math.log(2) - before - F.softplus(-2 * before))
        density = ((normal - squash) * self._mask).sum(-1)
        return torch.tanh(before) * self._mask, density

    def _values(self, critic: StackedMLP, obs: Tensor, action: Tensor) -> Tensor:
        """Values by both critics of each task, (K, 2, B)."""
        *hidden, output = critic
        with self._accelerator.arithmetic():
            x = side_by_side(obs, action)
            for layer in hidden:
                x = layer(x)
        values = output(x.float())  # bfloat16 has no room for a value's digits
        return _VALUE_SCALE * values.squeeze(-1).unflatten(0, (-1, _CRITICS))

    def update(self, batch: Transitions, noise: Tensor) -> None:
        """One update of each agent.

        Args:
            batch: a batch of each task's transitions.
            noise: standard normal, (2, K, B, action_dim), of actions before and after the steps.
        """
        self._update(batch, noise)

    def _learn(self, batch: Transitions, noise: Tensor) -> None:
        nets = self.networks
        obs, after = self._normalized(batch.obs), self._normalized(batch.after)
        entropy = nets.log_entropy.detach().exp().unsqueeze(1)
        with torch.no_grad():
            action, density = self._drawn(after, noise[1])
            value = self._values(nets.target, after, action).amin(1) - entropy * density
            goal = batch.reward + self._gamma * (1 - batch.terminated) * value
        values = self._values(nets.critic, obs, batch.action)
        loss = (values - goal.unsqueeze(1)).square().mean(-1).sum() / _VALUE_SCALE
        grads = list(torch.autograd.grad(loss, self._critic))
        action, density = self._drawn(obs, noise[0])
        value = self._values(nets.critic, obs, action).amin(1)
        surplus = density.detach().mean(1) + self._least_entropy
        loss = (entropy * density - value).mean(1).sum() - (nets.log_entropy * surplus).sum()
        grads += torch.autograd.grad(loss, self._actor)
        for parameter, grad in zip([*self._critic, *self._actor], grads, strict=True):
            parameter.grad = grad.contiguous()  # fused Adam takes no heed of strides
        self._optimizer.step()
        with torch.no_grad():
            targets: list[Tensor] = list(nets.target.parameters())
            torch._foreach_lerp_(targets, list[Tensor](self._critic), self._config.tau)


def first_state(task: Task, config: AgentsConfig, seed: int) -> Groups:
    """An agent that has learned nothing; its weights follow from the seed and the task."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, f"agents {task.name}"))
        networks = _Networks(1, task.obs_dim, task.action_dim, config)
    groups: Groups = {"networks": {}, "exp_avg": {"step": torch.zeros(())}, "exp_avg_sq": {}}
    for name, tensor in networks.state_dict(keep_vars=True).items():
        own = tensor.detach().view(1, -1, *tensor.shape[1:])[0]
        groups["networks"][name] = own
        if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
            groups["exp_avg"][name] = groups["exp_avg_sq"][name] = torch.zeros_like(own)
    return groups


class Draws:
    """What the agents of some tasks draw, each from a stream of its own.

    Args:
        generators: of each task.
        sizes: of each task's actions.
        action_dim: the padded size.
    """

    def __init__(
        self, generators: Sequence[torch.Generator], sizes: Sequence[int], action_dim: int
    ) -> None:
        self._streams = list(zip(generators, sizes, strict=True))
        self._action_dim = action_dim

    def noise(self, *shape: int) -> Tensor:
        """(K, *shape, action_dim) standard normal, zero in the padding."""
        drawn = []
        for generator, size in self._streams:
            own = torch.randn(*shape, size, generator=generator, device=generator.device)
            drawn.append(F.pad(own, (0, self._action_dim - size)))
        return torch.stack(drawn)

    def indices(self, below: int, *shape: int) -> Tensor:
        """(K, *shape) uniform in 0..below - 1."""
        return torch.stack(
            [
                torch.randint(below, shape, generator=generator, device=generator.device)
                for generator, _ in self._streams
            ]
        )
