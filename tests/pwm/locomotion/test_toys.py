"""The environments in plain torch keep the contract of batched simulators."""

from __future__ import annotations

import math

import pytest
import torch

from pwm.core.errors import PwmError
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.toys import BallWall, DoublePendulum, Pendulum

TOYS = ["ball_wall", "pendulum", "double_pendulum"]


@pytest.mark.parametrize("name", TOYS)
def test_a_state_that_is_loaded_goes_on_as_it_did(name):
    simulation = make_simulation(name, num_envs=3, seed=5)
    action = torch.full((3, simulation.action_size), 0.3)
    simulation.step(action)
    saved = simulation.state()
    expected = [simulation.step(action) for _ in range(simulation.episode_length + 2)]
    other = make_simulation(name, num_envs=3, seed=9)
    other.load_state(saved)
    found = [other.step(action) for _ in range(simulation.episode_length + 2)]
    for one, two in zip(expected, found, strict=True):
        assert all(map(torch.equal, one, two))


def test_the_clock_truncates_and_begins_anew_within_the_step():
    simulation = Pendulum(2)
    first = simulation.reset(3)
    for _ in range(99):
        step = simulation.step(torch.zeros(2, 1))
        assert not step.truncated.any()
        assert torch.equal(step.observation, step.final_observation)
    step = simulation.step(torch.zeros(2, 1))
    assert step.truncated.all()
    assert not step.terminated.any()
    assert not torch.equal(step.observation, step.final_observation)
    assert torch.equal(simulation.reset(3), first)


def test_a_ball_flies_as_far_as_mechanics_say():
    ball = BallWall(1)
    for degrees, metres in ((45, 10.19368), (10, 3.48643), (20, 5.0), (80, 3.48643)):
        angle = torch.tensor([math.radians(degrees)])
        assert float(ball.distance(angle)) == pytest.approx(metres, abs=1e-4)


def test_a_double_pendulum_without_friction_and_torque_keeps_its_energy(monkeypatch):
    torch.set_default_dtype(torch.float64)
    pendulum = DoublePendulum(4, seed=1)
    pendulum.step_seconds = 4e-5
    state = pendulum.begin(torch.rand(4, 4) * 2 - 1) + torch.tensor([1.0, -1.0, 2.0, -1.0])

    def energy(state):
        a1, a2, v1, v2 = state.unbind(1)
        kinetic = v1**2 + 0.5 * v2**2 + v1 * v2 * torch.cos(a1 - a2)
        return kinetic + 9.81 * (2 * torch.cos(a1) + torch.cos(a2))

    before = energy(state)
    kept = state.clone()
    for _ in range(50):
        state, _, _ = pendulum.advance(state, torch.zeros(4, 2))
    lost = energy(state) - before
    friction = 0.1 * (kept[:, 2] ** 2 + (kept[:, 3] - kept[:, 2]) * kept[:, 3]) * 50 * 4e-5
    assert torch.allclose(lost, -friction, rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("name", ["pendulum", "double_pendulum"])
def test_gradients_of_actions_are_those_of_finite_differences(name):
    torch.set_default_dtype(torch.float64)
    simulation = make_simulation(name, num_envs=2)
    actions = (torch.rand(6, 2, simulation.action_size) - 0.5).requires_grad_()

    def total(actions):
        simulation.reset(0)
        return sum(simulation.step(action).reward.sum() for action in actions)

    (grad,) = torch.autograd.grad(total(actions), actions)
    direction = torch.randn_like(grad)
    with torch.no_grad():
        ahead, behind = (total(actions + s * 1e-6 * direction) for s in (1, -1))
    assert float((grad * direction).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-5)


def test_after_detach_gradients_end_at_the_present_state():
    simulation = Pendulum(1)
    early = torch.zeros(1, 1, requires_grad=True)
    simulation.step(early)
    simulation.detach()
    assert not simulation.step(torch.zeros(1, 1)).reward.requires_grad


def test_an_unknown_environment_is_refused_with_the_nearest():
    with pytest.raises(PwmError, match="did you mean 'pendulum'"):
        make_simulation("pendulm", num_envs=1)
