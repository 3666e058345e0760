from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pwm.core.errors import PwmError
from pwm.core.suites import get_task
from pwm.models.actor_critic import ActorCriticSize, Actors, action_masks
from pwm.models.flat_policy import FlatPolicy
from pwm.models.policy import Policy, load_policy

SHIPPED = Path(__file__).parents[3] / "checkpoints"


def cloned() -> Policy:
    """Without an encoder, and its observations padded."""
    tasks = [get_task("pendulum-swingup"), get_task("mw-reach")]
    size = ActorCriticSize(actor=[32, 16], critic=[])
    torch.manual_seed(0)
    actors = Actors(39, action_masks(tasks, 4), size)
    mean, scale = torch.randn(39), torch.rand(39) + 0.5
    return Policy.from_observation_actor(tasks[0], mean, scale, actors, 0, size)


@pytest.mark.parametrize(
    "policy",
    [
        "quick/policies/mw-reach",
        "quick/policies/pendulum-swingup",
        "mt80/policies/cheetah-run",  # which wraps an angle
        cloned,
    ],
    ids=["quick", "padded", "wrapped", "cloned"],
)
def test_actions_are_those_of_the_policy_bit_for_bit(policy, monkeypatch):
    policy = policy() if callable(policy) else load_policy(SHIPPED / policy)
    flat = FlatPolicy(policy)
    rng = np.random.default_rng(0)
    for batch in ((), (1,), (5,), (7,)):
        obs = rng.normal(0, 4, (3, *batch, policy.task.obs_dim)).astype(np.float32)
        wanted = [policy.act(each, normalized=True) for each in obs]
        assert np.array_equal(flat(obs[0]), wanted[0])
        with monkeypatch.context() as patch:  # after the first, the policy itself is not asked
            patch.setattr(policy, "act", None)
            for each, action in zip(obs, wanted, strict=True):
                found = flat(each)
                assert found.dtype == np.float32
                assert np.array_equal(found, action)


def test_where_a_bit_differs_the_policy_acts_itself(monkeypatch):
    policy = cloned()
    flat = FlatPolicy(policy)
    monkeypatch.setattr(flat, "_flat", lambda obs: policy.act(obs, normalized=True) + 1e-7)
    obs = np.ones((5, 3), np.float32)
    for _ in range(2):
        assert np.array_equal(flat(obs), policy.act(obs, normalized=True))


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_as_by_the_policy(fault):
    flat = FlatPolicy(load_policy(SHIPPED / "quick/policies/mw-reach"))
    obs = np.zeros((5, 39), np.float32)
    flat(obs)
    obs[3, 2] = fault
    with pytest.raises(PwmError, match="1 of 195 entries that are NaN or infinite"):
        flat(obs)
