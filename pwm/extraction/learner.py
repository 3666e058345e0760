"""Policy learning for K tasks at once by first-order gradients through a frozen world model.

PWM (ICLR 2025), section 4 and Algorithm 1. Every task's numbers come from its own random streams
and its own gradient norm, so a task's result does not depend on which tasks run beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pwm.core.suites import Task
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.imagination import FirstLayers, Imagined, fold, imagine_step, imagined_reward
from pwm.models.actor_critic import (
    Actors,
    Critics,
    TaskCritic,
    action_masks,
)
from pwm.models.math import discounted_sum, pessimistic_mean, running_moments, symexp, td_lambda
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.seeding import stream, stream_seed
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors


class Demonstrations(NamedTuple):
    """States of good episodes and what was done there, for behaviour cloning."""

    latent: Tensor  # (K, B, latent)
    action: Tensor  # (K, B, action_dim)


class Transitions(NamedTuple):
    """What followed recorded states, for the critics."""

    latent: Tensor  # (K, B, latent)
    reward: Tensor  # (K, B), discounted sum over ``real_value_steps``, in the learner's units
    discount: Tensor  # (K, B), of the value of where that led
    next_latent: Tensor  # (K, B, latent)


class Noise(NamedTuple):
    """The random numbers of one iteration."""

    action: Tensor  # (H, K, B, action_dim) standard normal
    order: Tensor  # (passes, H * B) permutations that cut the critics' minibatches


class ImaginedRollout(NamedTuple):
    """Imagined by the policy in the world model, time first."""

    latents: Tensor  # (H+1, K, B, latent)
    rewards: Tensor  # (H, K, B)


class ActorCriticLearner:
    """K actors and critic ensembles, their optimizers and their random streams.

    Args:
        model: the world model, frozen.
        tasks: the K tasks, all of the model's suite.
        config: see :class:`ActorCriticConfig`.
        seed: together with a task's name it fixes that task's networks and random numbers.
        accelerator: how the arithmetic runs; eagerly, in the model's precision, by default.
        others: further frozen world models of the same suite. Each imagines what the actions, which
            are chosen in ``model``, lead to in itself; where rewards disagree they are lowered.
    """

    def __init__(
        self,
        model: WorldModel,
        tasks: Sequence[Task],
        config: ActorCriticConfig,
        seed: int,
        accelerator: Accelerator | None = None,
        others: Sequence[WorldModel] = (),
    ) -> None:
        config.validate()
        self.model, self.tasks, self.config = model, list(tasks), config
        self.others = list(others)
        self.accelerator = accelerator or Accelerator(model.bins.device)
        self._step = self.accelerator.compile(policy_step)
        self._follow = self.accelerator.compile(imagine_step)
        self._reward = self.accelerator.compile(imagined_reward)
        self._lowest_value = self.accelerator.compile(lowest_value)
        self._critic_error = self.accelerator.compile(critic_error)
        self._iterate = self.accelerator.capture(self._iteration)
        self._imitate = self.accelerator.capture(self._imitation)
        device, latent = model.bins.device, model.size.latent_dim
        self.task_ids = torch.tensor([model.suite.id(t.name) for t in tasks], device=device)
        masks = action_masks(self.tasks, model.suite.action_dim).to(device)
        scale = 1 / (1 - config.discount) if config.scale_values else 1.0
        self.actors = Actors(latent, masks, config.networks).to(device)
        self.critics = Critics(len(tasks), latent, config.networks, scale).to(device)
        self._generators = [stream(seed, task.name, device) for task in tasks]
        self._order_generator = stream(seed, "order", device)
        self._initialize(seed)
        betas = (config.betas[0], config.betas[1])
        self.actor_optimizer = self.accelerator.adam(
            self.actors.parameters(), lr=config.actor_lr, betas=betas
        )
        self.critic_optimizer = self.accelerator.adam(
            self.critics.parameters(), lr=config.critic_lr, betas=betas
        )
        self.clone_weight = torch.zeros((), device=device)
        self.moments = torch.zeros(3, len(tasks), device=device)  # mean, variance, weight

    def _initialize(self, seed: int) -> None:
        """Give each task the weights that it would get alone."""
        for k, task in enumerate(self.tasks):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(seed, task.name + "/weights"))
                single = action_masks([task], self.model.suite.action_dim)
                latent = self.model.size.latent_dim
                actor = Actors(latent, single, self.config.networks)
                critic = Critics(1, latent, self.config.networks, 1.0)
            self.begin_from(k, actor, critic)

    def begin_from(self, index: int, actor: Actors, critics: Critics) -> None:
        """Give one task the weights of an actor and critics of the same sizes."""
        _assign_task(self.actors, actor, index, len(self.tasks))
        _assign_task(self.critics, critics, index, len(self.tasks))

    def sample(self, pool: int) -> Tensor:
        """(K, batch_size) row numbers below ``pool``, from each task's own stream."""
        size = (self.config.batch_size,)
        return torch.stack(
            [torch.randint(pool, size, generator=g, device=g.device) for g in self._generators]
        )

    def noise(self) -> Noise:
        """The next iteration's random numbers, from each task's own stream."""
        config, device = self.config, self.task_ids.device
        shape = (config.horizon, config.batch_size, self.model.suite.action_dim)
        action = [torch.randn(shape, generator=g, device=device) for g in self._generators]
        samples = config.horizon * config.batch_size
        order = [
            torch.randperm(samples, generator=self._order_generator, device=device)
            for _ in range(config.critic_passes)
        ]
        return Noise(torch.stack(action, 1), torch.stack(order))

    def imagine(
        self, start: Tensor, noise: Tensor, elsewhere: Sequence[Tensor] = ()
    ) -> ImaginedRollout:
        """Roll the policy out in the world model, differentiably.

        Args:
            start: (K, B, latent).
            noise: (H, K, B, action_dim).
            elsewhere: the start states as latents of the other world models, (K, B, their latent).
        """
        first = fold(self.model, self.task_ids)
        z, latents, actions, features = start, [start], [], []
        for step_noise in noise:
            seen = z.detach() if self.config.detach_actor_input else z
            action, step = self._step(self.actors, self.model, first, z, seen, step_noise)
            z = step.latent
            latents.append(z)
            actions.append(action)
            features.append(step.reward_features)
        reward = self._rewards(self.model, features)
        if self.others:
            theirs = [
                self._follow_elsewhere(model, z, actions)
                for model, z in zip(self.others, elsewhere, strict=True)
            ]
            weight = self.config.disagreement_weight
            reward = pessimistic_mean(torch.stack([reward, *theirs]), weight)
        return ImaginedRollout(torch.stack(latents), reward)

    def _follow_elsewhere(self, model: WorldModel, z: Tensor, actions: Sequence[Tensor]) -> Tensor:
        """Rewards (H, K, B) of the same actions in another world model."""
        first = fold(model, self.task_ids)
        features = []
        for action in actions:
            z, reward_features = self._follow(model, first, z, action)
            features.append(reward_features)
        return self._rewards(model, features)

    def _rewards(self, model: WorldModel, features: Sequence[Tensor]) -> Tensor:
        reward = self._reward(model, torch.stack(list(features)))
        return symexp(reward) if self.config.reward_units == "real" else reward

    def actor_loss(
        self,
        start: Tensor,
        noise: Tensor,
        demonstrations: Demonstrations | None = None,
        elsewhere: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ImaginedRollout, dict[str, Tensor]]:
        """Minus the normalized H-step return with bootstrap, plus cloning (PWM, eq. 5).

        Returns:
            (K,) losses, the rollouts, and (K,) metrics. The running moments take this batch in.
        """
        config = self.config
        imagined = self.imagine(start, noise, elsewhere)
        bootstrap = self._lowest_value(self.critics, imagined.latents[-1])
        returns = discounted_sum(imagined.rewards, config.discount)
        returns = returns + config.discount**config.horizon * bootstrap
        mean, var, weight = self.moments.unbind()
        moments = running_moments(mean, var, weight, returns.detach(), config.return_decay)
        self.moments.copy_(torch.stack(moments))
        scale = moments[1].sqrt().clamp(min=1e-2)
        loss = -returns.mean(1) / scale
        metrics = {"imagined_return": returns.detach().mean(1), "return_scale": scale}
        if demonstrations is not None:
            distance = self._distance(demonstrations)
            loss = loss + self.clone_weight * distance
            metrics["clone_error"] = distance.detach()
        return loss, imagined, metrics

    def _distance(self, demonstrations: Demonstrations) -> Tensor:
        """(K,) mean squared errors of the actors, an entry of an action."""
        error = (self.actors(demonstrations.latent) - demonstrations.action).square().sum(-1)
        return error.mean(1) / self.actors.action_mask.sum(-1)

    def imitation(self, demonstrations: Demonstrations) -> dict[str, Tensor]:
        """One actor step for all K tasks that only clones; (K,) metrics as of :meth:`iteration`."""
        with self.accelerator.autocast():
            return self._imitate(*demonstrations)

    def _imitation(self, latent: Tensor, action: Tensor) -> dict[str, Tensor]:
        distance = self._distance(Demonstrations(latent, action))
        return {
            "clone_error": distance.detach(),
            "actor_grad_norm": self._descend_actors(distance),
        }

    def _descend_actors(self, loss: Tensor) -> Tensor:
        parameters = list(self.actors.parameters())
        # Cloning alone does not reach log_std.
        grads = torch.autograd.grad(loss.sum(), parameters, materialize_grads=True)
        return self._descend(self.actor_optimizer, parameters, grads, self.config.actor_clip)

    def iteration(
        self,
        start: Tensor,
        noise: Noise,
        demonstrations: Demonstrations | None = None,
        elsewhere: Sequence[Tensor] = (),
        real: Transitions | None = None,
    ) -> dict[str, Tensor]:
        """One actor step and the critics' steps for all K tasks.

        Args:
            start: (K, B, latent), where rollouts begin.
            noise: the iteration's random numbers.
            demonstrations: what to clone, if anything is; always or never.
            elsewhere: the start states as latents of the other world models.
            real: recorded transitions, if ``real_value_share`` is above 0.

        Returns:
            (K,) metrics on the device, good until the next call.
        """
        with self.accelerator.autocast():
            return self._iterate(start, *noise, *elsewhere, *(real or ()), *(demonstrations or ()))

    def _iteration(
        self, start: Tensor, action_noise: Tensor, order: Tensor, *data: Tensor
    ) -> dict[str, Tensor]:
        rest = iter(data)
        elsewhere = list(islice(rest, len(self.others)))
        real = Transitions(*islice(rest, 4)) if self.config.real_value_share else None
        shown = list(rest)
        cloned = Demonstrations(*shown) if shown else None
        loss, imagined, metrics = self.actor_loss(start, action_noise, cloned, elsewhere)
        norm = self._descend_actors(loss)
        critic_loss, value = self._update_critics(imagined, order, real)
        return metrics | {
            "actor_grad_norm": norm,
            "critic_loss": critic_loss,
            "value": value,
            "policy_std": self.actors.log_std.detach().exp().mean(1),
        }

    def _update_critics(
        self, imagined: ImaginedRollout, order: Tensor, real: Transitions | None
    ) -> tuple[Tensor, Tensor]:
        config, share = self.config, self.config.real_value_share
        latents = imagined.latents.detach().transpose(0, 1)  # (K, H+1, B, latent)
        tasks, _, batch, size = latents.shape
        with torch.no_grad():
            values = self._lowest_value(self.critics, latents[:, 1:].reshape(tasks, -1, size))
            values = values.view(tasks, config.horizon, batch).transpose(0, 1)
            targets = td_lambda(imagined.rewards.detach(), values, config.discount, config.lam)
            if real is not None:
                real_targets = self._lowest_value(self.critics, real.next_latent)
                real_targets = real.reward + real.discount * real_targets
        targets = targets.transpose(0, 1).reshape(tasks, -1)
        states = latents[:, :-1].reshape(tasks, -1, size)
        parameters = list(self.critics.parameters())
        loss = torch.zeros(tasks, device=states.device)
        for permutation in order:
            for part in permutation.chunk(config.critic_minibatches):
                loss = self._critic_error(self.critics, states[:, part], targets[:, part])
                if real is not None:
                    of_real = self._critic_error(self.critics, real.latent, real_targets)
                    loss = torch.lerp(loss, of_real, share)
                grads = torch.autograd.grad(loss.sum(), parameters)
                self._descend(self.critic_optimizer, parameters, grads, config.critic_clip)
        return loss.detach(), targets.mean(1)

    def _descend(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: Sequence[nn.Parameter],
        grads: Sequence[Tensor],
        limit: float,
    ) -> Tensor:
        clipped, norm = clip_by_task(grads, limit, len(self.tasks))
        for parameter, grad in zip(parameters, clipped, strict=True):
            parameter.grad = grad
        optimizer.step()
        return norm

    def critic(self, index: int) -> TaskCritic:
        """A copy of one task's critic, to be saved beside its policy."""
        config, critics = self.config, self.critics
        values = Critics(1, self.model.size.latent_dim, config.networks, critics.scale)
        members = config.networks.critics
        own = slice(index * members, (index + 1) * members)
        values.load_state_dict({name: t[own] for name, t in critics.state_dict().items()})
        return TaskCritic(values, config.reward_units, config.discount)

    def set_progress(self, step: int) -> None:
        """Set a step's learning rates and weight of behaviour cloning.

        Args:
            step: counts from 0 the updates that only clone, and then the iterations.
        """
        config = self.config
        progress, actor_lr = (step - config.clone_first) / config.iterations, config.actor_lr
        if step < config.clone_first:
            progress, actor_lr = step / config.clone_first, config.clone_lr
        for value, first, last in (
            (self.actor_optimizer.param_groups[0]["lr"], actor_lr, config.lr_final),
            (self.critic_optimizer.param_groups[0]["lr"], config.critic_lr, config.lr_final),
            (self.clone_weight, config.clone_weight, config.clone_weight_final),
        ):
            value.fill_(first + (last - first) * progress)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        streams = [*self._generators, self._order_generator]
        return {
            "actors": self.actors.state_dict(),
            "critics": self.critics.state_dict(),
            "actor_optimizer": optimizer_tensors(self.actor_optimizer),
            "critic_optimizer": optimizer_tensors(self.critic_optimizer),
            "moments": {"mean,variance,weight": self.moments},
            "random": {str(i): stream.get_state() for i, stream in enumerate(streams)},
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        groups = checkpoint.tensors
        self.actors.load_state_dict(groups["actors"])
        self.critics.load_state_dict(groups["critics"])
        load_optimizer_tensors(self.actor_optimizer, groups["actor_optimizer"])
        load_optimizer_tensors(self.critic_optimizer, groups["critic_optimizer"])
        self.moments.copy_(groups["moments"]["mean,variance,weight"])
        for i, generator in enumerate([*self._generators, self._order_generator]):
            generator.set_state(groups["random"][str(i)])


@torch.no_grad()
def _assign_task(stacked: nn.Module, single: nn.Module, k: int, tasks: int) -> None:
    for ours, theirs in zip(stacked.parameters(), single.parameters(), strict=True):
        ours.view(tasks, -1, *ours.shape[1:])[k].copy_(theirs.view(-1, *ours.shape[1:]))


def policy_step(
    actors: Actors, model: WorldModel, first: FirstLayers, z: Tensor, seen: Tensor, noise: Tensor
) -> tuple[Tensor, Imagined]:
    """Act on what is seen of z, usually z itself: the action, and what follows."""
    action = actors(seen, noise)
    return action, imagine_step(model, first, z, action)


def lowest_value(critics: Critics, states: Tensor) -> Tensor:
    """(K, n), what the most pessimistic critic of each task's ensemble says: (K, n, latent)."""
    return critics(states).amin(1)


def critic_error(critics: Critics, states: Tensor, targets: Tensor) -> Tensor:
    """(K,) mean squared errors in units of the critics' scale: (K, n, latent), (K, n)."""
    error = critics(states) - targets.unsqueeze(1)
    return (error / critics.scale).square().mean((1, 2))


def clip_by_task(grads: Sequence[Tensor], limit: float, tasks: int) -> tuple[list[Tensor], Tensor]:
    """Clip gradients in place for each task apart; a task with a non-finite one gets zeros.

    Returns:
        The gradients, and (tasks,) norms before clipping.
    """
    flat = [grad.reshape(tasks, -1) for grad in grads]
    parts = [torch.linalg.vector_norm(part, dim=1) for part in flat]
    norm = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    factor = (limit / norm.clamp(min=1e-6)).clamp(max=1.0).unsqueeze(1)
    broken = ~norm.isfinite().unsqueeze(1)
    for part in flat:
        part.mul_(factor).masked_fill_(broken, 0.0)
    return [part.view_as(grad) for part, grad in zip(flat, grads, strict=True)], norm
