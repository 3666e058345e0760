"""Where plans end: what proposes actions, and the value of the last state of a plan.

Shapes below: N environments, n candidates for each, A the suite's action size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pwm.core.errors import PwmError
from pwm.models.actor_critic import Actors, Critics, TaskCritic, load_critic
from pwm.models.math import expected_bin, symexp
from pwm.models.policy import Policy
from pwm.models.policy_directory import policy_path
from pwm.models.world_model import WorldModel


class TerminalValue(Protocol):
    """A policy that proposes actions, and the value of where a plan ends.

    Attributes:
        discount: (tasks,) per decision step, by task id.
        reward_units: ``real`` or ``symlog``, the units of the value; rewards are summed in them.
    """

    discount: Tensor
    reward_units: str

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """Actions (N, n, A) sampled at latents (N, n, latent) of tasks (N, 1)."""

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """Values (N, n) of latents; ``noise`` (N, n, A) is for a value that samples an action."""


class TDMPC2Guide:
    """TD-MPC2's own guide: the policy prior and the Q ensemble of a world model.

    The value is the mean over all members, which is what TD-MPC2's mean of two random members
    estimates.

    Raises:
        PwmError: if the world model has neither.
    """

    reward_units = "real"

    def __init__(self, model: WorldModel) -> None:
        if not model.has_q:
            raise PwmError(
                "this world model has no Q ensemble and policy prior, so planning has no value to "
                "end on; pretrain with q_and_prior=true, or give extracted policies and use "
                "planner+actor."
            )
        self.model = model
        discounts = [task.discount for task in model.suite]
        self.discount = torch.tensor(discounts, device=model.bins.device)

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        return self.model.sample_prior(z, task, noise)[0]

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        logits = self.model.q_logits(z, self.propose(z, task, noise), task)
        return symexp(expected_bin(logits, self.model.bins)).mean(0)


class ActorAndCritic:
    """One extracted actor and critic ensemble per task, in the place of the prior and Q.

    Args:
        model: the world model that the policies were extracted from.
        policies: by task name.
        critics: by task name, as extraction saved them beside each policy.

    Raises:
        PwmError: for a policy of another world model, or policies of different settings.
    """

    def __init__(
        self,
        model: WorldModel,
        policies: Mapping[str, Policy],
        critics: Mapping[str, TaskCritic],
    ) -> None:
        for policy in policies.values():
            require_same_encoder(model, policy)
        first = next(iter(policies))
        like = _settings(policies[first], critics[first])
        unlike = [name for name in policies if _settings(policies[name], critics[name]) != like]
        if unlike:
            raise PwmError(
                f"the policies of {first} and {unlike[0]} were extracted with different networks, "
                "discounts or reward units; plan for them in separate evaluations."
            )
        device = model.bins.device
        self._actor, self._critic = policies[first].actor, critics[first].values
        self._actors = _stack([policy.actor for policy in policies.values()], device)
        self._critics = _stack([critics[name].values for name in policies], device)
        self._place = torch.zeros(len(model.suite), dtype=torch.long, device=device)
        for place, name in enumerate(policies):
            self._place[model.suite.id(name)] = place
        self.reward_units = critics[first].reward_units
        self.discount = torch.full((len(model.suite),), critics[first].discount, device=device)

    @classmethod
    def load(
        cls, model: WorldModel, policies: Mapping[str, Policy], directory: Path
    ) -> ActorAndCritic:
        """Policies with the critics that are saved beside them in a directory.

        Raises:
            PwmError: as the constructor does, or for a policy without a critic.
        """
        critics = {name: load_critic(policy_path(directory, name)) for name in policies}
        return cls(model, policies, critics)

    def propose(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`."""
        return self._call(self._actor, self._actors, task, z, noise)

    def value(self, z: Tensor, task: Tensor, noise: Tensor) -> Tensor:
        """See :class:`TerminalValue`: the least of the ensemble's values."""
        return self._call(self._critic, self._critics, task, z).amin(1)

    def _call(
        self, module: nn.Module, stacked: Mapping[str, Tensor], task: Tensor, *inputs: Tensor
    ) -> Tensor:
        place = self._place[task.squeeze(1)]
        weights = {name: tensor[place].flatten(0, 1) for name, tensor in stacked.items()}
        return functional_call(module, weights, inputs)


def _stack(modules: Sequence[Actors | Critics], device: torch.device) -> dict[str, Tensor]:
    """Parameters and buffers of equal modules of one task each: (tasks, 1 or members, ...)."""
    tensors = [dict(module.named_parameters()) | dict(module.named_buffers()) for module in modules]
    return {name: torch.stack([t[name] for t in tensors]).to(device) for name in tensors[0]}


def _settings(policy: Policy, critic: TaskCritic) -> tuple[object, ...]:
    networks = policy.architecture["actor"]
    return networks, critic.reward_units, critic.discount, critic.values.scale


def require_same_encoder(model: WorldModel, policy: Policy) -> None:
    """Raise PwmError for a policy that was not extracted from this world model."""
    read = {} if policy.encoder is None else policy.encoder.state_dict()
    encoder = model.encoder.state_dict()
    same = read.keys() == encoder.keys() and all(
        torch.equal(tensor.cpu(), read[name].cpu()) for name, tensor in encoder.items()
    )
    if not same:
        raise PwmError(
            f"the policy of {policy.task.name} does not read this world model's latents (its "
            "encoder differs); give the world model that it was extracted from as checkpoint=."
        )
