"""Stable-Baselines3 sees episodes' ends as the simulators tell them, and learns by iterations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pwm.core.errors import PwmError
from pwm.locomotion.baseline_config import PpoConfig, SacConfig
from pwm.locomotion.baselines import make_ppo, make_sac
from pwm.locomotion.toys import BallWall, Pendulum
from pwm.locomotion.vec_env import SimulationVecEnv


def test_an_end_by_the_clock_is_told_from_one_by_itself():
    pendulum = Pendulum(2)
    env = SimulationVecEnv(pendulum, seed=0)
    first = env.reset()
    for _ in range(99):
        _, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
        assert not dones.any()
        assert infos == [{}, {}]
    observation, _, dones, infos = env.step(np.zeros((2, 1), np.float32))
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is True
    assert not np.array_equal(infos[1]["terminal_observation"], observation[1])
    assert np.array_equal(env.reset(), first)

    _, reward, dones, infos = SimulationVecEnv(BallWall(1), seed=0).step(
        np.zeros((1, 1), np.float32)
    )
    assert dones.all()
    assert infos[0]["TimeLimit.truncated"] is False
    assert reward[0] == pytest.approx(1.019368)


@pytest.mark.parametrize("method", ["ppo", "sac"])
def test_a_baseline_learns_by_iterations(method, tmp_path):
    if method == "ppo":
        config = PpoConfig(num_envs=4, horizon=8, batch_size=16, net_arch=[8])
        learner = make_ppo(Pendulum(4), config, 64, seed=0)
    else:
        sac = SacConfig(num_envs=4, first_steps=8, updates=1, batch_size=8, net_arch=[8])
        learner = make_sac(Pendulum(4), sac, 64, seed=0)
    seen = torch.ones(3, 3)
    before = learner.act(seen)
    assert before.shape == (3, 1)
    assert learner.steps == 0
    metrics = learner.iteration()
    assert learner.steps == {"ppo": 32, "sac": 64}[method]
    assert metrics
    assert not torch.equal(learner.act(seen), before)
    learner.save(tmp_path)
    assert (tmp_path / "model.zip").is_file()


def test_ppo_begins_with_the_deviation_that_is_asked_for():
    config = PpoConfig(num_envs=4, horizon=8, batch_size=16, net_arch=[8], initial_std=0.3)
    policy = make_ppo(Pendulum(4), config, 64, seed=0).model.policy
    distribution = policy.get_distribution(torch.ones(3, 3)).distribution
    assert distribution.stddev.tolist() == [[pytest.approx(0.3)]] * 3
    with pytest.raises(PwmError, match="initial_std=0"):
        PpoConfig(initial_std=0.0).validate()
