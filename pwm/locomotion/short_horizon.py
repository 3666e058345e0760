"""Returns and targets of short rollouts in which episodes end and begin: functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pwm.models.math import td_lambda


class Rollout(NamedTuple):
    """H steps of N environments, time first."""

    states: Tensor  # (H, N, size), what actor and critics saw before each step
    rewards: Tensor  # (H, N)
    next_values: Tensor  # (H, N), of where a step led, before any reset
    terminated: Tensor  # (H, N) bool
    truncated: Tensor  # (H, N) bool


def short_horizon_return(rollout: Rollout, discount: float) -> Tensor:
    """(N,) discounted rewards of the episodes in a rollout, each with the value of where it is cut.

    An episode is cut by the clock or by the rollout's last step, and what ends by itself has no
    value (SHAC, Xu et al., ICLR 2022, eq. 5). The discount begins anew with every episode.
    """
    total = torch.zeros_like(rollout.rewards[0])
    weight = torch.ones_like(total)
    last = len(rollout.rewards) - 1
    for t, (reward, value) in enumerate(zip(rollout.rewards, rollout.next_values, strict=True)):
        total = total + weight * reward
        ends = rollout.terminated[t] | rollout.truncated[t]
        cut = ~rollout.terminated[t] & (rollout.truncated[t] | (t == last))
        total = total + torch.where(cut, weight * discount * value, 0.0)
        weight = torch.where(ends, 1.0, weight * discount)
    return total


@torch.no_grad()
def value_targets(rollout: Rollout, discount: float, lam: float) -> Tensor:
    """(H, N) TD(lambda) targets, which do not reach from one episode into the next."""
    ends = rollout.terminated | rollout.truncated
    beyond = torch.where(rollout.truncated, discount * rollout.next_values, 0.0)
    goes_on = (~ends).to(rollout.rewards.dtype)
    return td_lambda(rollout.rewards + beyond, rollout.next_values, discount, lam, goes_on)
