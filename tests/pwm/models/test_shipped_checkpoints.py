"""What ships under checkpoints/ opens with this version of the code and acts in the simulators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import envs
import pwm
from pwm.core.suites import SUITES

SHIPPED = Path(__file__).parents[3] / "checkpoints" / "quick"


def test_the_world_model_opens_with_the_suite_s_tasks():
    model = pwm.load_world_model(SHIPPED / "world_model")
    assert model.suite.names == SUITES["quick"].names
    task = torch.arange(len(model.suite))
    z = model.encode(torch.zeros(len(task), model.suite.obs_dim), task)
    assert model.reward(z, torch.zeros(len(task), model.suite.action_dim), task).isfinite().all()


@pytest.mark.parametrize("task", SUITES["quick"].names)
def test_a_policy_encodes_as_the_world_model_does(task):
    model = pwm.load_world_model(SHIPPED / "world_model")
    policy = pwm.load_policy(SHIPPED / "policies" / task)
    for name, tensor in model.encoder.state_dict().items():
        torch.testing.assert_close(policy.encoder.state_dict()[name], tensor)


def test_pendulum_swings_up_and_stays():
    policy = pwm.load_policy(SHIPPED / "policies" / "pendulum-swingup")
    env = envs.make_env("pendulum-swingup")
    obs, _ = env.reset(seed=1000)
    rewards = []
    truncated = False
    while not truncated:
        obs, reward, _, truncated, _ = env.step(policy.act(obs))
        rewards.append(reward)
    env.close()
    assert np.mean(rewards[-100:]) > 1.8  # of 2 a decision step
