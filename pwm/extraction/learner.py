"""Policy learning for K tasks at once by first-order gradients through a frozen world model.

PWM (ICLR 2025), section 4 and Algorithm 1. Every task's numbers come from its own random streams
and its own gradient norm, so a task's result does not depend on which tasks run beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pwm.core.suites import Task
from pwm.extraction.behavior_prior import BehaviorPrior
from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.imagination import (
    Act,
    Imagination,
    ImaginedRollout,
    act_without_weights,
    by_task,
)
from pwm.extraction.inputs import (
    Demonstrations,
    Inputs,
    Noise,
    QInputs,
    Transitions,
)
from pwm.extraction.losses import (
    actor_loss,
    bc_loss,
    bootstrapped_return,
    critic_loss,
)
from pwm.extraction.q_functions import QFunctions
from pwm.extraction.rollout_ends import RolloutEnds
from pwm.extraction.stacked_networks import assign_task, clipped_step
from pwm.extraction.value_targets import ValueTargets, lambda_returns, n_step_returns
from pwm.models.actor_critic import (
    Actors,
    Critics,
    TaskCritic,
    action_masks,
)
from pwm.models.math import running_moments
from pwm.models.world_model import WorldModel
from pwm.runtime.acceleration import Accelerator, Metrics
from pwm.runtime.checkpoint import Checkpoint
from pwm.runtime.seeding import restore, stream, stream_seed
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors


class ActorCriticLearner:
    """K actors and critic ensembles, their optimizers and their random streams.

    Args:
        model: the world model, frozen.
        tasks: the K tasks, all of the model's suite.
        config: see :class:`ActorCriticConfig`.
        seed: together with a task's name it fixes that task's networks and random numbers.
        accelerator: how the arithmetic runs; eagerly, in the model's precision, by default.
        ensemble: further frozen world models of the same suite, see :class:`Imagination`.
    """

    def __init__(
        self,
        model: WorldModel,
        tasks: Sequence[Task],
        config: ActorCriticConfig,
        seed: int,
        accelerator: Accelerator | None = None,
        ensemble: Sequence[WorldModel] = (),
    ) -> None:
        config.validate()
        self.model, self.tasks, self.config, self._seed = model, list(tasks), config, seed
        self.accelerator = accelerator or Accelerator(model.bins.device)
        self._captured_iteration = self.accelerator.capture(self._iteration)
        self._captured_bc_update = self.accelerator.capture(self._bc_update)
        self._captured_q_update = self.accelerator.capture(self._q_update)
        device, latent = model.bins.device, model.size.latent_dim
        self.task_ids = torch.tensor([model.suite.id(t.name) for t in tasks], device=device)
        self.imagination = Imagination(model, self.task_ids, config, ensemble)
        masks = action_masks(self.tasks, model.suite.action_dim).to(device)
        self.actors = Actors(latent, masks, config.networks).to(device)
        self.critics = Critics(len(tasks), latent, config.networks, config.value_scale).to(device)
        self.q: QFunctions | None = None
        if config.q.members:
            action_dim = model.suite.action_dim
            self.q = QFunctions(len(tasks), latent, action_dim, config, self.accelerator)
        self.ends = RolloutEnds(self.critics, self.q, config, masks)
        self._generators = [stream(seed, task.name, device) for task in tasks]
        self._order_generator = stream(seed, "order", device)
        self._initialize(seed)
        betas = (config.optim.betas[0], config.optim.betas[1])
        self.actor_optimizer = self.accelerator.adam(
            self.actors.parameters(), lr=config.optim.actor_lr, betas=betas
        )
        self.critic_optimizer = self.accelerator.adam(
            self.critics.parameters(), lr=config.optim.critic_lr, betas=betas
        )
        self.bc_weight = torch.zeros((), device=device)
        self.prior = BehaviorPrior(self.actors, config.prior) if config.prior.weight else None
        self.return_moments = torch.zeros(3, len(tasks), device=device)  # mean, variance, weight

    def _initialize(self, seed: int) -> None:
        """Give each task the weights that it would get alone."""
        for k, task in enumerate(self.tasks):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(stream_seed(seed, task.name + "/weights"))
                single = action_masks([task], self.model.suite.action_dim)
                latent = self.model.size.latent_dim
                actor = Actors(latent, single, self.config.networks)
                critic = Critics(1, latent, self.config.networks, 1.0)
                if self.q is not None:
                    self.q.init_task(k)
            self.init_weights_from(k, actor, critic)
        if self.q is not None:
            self.q.begin()

    def init_weights_from(self, index: int, actor: Actors, critics: Critics) -> None:
        """Give one task the weights of an actor and critics of the same sizes."""
        assign_task(self.actors, actor, index, len(self.tasks))
        assign_task(self.critics, critics, index, len(self.tasks))

    def sample(self, pool: int, rows: int | None = None) -> Tensor:
        """(K, rows) row numbers below ``pool``, batch_size of them if it is not said."""
        size = (self.config.batch_size if rows is None else rows,)
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
            for _ in range(config.critic.iterations)
        ]
        return Noise(torch.stack(action, 1), torch.stack(order))

    def q_noise(self, steps: int) -> Tensor:
        """(steps, K, B, action_dim) of the next updates of the Q functions."""
        shape = steps, self.config.q.batch_size, self.model.suite.action_dim
        noise = [torch.randn(shape, generator=g, device=g.device) for g in self._generators]
        return torch.stack(noise, 1)

    def imagine(
        self, start: Tensor, noise: Tensor, ensemble_start_latents: Sequence[Tensor] = ()
    ) -> ImaginedRollout:
        """Roll the actors out in the world model: see :meth:`Imagination.roll_out`."""
        return self.imagination.roll_out(self.actors, start, noise, ensemble_start_latents)

    def actor_objective(self, inputs: Inputs) -> tuple[Tensor, ImaginedRollout, Metrics]:
        """The actor's loss, plus what it pays for leaving demonstrations and prior.

        Returns:
            (K,) losses, the rollouts, and (K,) metrics. The running moments take this batch in.
        """
        loss, imagined, metrics = self._imagined_loss(self.actors, inputs)
        price, of_price = self._price_of_leaving(imagined, inputs.demonstrations)
        return loss + price, imagined, metrics | of_price

    def _imagined_loss(self, act: Act, inputs: Inputs) -> tuple[Tensor, ImaginedRollout, Metrics]:
        """The part of the actor's loss that is of imagined rollouts."""
        imagined = self.imagination.roll_out(
            act, inputs.start, inputs.noise.action, inputs.ensemble_start_latents
        )
        goes_on = imagined.continuation
        imagined, last_value = self.ends.end(act, imagined)
        returns = bootstrapped_return(
            imagined.rewards, last_value, self.config.discount, imagined.continuation
        )
        scale = self._update_return_scale(returns.detach())
        metrics = {"imagined_return": returns.detach().mean(1), "return_scale": scale}
        if goes_on is not None:
            metrics["imagined_survival"] = goes_on.detach().prod(0).mean(1)
        if imagined.within is not None:
            metrics["truncated_rollouts"] = 1 - imagined.within[-1].mean(1)
        return actor_loss(returns, scale), imagined, metrics

    def _price_of_leaving(
        self, imagined: ImaginedRollout, demonstrations: Demonstrations | None
    ) -> tuple[Tensor, Metrics]:
        """(K,) weighted distances from recorded actions and from the prior's, and their metrics."""
        price, metrics = torch.zeros(len(self.tasks), device=self.task_ids.device), {}
        if demonstrations is not None:
            cloning = bc_loss(self.actors, demonstrations)
            price = price + self.bc_weight * cloning
            metrics["bc_loss"] = cloning.detach()
        if self.prior is not None:
            states = imagined.acted_in
            distance = self.prior.distance(self.actors(states), states)
            price = price + self.prior.weight * distance
            metrics |= {"prior_distance": distance.detach(), "prior_weight": self.prior.weight}
        return price, metrics

    def _actor_gradients(self, inputs: Inputs) -> tuple[list[Tensor], ImaginedRollout, Metrics]:
        """The gradients of :meth:`actor_objective`, in two parts: of the actions, then of weights.

        The loss depends on the weights through the actions alone. So its gradient along a rollout
        is taken down to them, and the actors' own is one product over the states of all steps in
        place of a sum of one for each step.
        """
        with self.accelerator.arithmetic():
            loss, imagined, metrics = self._imagined_loss(act_without_weights(self.actors), inputs)
        taken, modes = imagined.actions, imagined.modes
        gradients = torch.autograd.grad(loss.sum(), taken if modes is None else (*taken, modes))
        of_actions = by_task(torch.stack(gradients[: len(taken)]))
        states, noise = by_task(imagined.latents[:-1]), by_task(inputs.noise.action)
        if modes is not None:
            valued = imagined.latents[-(modes.shape[1] // inputs.start.shape[1]) :]
            states = torch.cat([states, by_task(valued)], 1)
            noise = torch.cat([noise, noise.new_zeros(modes.shape)], 1)
            of_actions = torch.cat([of_actions, gradients[-1]], 1)
        with self.accelerator.arithmetic():
            total = (self.actors(states, noise) * of_actions).sum()
            price, of_price = self._price_of_leaving(imagined, inputs.demonstrations)
            total, metrics = total + price.sum(), metrics | of_price
        # Cloning alone does not reach log_std.
        parameters = list(self.actors.parameters())
        grads = torch.autograd.grad(total, parameters, materialize_grads=True)
        return list(grads), imagined, metrics

    def _update_return_scale(self, returns: Tensor) -> Tensor:
        """(K,) running standard deviations, after taking in returns (K, B)."""
        mean, var, weight = self.return_moments.unbind()
        moments = running_moments(mean, var, weight, returns, self.config.return_decay)
        self.return_moments.copy_(torch.stack(moments))
        return moments[1].sqrt().clamp(min=1e-2)

    def bc_update(self, demonstrations: Demonstrations) -> Metrics:
        """One actor step for all K tasks that only clones; (K,) metrics as of :meth:`iteration`."""
        return self._captured_bc_update(demonstrations)

    def _bc_update(self, demonstrations: Demonstrations) -> Metrics:
        with self.accelerator.arithmetic():
            loss = bc_loss(self.actors, demonstrations)
        # Cloning alone does not reach log_std.
        parameters = list(self.actors.parameters())
        grads = torch.autograd.grad(loss.sum(), parameters, materialize_grads=True)
        return {"bc_loss": loss.detach(), "actor_grad_norm": self._update_actors(grads)}

    def q_update(self, inputs: QInputs) -> Metrics:
        """Steps of the Q functions alone for all K tasks; (K,) metrics as of :meth:`iteration`."""
        return self._captured_q_update(inputs)

    def _q_update(self, inputs: QInputs) -> Metrics:
        assert self.q is not None
        return self.q.update(self.actors, inputs)

    def begin_iterations(self, spread: Tensor | None = None) -> None:
        """What is done once before the first iteration: the prior is the actors as they are.

        Args:
            spread: (K,), see :meth:`BehaviorPrior.renew`.
        """
        if self.prior is not None:
            self.prior.renew(self.actors, spread)

    def iteration(self, inputs: Inputs) -> Metrics:
        """One actor step and the critics' steps for all K tasks (PWM, Algorithm 1).

        Returns:
            (K,) metrics on the device, good until the next call.
        """
        return self._captured_iteration(inputs)

    def _iteration(self, inputs: Inputs) -> Metrics:
        of_q = {} if inputs.q is None else self._q_update(inputs.q)
        grads, imagined, metrics = self._actor_gradients(inputs)
        if self.prior is not None:
            self.prior.set_weight(metrics["prior_distance"])
        norm = self._update_actors(grads)
        last_loss, value = self._update_critics(imagined, inputs.noise.order, inputs.transitions)
        return (
            metrics
            | of_q
            | {
                "actor_grad_norm": norm,
                "critic_loss": last_loss,
                "value": value,
                "policy_std": self.actors.mean_std().detach(),
            }
        )

    def _update_actors(self, grads: Sequence[Tensor]) -> Tensor:
        """(K,) norms of the gradients before clipping."""
        parameters = list(self.actors.parameters())
        limit = self.config.optim.actor_grad_norm
        return clipped_step(self.actor_optimizer, parameters, grads, limit, len(self.tasks))

    def _update_critics(
        self, imagined: ImaginedRollout, order: Tensor, transitions: Transitions | None
    ) -> tuple[Tensor, Tensor]:
        """The last batch's losses and the mean targets, (K,) each."""
        config, limit = self.config.critic, self.config.optim.critic_grad_norm
        with self.accelerator.arithmetic(), torch.no_grad():
            targets = self._critic_targets(imagined)
            recorded = None if transitions is None else n_step_returns(self.critics, transitions)
        parameters = list(self.critics.parameters())
        loss = torch.zeros(len(self.tasks), device=order.device)
        for permutation in order:
            for part in permutation.chunk(config.batches):
                loss = self._critic_objective(targets.part(part), recorded)
                grads = torch.autograd.grad(loss.sum(), parameters)
                clipped_step(self.critic_optimizer, parameters, grads, limit, len(self.tasks))
        return loss.detach(), targets.mean()

    def _critic_objective(self, imagined: ValueTargets, recorded: ValueTargets | None) -> Tensor:
        """(K,) losses of imagined and of recorded states."""
        with self.accelerator.arithmetic():
            loss = critic_loss(self.critics, *imagined)
            if recorded is not None:
                of_recorded = critic_loss(self.critics, *recorded)
                loss = torch.lerp(loss, of_recorded, self.config.critic.real_ratio)
        return loss

    def _critic_targets(self, imagined: ImaginedRollout) -> ValueTargets:
        """Of H B imagined states per task."""
        if self.q is None:
            return lambda_returns(self.critics, imagined, self.config.discount, self.config.lam)
        states = by_task(imagined.latents[:-1])
        return ValueTargets(states, self.q.value_of(self.actors, states), imagined.counts)

    def critic(self, index: int) -> TaskCritic:
        """A copy of one task's critic, to be saved beside its policy."""
        config, critics = self.config, self.critics
        values = Critics(1, self.model.size.latent_dim, config.networks, critics.scale)
        members = config.networks.critics
        own = slice(index * members, (index + 1) * members)
        values.load_state_dict({name: t[own] for name, t in critics.state_dict().items()})
        return TaskCritic(values, config.reward_units, config.discount)

    def set_progress(self, step: int) -> None:
        """Set a step's learning rates and weight of behavior cloning.

        Args:
            step: counts from 0 the updates that only clone, those of Q alone, and the iterations.
        """
        optim, bc, warmup = self.config.optim, self.config.bc, self.config.warmup_steps
        progress, actor_lr = max(0, step - warmup) / self.config.iterations, optim.actor_lr
        if step < bc.warmup_steps:
            progress, actor_lr = step / bc.warmup_steps, bc.lr
        for value, first, last in (
            (self.actor_optimizer.param_groups[0]["lr"], actor_lr, optim.lr_final),
            (self.critic_optimizer.param_groups[0]["lr"], optim.critic_lr, optim.lr_final),
            (self.bc_weight, bc.weight, bc.weight_final),
        ):
            value.fill_(first + (last - first) * progress)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        streams = [*self._generators, self._order_generator]
        further = {} if self.q is None else self.q.tensors()
        if self.prior is not None:
            further["prior"] = self.prior.tensors()
        if self.ends.limit is not None:
            further["ensemble"] = {"limit": self.ends.limit}
        return further | {
            "actors": self.actors.state_dict(),
            "critics": self.critics.state_dict(),
            "actor_optimizer": optimizer_tensors(self.actor_optimizer),
            "critic_optimizer": optimizer_tensors(self.critic_optimizer),
            "moments": {"mean,variance,weight": self.return_moments},
            "random": {str(i): stream.get_state() for i, stream in enumerate(streams)},
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Restore what :meth:`tensors` gave."""
        groups = checkpoint.tensors
        self.actors.load_state_dict(groups["actors"])
        self.critics.load_state_dict(groups["critics"])
        load_optimizer_tensors(self.actor_optimizer, groups["actor_optimizer"])
        load_optimizer_tensors(self.critic_optimizer, groups["critic_optimizer"])
        if self.q is not None:
            self.q.load(groups)
        if self.prior is not None:
            self.prior.load(groups["prior"])
        if self.ends.limit is not None:
            self.ends.limit.copy_(groups["ensemble"]["limit"])
        self.return_moments.copy_(groups["moments"]["mean,variance,weight"])
        step = checkpoint.meta.get("step", 0)
        names = [*(task.name for task in self.tasks), "order"]
        for i, generator in enumerate([*self._generators, self._order_generator]):
            restore(generator, groups["random"][str(i)], self._seed, f"{names[i]}/{step}")
