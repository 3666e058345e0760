"""What critics' values shall be: of imagined states and of recorded ones."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pwm.extraction.imagination import ImaginedRollout, by_task
from pwm.extraction.inputs import Transitions
from pwm.extraction.losses import bellman_target, mean_of_counted, pessimistic_value
from pwm.models.actor_critic import Critics
from pwm.models.math import td_lambda


class ValueTargets(NamedTuple):
    """States of K tasks and what their values shall be."""

    latent: Tensor  # (K, n, latent)
    value: Tensor  # (K, n)
    counts: Tensor | None = None  # (K, n), 1 for states that are learned from and 0 for others

    def part(self, which: Tensor) -> ValueTargets:
        """Those of some of the n states, by their numbers."""
        counts = None if self.counts is None else self.counts[:, which]
        return ValueTargets(self.latent[:, which], self.value[:, which], counts)

    def mean(self) -> Tensor:
        """(K,) mean values of the states that are learned from."""
        value, counts = self.value, self.counts
        return value.mean(1) if counts is None else mean_of_counted(value, counts)


def lambda_returns(
    critics: Critics, imagined: ImaginedRollout, discount: float, lam: float
) -> ValueTargets:
    """TD(lambda) targets of the H B imagined states from which steps were taken."""
    values = pessimistic_value(critics, by_task(imagined.latents[1:]))
    values = values.unflatten(1, (len(imagined.rewards), -1)).transpose(0, 1)
    targets = td_lambda(imagined.rewards, values, discount, lam, imagined.continuation)
    return ValueTargets(by_task(imagined.latents[:-1]), by_task(targets), imagined.counts)


def n_step_returns(critics: Critics, transitions: Transitions) -> ValueTargets:
    """Targets of recorded transitions' states."""
    next_value = pessimistic_value(critics, transitions.next_latent)
    return ValueTargets(transitions.latent, bellman_target(transitions, next_value))
