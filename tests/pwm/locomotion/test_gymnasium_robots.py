"""Gymnasium's robots as batched simulators are those environments, and go on bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco", reason="needs the extra sim")

import gymnasium

from pwm.core.errors import PwmError
from pwm.locomotion.catalog import make_simulation

NAMES = {"mujoco_ant": "Ant-v5", "mujoco_humanoid": "Humanoid-v5"}


def actions(simulation, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = steps, simulation.num_envs, simulation.action_size
    return 2.4 * torch.rand(shape, generator=generator) - 1.2  # some are out of bounds


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_the_environment(name):
    simulation, bare = make_simulation(name, num_envs=2, seed=3), gymnasium.make(NAMES[name])
    given = actions(simulation, 40)
    seed = int(np.random.SeedSequence((3, 1, 0)).generate_state(1)[0])
    obs, _ = bare.reset(seed=seed)
    np.testing.assert_array_equal(simulation.detach()[1], obs.astype(np.float32))
    episodes = 0
    for action in given:
        step = simulation.step(action)
        high = bare.action_space.high
        obs, reward, terminated, *_ = bare.step(high * action[1].clamp(-1, 1).numpy())
        np.testing.assert_allclose(step.final_observation[1], obs, rtol=1e-5, atol=1e-5)
        assert step.reward[1].item() == pytest.approx(reward, rel=1e-4)
        assert bool(step.terminated[1]) == terminated
        if terminated:
            episodes += 1
            seed = int(np.random.SeedSequence((3, 1, episodes)).generate_state(1)[0])
            obs, _ = bare.reset(seed=seed)
            np.testing.assert_array_equal(step.observation[1], obs.astype(np.float32))
    assert simulation.step_seconds == pytest.approx(bare.unwrapped.dt)
    assert not simulation.differentiable
    simulation.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_bit_for_bit_from_a_state(name):
    one, other = (make_simulation(name, num_envs=2, seed=seed) for seed in (0, 7))
    one.episode_length = other.episode_length = 25
    given = actions(one, 60)
    for action in given[:20]:
        one.step(action)
    other.load_state(one.state())
    assert torch.equal(other.detach(), one.detach())
    ends = 0
    for action in given[20:]:
        left, right = one.step(action), other.step(action)
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
        ends += int((left.terminated | left.truncated).sum())
    assert ends > 2
    first = one.reset(seed=5)
    assert torch.equal(first, make_simulation(name, num_envs=2, seed=5).detach())


def test_the_clock_truncates():
    simulation = make_simulation("mujoco_ant", num_envs=1)
    assert simulation.episode_length == 1000
    simulation.episode_length = 3
    still = torch.zeros(1, 8)
    assert [bool(simulation.step(still).truncated) for _ in range(4)] == [False, False, True, False]


def test_without_mujoco_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{name}'", name="mujoco")

    monkeypatch.setattr("pwm.locomotion.catalog.import_module", missing)
    with pytest.raises(PwmError, match=r"needs mujoco.*pwm-worldmodels\[sim\]"):
        make_simulation("mujoco_ant", num_envs=1)
