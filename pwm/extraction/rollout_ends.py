"""Where imagined rollouts end, and what the states are worth that they end in."""

from __future__ import annotations

import torch
from torch import Tensor

from pwm.extraction.config import ActorCriticConfig
from pwm.extraction.imagination import Act, ImaginedRollout
from pwm.extraction.losses import pessimistic_value
from pwm.extraction.q_functions import QFunctions
from pwm.models.actor_critic import Critics
from pwm.models.math import survival


class RolloutEnds:
    """Ends K tasks' rollouts with a value: after H steps, or where they leave the data.

    Args:
        critics: value states, if there are no Q functions.
        q: values them at the actors' mode, or by its state values if it has some.
        config: see :class:`ActorCriticConfig`.
        action_mask: (K, action_dim), of the actors.

    Attributes:
        limit: (K,), the models' disagreement on a step above which a rollout ends before it;
            infinite until it is set, and None where rollouts are never cut.
    """

    def __init__(
        self,
        critics: Critics,
        q: QFunctions | None,
        config: ActorCriticConfig,
        action_mask: Tensor,
    ) -> None:
        self._critics, self._q, self._config, self._mask = critics, q, config, action_mask
        self.limit: Tensor | None = None
        if config.ensemble.truncate_above is not None:
            self.limit = torch.full_like(action_mask[:, 0], torch.inf)

    @torch.no_grad()
    def set_limit(self, disagreement: Tensor) -> None:
        """Cut rollouts by what models disagree, (K, n), over recorded states and actions."""
        factor = self._config.ensemble.truncate_above
        assert self.limit is not None and factor is not None
        self.limit.copy_(factor * disagreement.mean(1))

    def end(self, act: Act, imagined: ImaginedRollout) -> tuple[ImaginedRollout, Tensor]:
        """The rollouts, cut where that is asked for, and the values (K, B) of their last states.

        Both are differentiable down to the actions, and to the modes if there are some.
        """
        latents = imagined.latents[-1:] if self.limit is None else imagined.latents
        values, modes = self._values(act, latents)
        imagined = imagined._replace(modes=modes)
        if self.limit is not None:
            price = self._config.ensemble.uncertainty_coef
            imagined = truncated(imagined, values[:-1], self.limit, price)
        return imagined, values[-1]

    def _values(self, act: Act, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n, K, B) of states (n, K, B, latent), and the modes (K, n B, action_dim) taken there."""
        states, modes = latents.transpose(0, 1).flatten(1, 2), None
        if self._q is None:
            values = pessimistic_value(self._critics, states)
        elif self._q.state is not None:
            values = self._q.state_value(states)
        else:
            seen = states.detach() if self._config.detach_actor_input else states
            modes = act(seen, states.new_zeros(*states.shape[:2], self._mask.shape[1]))
            values = self._q.value(states, modes)
        return values.unflatten(1, (len(latents), -1)).transpose(0, 1), modes


def truncated(
    imagined: ImaginedRollout, values: Tensor, limit: Tensor, price: float
) -> ImaginedRollout:
    """Rollouts that end before the first step on which the models disagree more than allowed.

    In its place they gain the value of the state before it, less the price of the disagreement.
    This is a step whose reward is that and which ends the episode for sure, so returns and targets
    need to know of nothing else.

    Args:
        imagined: rollouts with ``disagreement``.
        values: (H, K, B) of the states before each step.
        limit: (K,), the largest disagreement of a step that is taken.
        price: of a unit of disagreement.
    """
    disagreement = imagined.disagreement
    assert disagreement is not None
    leaves = disagreement > limit.unsqueeze(1)
    rewards = torch.where(leaves, values - price * disagreement, imagined.rewards)
    taken = (~leaves).to(rewards.dtype)
    goes_on = taken if imagined.continuation is None else imagined.continuation * taken
    within = survival(taken)[1:]
    return imagined._replace(rewards=rewards, continuation=goes_on, within=within)
