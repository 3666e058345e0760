"""Q functions of recorded transitions: values that have seen what the simulator did.

Their least value at the policy's action ends imagined rollouts in the place of a state value that
was learned in imagination alone, as in TD3+BC (Fujimoto and Gu, NeurIPS 2021), of which
rollouts of no steps would be the actor's loss.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.inputs import QInputs, Transitions
from pwm.extraction.losses import bellman_target, critic_loss, pessimistic_value
from pwm.extraction.stacked_networks import clipped_step
from pwm.models.actor_critic import ActorCriticSize, Actors, Critics
from pwm.models.layers import StackedLinear, side_by_side
from pwm.runtime.acceleration import Accelerator
from pwm.runtime.training_checkpoints import load_optimizer_tensors, optimizer_tensors

_NOISE, _MOST_NOISE = 0.1, 0.3  # of the actions that targets value


class QFunctions:
    """K ensembles of Q functions of a state and an action, their slow copies, and their optimizer.

    Args:
        tasks: K.
        inputs: the size of a latent and an action together.
        config: see :class:`ActorCriticConfig`.
        accelerator: how the arithmetic runs.
    """

    def __init__(
        self, tasks: int, inputs: int, config: ActorCriticConfig, accelerator: Accelerator
    ) -> None:
        self._tasks, self._config, self._accelerator = tasks, config, accelerator
        self.online = make_q(tasks, inputs, config).to(accelerator.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        first, second = config.optim.betas
        self.optimizer = accelerator.adam(
            self.online.parameters(), lr=config.q.lr, betas=(first, second)
        )

    @torch.no_grad()
    def begin(self, values: Tensor | None = None) -> None:
        """Let the slow copies begin with the weights that the Q functions have now.

        Args:
            values: (K,), about which the Q functions begin; zero if they are not given. From far
                away it takes them thousands of updates to get there.
        """
        if values is not None:
            output = self.online.value[-1]
            assert isinstance(output, StackedLinear)
            output.bias.view(self._tasks, -1).copy_((values / self.online.scale).unsqueeze(1))
        self.target.load_state_dict(self.online.state_dict())

    def value(self, latent: Tensor, action: Tensor) -> Tensor:
        """(K, n) least values: (K, n, latent), (K, n, action_dim)."""
        return pessimistic_value(self.online, side_by_side(latent, action))

    def update(self, actors: Actors, inputs: QInputs) -> Tensor:
        """Optimizer steps on recorded transitions; (K,) losses of the last.

        The value of the state that a transition leads to is that of the actors' mode there with
        clipped noise (TD3, Fujimoto et al. 2018).
        """
        loss = torch.zeros(self._tasks, device=inputs.noise.device)
        for transitions, noise in _parts(inputs):
            loss = self._step(actors, transitions, noise)
        return loss.detach()

    def _step(self, actors: Actors, transitions: Transitions, noise: Tensor) -> Tensor:
        with self._accelerator.arithmetic():
            with torch.no_grad():
                target = self._target(actors, transitions, noise)
            features = side_by_side(transitions.latent, transitions.action)
            loss = critic_loss(self.online, features, target)
        parameters = list(self.online.parameters())
        grads = torch.autograd.grad(loss.sum(), parameters)
        limit = self._config.optim.critic_grad_norm
        clipped_step(self.optimizer, parameters, grads, limit, self._tasks)
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), parameters, strict=True):
                slow.lerp_(fast, self._config.q.tau)
        return loss

    def _target(self, actors: Actors, transitions: Transitions, noise: Tensor) -> Tensor:
        latent, shift = transitions.next_latent, (_NOISE * noise).clamp(-_MOST_NOISE, _MOST_NOISE)
        action = (actors(latent) + shift).clamp(-1, 1) * actors.action_mask.unsqueeze(1)
        next_value = pessimistic_value(self.target, side_by_side(latent, action))
        return bellman_target(transitions, next_value)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All state as named tensors, for a checkpoint."""
        return {
            "q": self.online.state_dict(),
            "slow_q": self.target.state_dict(),
            "q_optimizer": optimizer_tensors(self.optimizer),
        }

    def load(self, groups: dict[str, dict[str, Tensor]]) -> None:
        """Restore what :meth:`tensors` gave."""
        self.online.load_state_dict(groups["q"])
        self.target.load_state_dict(groups["slow_q"])
        load_optimizer_tensors(self.optimizer, groups["q_optimizer"])


def make_q(tasks: int, inputs: int, config: ActorCriticConfig) -> Critics:
    """Untrained Q functions of K tasks: critics that read an action beside the latent."""
    size = ActorCriticSize(actor=[], critic=config.q.hidden, critics=config.q.members)
    return Critics(tasks, inputs, size, config.value_scale)


def _parts(inputs: QInputs) -> Iterator[tuple[Transitions, Tensor]]:
    """The transitions and noise of each step."""
    steps = len(inputs.noise)
    parts = (part.chunk(steps, 1) for part in inputs.transitions)
    for *transitions, noise in zip(*parts, inputs.noise, strict=True):
        yield Transitions(*transitions), noise
