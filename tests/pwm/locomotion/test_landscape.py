"""Gradients through simulator and world model, against finite differences."""

from __future__ import annotations

import json

import pytest
import torch

from pwm.core.errors import PwmError
from pwm.core.suites import Suite
from pwm.extraction.config import ActorCriticConfig, CriticConfig
from pwm.locomotion.catalog import make_simulation
from pwm.locomotion.gradient_study import (
    ModelWorld,
    Sampled,
    SimulatorWorld,
    compared,
    finite_differences,
    first_order,
    ruggedness,
    steepest,
)
from pwm.locomotion.landscape import LandscapeConfig, landscape
from pwm.locomotion.learner import task_of
from pwm.locomotion.online import OnlineConfig, OnlinePwm
from pwm.locomotion.policy_space import PolicySpace
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.world_model import ModelSize, WorldModel

SMALL = {"samples": 32, "many": 64, "directions": 2, "points": 5, "device": "cpu"}


def space_of(inputs, actions):
    torch.manual_seed(0)
    return PolicySpace(Actors(inputs, torch.ones(1, actions), ActorCriticSize([8], [])))


def worlds(kind):
    """A world, a policy in it, and noise for five steps."""
    torch.manual_seed(3)
    simulation = make_simulation("double_pendulum", num_envs=4)
    if kind == "simulator":
        world, space = SimulatorWorld(simulation, lambda seen: seen), space_of(6, 2)
    else:
        task = task_of(simulation)
        size = ModelSize(8, 1, 8, 16, 0)
        model = WorldModel(size, Suite("one", (task,)), episodic=True)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        world = ModelWorld(model.requires_grad_(False), simulation)
        space = space_of(16, 2)
    return world, space, torch.randn(5, 4, 2)


@pytest.mark.parametrize("kind", ["simulator", "model"])
def test_first_order_derivatives_are_those_of_finite_differences(kind):
    torch.set_default_dtype(torch.float64)
    world, space, noise = worlds(kind)
    features = world.roll_out(space.at(), noise, 1).features.flatten(0, 1)
    generator = torch.Generator().manual_seed(2)
    directions = [space.random(generator, features) for _ in range(2)]
    arguments = world, space, directions, [1, 5], noise, 1
    exact, differences = first_order(*arguments), finite_differences(*arguments, distance=1e-5)
    assert exact.values.shape == (2, 2, 4)
    assert torch.allclose(exact.values, differences.values, rtol=1e-5, atol=1e-7)
    assert exact.values[1].abs().max() > 1e-4


def test_a_return_rises_along_the_steepest_direction():
    torch.set_default_dtype(torch.float64)
    world, space, noise = worlds("simulator")
    direction = steepest(world, space, 5, noise, 1)
    with torch.no_grad():
        behind, ahead = (
            world.roll_out(space.at(direction, d), noise, 1).returns[-1].mean()
            for d in (-0.01, 0.01)
        )
    assert ahead > behind


def test_bias_and_variance_of_known_derivatives():
    truth = Sampled(torch.tensor([[[1.0, 3.0], [-2.0, -2.0]]]))
    estimate = Sampled(torch.tensor([[[2.0, 6.0], [-4.0, -4.0]]]))
    found = compared(estimate, truth)
    assert found["bias"] == pytest.approx([1.0])
    assert found["variance"] == pytest.approx([4.0])
    assert found["correlation"] == pytest.approx([1.0])
    assert found["signal"] == pytest.approx([4.0])


def test_ruggedness_counts_ups_and_downs():
    assert ruggedness([0, 1, 2]) == 1
    assert ruggedness([0, 2, 0]) == 2
    assert ruggedness([0, 2, 0, 2, 0]) == 4


def test_both_toys_are_studied_by_one_command(tmp_path):
    found = {}
    for task in ("ball_wall", "double_pendulum"):
        config = LandscapeConfig(
            task=task, out=str(tmp_path / task), horizons=[1, 4], **SMALL | {"samples": 64}
        )
        picture = landscape(config)
        assert "<svg" in picture.read_text()
        found[task] = json.loads((tmp_path / task / "landscape.json").read_text())
    wall, pendulum = found["ball_wall"], found["double_pendulum"]
    assert wall["horizons"] == [1]
    assert pendulum["horizons"] == [1, 4]
    assert pendulum["gradients"]["simulator"]["correlation"][1] > 0.9
    assert set(pendulum["slices"]["along"]) == {"random", "gradient of the simulator"}
    assert len(pendulum["slices"]["along"]["random"]["returns"]["simulator"]) == 5


@pytest.mark.slow
def test_gradients_are_compared_again_where_contacts_are_stiffer(tmp_path, capsys):
    out = tmp_path / "out"
    given = SMALL | {"samples": 8, "many": 8, "out": str(out)}
    landscape(
        LandscapeConfig(task="hopper", horizons=[1, 2], contact_stiffness=[1.0, 9.0], **given)
    )
    found = json.loads((out / "landscape.json").read_text())
    same, stiffer = found["contact_stiffness"]["1"], found["contact_stiffness"]["9"]
    assert same == {name: found[name] for name in ("size", "gradients", "finite_differences")}
    assert stiffer["gradients"]["simulator"]["correlation"][-1] > 0.9
    assert stiffer["size"] != same["size"]
    assert "gradients over 2 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "stiffness", "said"),
    [("pendulum", 2.0, "pendulum has no contacts"), ("hopper", 0.0, "must be multiples above 0")],
)
def test_stiffness_that_means_nothing_is_refused(task, stiffness, said, tmp_path):
    given = SMALL | {"contact_stiffness": [stiffness], "out": str(tmp_path / "out")}
    with pytest.raises(PwmError, match=said):
        landscape(LandscapeConfig(task=task, **given))


def test_a_world_model_is_studied_beside_its_simulator(tmp_path):
    policy = ActorCriticConfig(
        batch_size=8, networks=ActorCriticSize([8], [8]), critic=CriticConfig(batches=2)
    )
    config = OnlineConfig(
        num_envs=4,
        horizon=4,
        first_steps=16,
        model_updates=1,
        model_batch=8,
        model=ModelSize(8, 1, 8, 16, 0),
        policy=policy,
    )
    pwm = OnlinePwm(make_simulation("ball_wall", num_envs=4), config, 100, 0)
    pwm.iteration()
    pwm.save(tmp_path / "run")
    given = {"checkpoint": str(tmp_path / "run"), "out": str(tmp_path / "out")} | SMALL
    landscape(LandscapeConfig(task="ball_wall", **given))
    found = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert list(found["gradients"]) == ["simulator", "world model"]
    returns = found["slices"]["along"]["gradient of the world model"]["returns"]
    assert list(returns) == ["simulator", "world model"]
    with pytest.raises(PwmError, match="is a run of ball_wall and task=pendulum"):
        landscape(LandscapeConfig(task="pendulum", **given | {"out": str(tmp_path / "other")}))


def test_the_mean_gradient_of_a_throw_misses_the_jump():
    simulation = make_simulation("ball_wall", num_envs=4000)
    world, space = SimulatorWorld(simulation, lambda seen: seen), space_of(1, 1)
    noise = torch.randn(1, 4000, 1, generator=torch.Generator().manual_seed(0))
    features = torch.ones(1, 1)
    directions = [space.random(torch.Generator().manual_seed(1), features)]
    arguments = world, space, directions, [1], noise, 0
    exact = first_order(*arguments)
    differences = finite_differences(*arguments, distance=0.05)
    gap = abs(float(exact.mean - differences.mean))
    assert gap > 5 * float(differences.standard_error + exact.standard_error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizons": []}, "horizons="),
        ({"samples": 1}, "samples=1 must be at least 2"),
        ({"directions": 1}, "directions=1 must be at least 2"),  # a correlation is over directions
        ({"distance": 0.0}, "distance=0.0 must be above 0"),
        ({"task": "ball_wal"}, "did you mean 'ball_wall'"),
        ({"checkpoint": "nowhere"}, "there is no nowhere; check the path"),
        ({"checkpoint": "."}, "checkpoint=. is no run of pwm by `pwm compare`"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message, tmp_path):
    with pytest.raises(PwmError, match=message):
        landscape(LandscapeConfig(**{"task": "ball_wall", "out": str(tmp_path)} | SMALL | changes))
    assert not (tmp_path / "config.yaml").exists()
