"""Angles that grow without bound are wrapped, in the world model's input and in the policy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs import make_env
from pwm.core.suites import get_suite, get_task
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.angles import angle_periods, wrapped
from pwm.models.policy import Policy
from pwm.models.world_model import ModelSize, WorldModel

TURN = 2 * np.pi
SIZE = ModelSize(16, 1, 16, 16, 4, 2, simnorm_dim=8)


@given(st.floats(-40, 40), st.integers(-5, 5))
def test_whole_turns_do_not_matter_and_other_entries_stay(angle, turns):
    period = np.array([TURN, 0.0])
    both = [wrapped(np.array([x, x]), period) for x in (angle, angle + turns * TURN)]
    assert np.cos(both[0][0] - both[1][0]) == pytest.approx(1.0)
    assert abs(both[0][0]) <= TURN / 2 + 1e-9
    assert both[0][1] == angle


def test_which_entries_are_unbounded_angles():
    suite = get_suite("mt80")
    periods = angle_periods(suite, suite.obs_dim).numpy()
    found = {
        task.name: np.flatnonzero(row).tolist() for task, row in zip(suite, periods, strict=True)
    }
    angles = {name: entries for name, entries in found.items() if entries}
    assert set(angles) == {
        name for name in suite.names if name.startswith(("reacher-", "cheetah-", "hopper-"))
    }
    assert periods[periods > 0] == pytest.approx(TURN)


@pytest.mark.parametrize(
    ("name", "joint"),
    [
        ("reacher-easy", "shoulder"),
        ("reacher-three-hard", "shoulder0"),
        ("cheetah-run", "rooty"),
        ("hopper-hop", "rooty"),
    ],
)
def test_the_entry_is_the_simulator_s_angle(name, joint):
    """Of a joint that turns without a limit, and is observed as it is."""
    task = get_task(name)
    env = make_env(task)
    obs, _ = env.reset(seed=0)
    physics = env.unwrapped._physics
    (entry,) = np.flatnonzero(angle_periods([task], task.obs_dim)[0].numpy())
    assert obs[entry] == pytest.approx(physics.named.data.qpos[joint].item(), abs=1e-6)
    assert not physics.named.model.jnt_limited[joint]


def test_a_model_and_its_policy_see_directions():
    suite = get_suite("reacher-easy,walker-walk")
    model = WorldModel(SIZE, suite, normalize_obs=True)
    task = suite["reacher-easy"]
    ids = torch.zeros(3, dtype=torch.long)
    obs = torch.randn(3, suite.obs_dim)
    turned = obs.clone()
    turned[:, 0] += 3 * TURN
    torch.testing.assert_close(model.encode(obs, ids), model.encode(turned, ids), atol=1e-4, rtol=0)
    assert not torch.allclose(model.encode(obs, ids + 1), model.encode(turned, ids + 1), atol=1e-2)
    actor_size = ActorCriticSize(actor=[8], critic=[8])
    actors = Actors(SIZE.latent_dim, model.action_mask[:1], actor_size)
    policy = Policy.from_latent_actor(model, task, actors, 0, actor_size)
    near = policy.act(obs[:, : task.obs_dim].numpy())
    np.testing.assert_allclose(policy.act(turned[:, : task.obs_dim].numpy()), near, atol=1e-4)


def test_a_model_that_does_not_wrap_goes_on_as_it_was():
    suite = get_suite("reacher-easy")
    plain = WorldModel(SIZE, suite, normalize_obs=True, wrap_angles=False)
    obs = torch.full((1, suite.obs_dim), 4.0)
    inputs = torch.cat([obs, plain.task_embedding(torch.zeros(1, dtype=torch.long))], -1)
    encoded = plain.encode(obs, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(encoded, plain.encoder(inputs))
