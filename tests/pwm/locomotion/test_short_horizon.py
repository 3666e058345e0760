"""Returns and targets of rollouts in which episodes end, by hand."""

from __future__ import annotations

import pytest
import torch

from pwm.locomotion.short_horizon import Rollout, short_horizon_return, value_targets


def rollout(terminated, truncated):
    return Rollout(
        torch.zeros(3, 1, 1),
        torch.tensor([[1.0], [2.0], [4.0]]),
        torch.tensor([[10.0], [20.0], [40.0]]),
        torch.tensor(terminated).view(3, 1),
        torch.tensor(truncated).view(3, 1),
    )


NEVER = [False, False, False]
SECOND = [False, True, False]


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        (NEVER, NEVER, 1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 40),
        (SECOND, NEVER, 1 + 0.5 * 2 + 4 + 0.5 * 40),
        (NEVER, SECOND, 1 + 0.5 * 2 + 0.25 * 20 + 4 + 0.5 * 40),
        ([False, False, True], NEVER, 1 + 0.5 * 2 + 0.25 * 4),
    ],
)
def test_an_episode_is_cut_with_a_value_and_ends_without(terminated, truncated, expected):
    assert float(short_horizon_return(rollout(terminated, truncated), 0.5)) == expected


@pytest.mark.parametrize(
    ("terminated", "truncated", "second"),
    [(SECOND, NEVER, 2.0), (NEVER, SECOND, 2 + 0.5 * 20)],
)
def test_targets_do_not_reach_into_the_next_episode(terminated, truncated, second):
    targets = value_targets(rollout(terminated, truncated), 0.5, 0.8).flatten().tolist()
    assert targets[2] == pytest.approx(4 + 0.5 * 40)
    assert targets[1] == pytest.approx(second)
    assert targets[0] == pytest.approx(1 + 0.5 * (0.2 * 10 + 0.8 * second))
