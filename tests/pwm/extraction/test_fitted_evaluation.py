"""Fitted evaluations where what a policy gains is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pwm.extraction.fitted_evaluation import FittedEvaluation, Gain, RandomFeatures

STATES, ACTIONS, STEPS = 5, 2, 7


def chain() -> tuple[Tensor, Tensor]:
    """Of each state and action, (10,), the next state and the reward of a random chain."""
    generator = torch.Generator().manual_seed(0)
    following = torch.randint(STATES, (STATES * ACTIONS,), generator=generator)
    return following, torch.rand(STATES * ACTIONS, generator=generator)


def followed(policy: Tensor, gain: Gain, ends: Tensor) -> Tensor:
    """(STATES,) what a policy, (STATES,) actions, gains from each state, step by step."""
    following, reward = chain()
    total = torch.zeros(STATES)
    for start in range(STATES):
        state = start
        for step in range(gain.steps):
            row = state * ACTIONS + int(policy[state])
            if not gain.at_the_end or step == gain.steps - 1:
                total[start] += reward[row]
            if ends[row]:
                break
            state = int(following[row])
    return total


def evaluated(policies: Tensor, gain: Gain, ends: Tensor) -> Tensor:
    """(E, STATES) the same of E policies, fitted to each state and action once."""
    following, reward = chain()
    rows = STATES * ACTIONS
    features = torch.eye(rows).expand(len(policies), -1, -1)
    done = F.one_hot(following * ACTIONS + policies[:, following], rows).float()
    weight = torch.ones(len(policies), rows)
    evaluation = FittedEvaluation(features, weight, reward, gain, ridge=1e-7)
    coefficients = evaluation.coefficients(done * (1 - ends.float()).unsqueeze(-1))
    at = F.one_hot(torch.arange(STATES) * ACTIONS + policies, rows).float()
    return evaluation.value(coefficients, at)


POLICIES = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 1, 0, 1]])
NEVER = torch.zeros(STATES * ACTIONS, dtype=torch.bool)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_returns_of_a_chain(at_the_end: bool) -> None:
    gain = Gain(STEPS, 0.0, 1.0, at_the_end)
    found = evaluated(POLICIES, gain, NEVER)
    for policy, values in zip(POLICIES, found, strict=True):
        torch.testing.assert_close(values, followed(policy, gain, NEVER), rtol=1e-4, atol=1e-4)


def test_nothing_follows_an_end() -> None:
    gain, ends = Gain(STEPS, 0.0, 1.0), NEVER.clone()
    ends[::3] = True
    found = evaluated(POLICIES, gain, ends)
    for policy, values in zip(POLICIES, found, strict=True):
        torch.testing.assert_close(values, followed(policy, gain, ends), rtol=1e-4, atol=1e-4)


def test_several_at_once_are_as_one_at_a_time() -> None:
    gain = Gain(STEPS, 0.0, 1.0)
    alone = [evaluated(POLICIES[i : i + 1], gain, NEVER)[0] for i in range(len(POLICIES))]
    torch.testing.assert_close(evaluated(POLICIES, gain, NEVER), torch.stack(alone))


def test_values_stay_within_what_recorded_rewards_allow() -> None:
    """What a policy does lies far outside of what was done, where a linear fit grows forever."""
    features = torch.ones(1, 4, 1)
    gain = Gain(20, 0.0, 1.0)
    evaluation = FittedEvaluation(features, torch.ones(1, 4), torch.full((4,), 0.5), gain, 1e-7)
    coefficients = evaluation.coefficients(3 * features)
    assert float(coefficients) == pytest.approx(19.5, abs=1e-3)  # 19 steps of the most, and one
    assert float(evaluation.value(coefficients, 3 * features[:, :1])) == 20.0


def test_a_step_counts_by_its_weight() -> None:
    features, reward = torch.ones(2, 3, 1), torch.tensor([0.0, 1.0, 5.0])
    weight = torch.tensor([[1.0, 1.0, 0.0], [1.0, 3.0, 0.0]])
    evaluation = FittedEvaluation(features, weight, reward, Gain(1, 0.0, 5.0), 1e-7)
    found = evaluation.coefficients(torch.zeros_like(features))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.5, 0.75]))


def test_random_features_are_one_draw_a_member() -> None:
    features = RandomFeatures(2, 3, 2, 4, torch.Generator().manual_seed(0))
    state, action = torch.randn(6, 3), torch.rand(6, 2)
    found = features(state, action)
    assert found.shape == (2, 6, 5)
    assert (found[..., -1] == 1).all() and (found >= 0).all()
    assert not torch.equal(found[0], found[1])
    torch.testing.assert_close(features(state[2:3], action[2:3])[:, 0], found[:, 2])
