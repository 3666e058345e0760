"""Q functions of recorded transitions: values that have seen what the simulator did.

Their least value at the policy's action ends imagined rollouts in the place of a state value that
was learned in imagination alone, as in TD3+BC (Fujimoto and Gu, NeurIPS 2021), of which
rollouts of no steps would be the actor's loss. Or a state value does, an expectile of Q over the
recorded actions, as in IQL (Kostrikov et al., ICLR 2022): it never asks Q for other actions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.inputs import QInputs, Transitions
from pwm.extraction.losses import (
    bellman_target,
    critic_loss,
    expectile_loss,
    pessimistic_value,
)
from pwm.extraction.stacked_networks import assign_task, clipped_step
from pwm.models.actor_critic import ActorCriticSize, Actors, Critics
from pwm.models.layers import StackedLinear, side_by_side
from pwm.runtime.acceleration import Accelerator, Metrics
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors

_NOISE, _MOST_NOISE = 0.1, 0.3  # of the actions that targets value


class QFunctions:
    """K ensembles of Q functions of a state and an action, their slow copies, and their optimizer.

    Args:
        tasks: K.
        latent: the size of a state.
        action_dim: that of an action.
        config: see :class:`ActorCriticConfig`.
        accelerator: how the arithmetic runs.

    Attributes:
        online, target: the Q functions and their slow copies.
        state: K state values, with ``q.expectile``.
    """

    def __init__(
        self,
        tasks: int,
        latent: int,
        action_dim: int,
        config: ActorCriticConfig,
        accelerator: Accelerator,
    ) -> None:
        self._tasks, self._config, self._accelerator = tasks, config, accelerator
        self._latent, self._inputs = latent, latent + action_dim
        self.online = make_q(tasks, self._inputs, config).to(accelerator.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer = self._adam(self.online)
        self.state: Critics | None = None
        if config.q.expectile is not None:
            self.state = make_state_value(tasks, latent, config).to(accelerator.device)
            self._state_optimizer = self._adam(self.state)

    def _adam(self, net: Critics) -> torch.optim.Optimizer:
        first, second = self._config.optim.betas
        return self._accelerator.adam(net.parameters(), lr=self._config.q.lr, betas=(first, second))

    def init_task(self, index: int) -> None:
        """Draw the weights of one task as if it were alone; :meth:`begin` makes them count."""
        assign_task(self.online, make_q(1, self._inputs, self._config), index, self._tasks)
        if self.state is not None:
            alone = make_state_value(1, self._latent, self._config)
            assign_task(self.state, alone, index, self._tasks)

    @torch.no_grad()
    def begin(self, values: Tensor | None = None) -> None:
        """Let the slow copies begin with the weights that the Q functions have now.

        Args:
            values: (K,), about which the Q functions begin; zero if they are not given. From far
                away it takes them thousands of updates to get there.
        """
        for net in (self.online, self.state):
            if values is not None and net is not None:
                output = net.value[-1]
                assert isinstance(output, StackedLinear)
                output.bias.view(self._tasks, -1).copy_((values / net.scale).unsqueeze(1))
        self.target.load_state_dict(self.online.state_dict())

    def value(self, latent: Tensor, action: Tensor) -> Tensor:
        """(K, n) least values: (K, n, latent), (K, n, action_dim)."""
        return pessimistic_value(self.online, side_by_side(latent, action))

    def state_value(self, latent: Tensor) -> Tensor:
        """(K, n) of states (K, n, latent), where state values are learned."""
        assert self.state is not None
        return pessimistic_value(self.state, latent)

    def value_of(self, actors: Actors, latent: Tensor) -> Tensor:
        """(K, n) state values, or least values of the actors' modes, of states (K, n, latent)."""
        if self.state is not None:
            return self.state_value(latent)
        return self.value(latent, actors(latent))

    def update(self, actors: Actors, inputs: QInputs) -> Metrics:
        """Optimizer steps on recorded transitions; (K,) losses of the last.

        The value of the state that a transition leads to is that of the actors' mode there with
        clipped noise (TD3, Fujimoto et al. 2018), or the state value after a step of its own.
        """
        losses: Metrics = {}
        for transitions, noise in _parts(inputs):
            if self.state is not None:
                losses["state_value_loss"] = self._state_step(self.state, transitions)
            losses["q_loss"] = self._step(actors, transitions, noise)
        return losses

    def _state_step(self, state: Critics, transitions: Transitions) -> Tensor:
        expectile = self._config.q.expectile
        assert expectile is not None
        with self._accelerator.arithmetic():
            with torch.no_grad():
                features = side_by_side(transitions.latent, transitions.action)
                target = pessimistic_value(self.target, features)
            loss = expectile_loss(state, transitions.latent, target, expectile)
        self._descend(self._state_optimizer, state, loss)
        return loss.detach()

    def _descend(self, optimizer: torch.optim.Optimizer, net: Critics, loss: Tensor) -> None:
        parameters = list(net.parameters())
        grads = torch.autograd.grad(loss.sum(), parameters)
        limit = self._config.optim.critic_grad_norm
        clipped_step(optimizer, parameters, grads, limit, self._tasks)

    def _step(self, actors: Actors, transitions: Transitions, noise: Tensor) -> Tensor:
        with self._accelerator.arithmetic():
            with torch.no_grad():
                target = self._target(actors, transitions, noise)
            features = side_by_side(transitions.latent, transitions.action)
            loss = critic_loss(self.online, features, target)
        self._descend(self.optimizer, self.online, loss)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.lerp_(fast, self._config.q.tau)
        return loss.detach()

    def _target(self, actors: Actors, transitions: Transitions, noise: Tensor) -> Tensor:
        if self.state is not None:
            return bellman_target(transitions, self.state_value(transitions.next_latent))
        latent, shift = transitions.next_latent, (_NOISE * noise).clamp(-_MOST_NOISE, _MOST_NOISE)
        action = (actors(latent) + shift).clamp(-1, 1) * actors.action_mask.unsqueeze(1)
        next_value = pessimistic_value(self.target, side_by_side(latent, action))
        return bellman_target(transitions, next_value)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        groups = {
            "q": self.online.state_dict(),
            "slow_q": self.target.state_dict(),
            "q_optimizer": optimizer_tensors(self.optimizer),
        }
        if self.state is not None:
            groups["state_value"] = self.state.state_dict()
            groups["state_value_optimizer"] = optimizer_tensors(self._state_optimizer)
        return groups

    def load(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Restore what :meth:`tensors` gave."""
        self.online.load_state_dict(groups["q"])
        self.target.load_state_dict(groups["slow_q"])
        load_optimizer_tensors(self.optimizer, groups["q_optimizer"])
        if self.state is not None:
            self.state.load_state_dict(groups["state_value"])
            load_optimizer_tensors(self._state_optimizer, groups["state_value_optimizer"])


def make_q(tasks: int, inputs: int, config: ActorCriticConfig) -> Critics:
    """Untrained Q functions of K tasks: critics that read an action beside the latent."""
    size = ActorCriticSize(actor=[], critic=config.q.hidden, critics=config.q.members)
    return Critics(tasks, inputs, size, config.value_scale)


def make_state_value(tasks: int, latent: int, config: ActorCriticConfig) -> Critics:
    """Untrained state values of K tasks, one each."""
    size = ActorCriticSize(actor=[], critic=config.q.hidden, critics=1)
    return Critics(tasks, latent, size, config.value_scale)


def _parts(inputs: QInputs) -> Iterator[tuple[Transitions, Tensor]]:
    """The transitions and noise of each step."""
    steps = len(inputs.noise)
    parts = (part.chunk(steps, 1) for part in inputs.transitions)
    for *transitions, noise in zip(*parts, inputs.noise, strict=True):
        yield Transitions(*transitions), noise
