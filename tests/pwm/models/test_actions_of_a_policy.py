"""What a policy takes from an environment, and the units of what it gives back."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from pwm.core.action_bounds import as_known_by
from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.policy import Policy, load_policy
from pwm.runtime.checkpoint import read_meta

PENDULUM = Task("gym-pendulum", "gymnasium", 3, 1, 200, 1, "Pendulum-v1", "{}", -1500.0, 0.0)
ARM = Task("arm", "gymnasium", 3, 2, 20, 1, "Arm-v0", "{}", -1.0, 0.0, (0.0, -0.4), (10.0, 0.4))
OBS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)


def policy_of(task: Task) -> Policy:
    size = ActorCriticSize(actor=[8], critic=[])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        actors = Actors(3, torch.ones(1, task.action_dim), size)
    return Policy.from_observation_actor(task, torch.zeros(3), 0.1 * torch.ones(3), actors, 0, size)


def test_act_gives_the_environments_units_and_normalized_actions_on_request() -> None:
    policy = policy_of(ARM)
    action, unit = policy.act(OBS), policy.act(OBS, normalized=True)
    assert np.abs(unit).max() <= 1
    np.testing.assert_allclose(action, np.float32([0, -0.4]) + (unit + 1) * [5, 0.4], rtol=1e-5)
    tensor = policy.act(torch.from_numpy(OBS))
    np.testing.assert_array_equal(tensor.numpy(), action)
    wild = policy.act(np.repeat(OBS, 50, 0), noise=9.0, rng=np.random.default_rng(0))
    space = gymnasium.spaces.Box(np.float32([0, -0.4]), np.float32([10, 0.4]))
    assert all(space.contains(one) for one in wild)
    assert {*wild[:, 0]} >= {0.0, 10.0}, "noise is clipped at the bounds"


def test_a_tasks_of_a_suite_is_normalized_either_way() -> None:
    policy = policy_of(Task("reacher-easy", "dmcontrol", 3, 2, 500))
    np.testing.assert_array_equal(policy.act(OBS), policy.act(OBS, normalized=True))


def test_the_bounds_are_in_the_policys_file(tmp_path: Any) -> None:
    policy = policy_of(ARM)
    policy.save(tmp_path / "p")
    np.testing.assert_array_equal(load_policy(tmp_path / "p").act(OBS), policy.act(OBS))
    policy_of(replace(ARM, action_low=None, action_high=None)).save(tmp_path / "q")
    assert "action_low" not in read_meta(tmp_path / "q", "policy")["task"]  # as in files of before


def test_a_policy_that_does_not_know_its_bounds_says_so_until_it_is_told(tmp_path: Any) -> None:
    policy = policy_of(PENDULUM)
    with pytest.warns(UserWarning, match=r"call policy\.set_action_bounds"):
        unit = policy.act(OBS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(policy.act(OBS), unit)  # once is enough
        np.testing.assert_array_equal(policy_of(PENDULUM).act(OBS, normalized=True), unit)
        space = gymnasium.make("Pendulum-v1").action_space
        assert isinstance(space, gymnasium.spaces.Box)
        policy.set_action_bounds(space.low, space.high)
        policy.save(tmp_path / "p")
        for told in (policy, load_policy(tmp_path / "p")):
            np.testing.assert_array_equal(told.act(OBS), 2 * unit)
    with pytest.raises(PwmError, match=r"recorded with \[-2\] to \[2\]"):
        policy.set_action_bounds([-1], [1])
    both = policy_of(PENDULUM), policy_of(PENDULUM)
    both[0].set_action_bounds([-2], [2])
    both[1].set_action_bounds(-2, 2.0)  # one number for all entries
    np.testing.assert_array_equal(both[1].act(OBS), both[0].act(OBS))
    with pytest.raises(PwmError, match="2 lowest and 1 highest values for 1 action"):
        policy_of(PENDULUM).set_action_bounds([-1, -1], [1])


def test_a_task_learns_its_bounds_from_the_data() -> None:
    known = replace(PENDULUM, action_low=(-2.0,), action_high=(2.0,))
    assert as_known_by(PENDULUM, known).action_low == (-2.0,)
    assert as_known_by(known, PENDULUM).action_low == (-2.0,)
    with pytest.raises(PwmError, match="would be another action"):
        as_known_by(known, replace(known, action_high=(3.0,)))


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({"position": OBS[0], "goal": OBS[1]}, "a dictionary of position, goal; flatten it"),
        ((OBS[0], {}), "obs, info = env.reset()"),
        ((OBS, {"success": np.zeros(6)}), "obs, info = env.reset()"),
        (np.float32([0, np.nan, 1]), "has 1 of 3 entries that are NaN or infinite"),
        (torch.tensor([[0, 1.0, 2], [np.inf, -np.inf, 1]]), "has 2 of 6 entries that are NaN"),
        ([[0.0, 1.0, 2.0], [0.0]], "(list) is none"),
        (None, "got an array of shape ()"),
        ("abc", "(str) is none"),
        (np.zeros((0, 4)), "got an array of shape (0, 4)"),
    ],
)
def test_what_is_no_observation_is_refused_in_a_sentence(obs: Any, message: str) -> None:
    with pytest.raises(PwmError, match=re.escape(message)) as caught:
        policy_of(ARM).act(obs)
    assert str(caught.value).count(". ") == 0


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)])
def test_a_batch_of_none_gives_none(shape: tuple[int, ...]) -> None:
    policy = policy_of(ARM)
    assert policy.act(np.zeros(shape)).shape == (*shape[:-1], 2)
    assert policy.act(torch.zeros(shape), noise=0.1).shape == (*shape[:-1], 2)


def test_an_action_that_is_not_finite_is_refused() -> None:
    with pytest.raises(PwmError, match=r"gives NaN for observations of up to 1e\+30"):
        policy_of(ARM).act(np.float32([1e30, -1e30, 0]))


def test_a_directory_of_policies_names_one_of_them(tmp_path: Any) -> None:
    policy_of(ARM).save(tmp_path / "policies" / "arm")
    with pytest.raises(PwmError, match=r"give one of the 1 in it, such as \S*policies/arm"):
        load_policy(tmp_path / "policies")
    with pytest.raises(PwmError, match="there is no such directory"):
        load_policy(tmp_path / "policies" / "amr")
