"""The locomotion environments: gradients, beginnings, ends and repeatability."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

pytest.importorskip("newton", reason="needs the extra locomotion")

import locomotion_gradients
import warp as wp

from pwm.core.errors import PwmError
from pwm.locomotion import force_kernels, rigid_kernels, robots, tasks
from pwm.locomotion.articulated_step import GRAVITY, ArticulatedStep
from pwm.locomotion.catalog import ENTRIES, make_simulation
from pwm.locomotion.muscles import humanoid_muscles
from pwm.locomotion.robots import ANT
from pwm.locomotion.simulation import ArticulatedSimulation
from pwm.locomotion.tree import LinkTree
from pwm.locomotion.vector_env import LocomotionVectorEnv

SIZES = {
    "hopper": (11, 3),
    "ant": (37, 8),
    "anymal": (49, 12),
    "humanoid": (76, 21),
    "humanoid_muscles": (55, 152),
}


@pytest.fixture(scope="module")
def ant() -> ArticulatedSimulation:
    simulation = make_simulation("ant", num_envs=3, seed=4)
    assert isinstance(simulation, ArticulatedSimulation)
    return simulation


def played(simulation: ArticulatedSimulation, steps: int, seed: int = 0) -> torch.Tensor:
    """(steps, N, observation_size) under random actions."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        actions = torch.randn(steps, simulation.num_envs, simulation.action_size, generator=chance)
        return torch.stack([simulation.step(action.clamp(-1, 1)).observation for action in actions])


def test_gradients_of_the_hopper_are_those_of_finite_differences():
    found = locomotion_gradients.compare("hopper", steps=4, seed=0)
    assert found.correlation > 0.999
    assert found.median_error < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("name", SIZES)
def test_gradients_of_an_environment_are_those_of_finite_differences(name, steps):
    found = locomotion_gradients.compare(name, steps=steps, seed=1)
    assert found.correlation > 0.95
    assert found.median_error < 0.1


@pytest.mark.slow
def test_the_table_of_gradients_is_of_the_robots():
    assert list(filter(locomotion_gradients.is_differentiable_robot, ENTRIES)) == list(SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_every_environment_has_its_sizes_and_finite_gradients(name):
    simulation = make_simulation(name, num_envs=2)
    assert (simulation.observation_size, simulation.action_size) == SIZES[name]
    assert simulation.reset(0).shape == (2, SIZES[name][0])
    action = torch.zeros(2, SIZES[name][1], requires_grad=True)
    rewards = torch.stack([simulation.step(action).reward for _ in range(3)])
    rewards.sum().backward()
    assert rewards.shape == (3, 2)
    assert action.grad.isfinite().all() and (action.grad != 0).any(1).all()


def test_a_robot_in_flight_falls_freely_and_keeps_its_spin(ant):
    world = ant._world
    q = ant._rest_q.repeat(3, 1)
    q[:, 2] += 5.0
    qd = torch.zeros(3, world.dofs)
    qd[:, 0] = 6.0
    idle, none = torch.zeros(3, world.dofs), torch.zeros(3, 0)
    with torch.no_grad():
        for _ in range(12):
            q, qd = world(q, qd, idle, none)
    fallen = GRAVITY * 12 * ant.step_seconds
    assert torch.allclose(qd[:, 2], torch.full((3,), -fallen), rtol=1e-4)
    assert torch.allclose(q[:, 0], torch.full((3,), 6.0 * 12 / 60), rtol=1e-4)
    assert qd[:, 3:6].abs().max() < 1e-3


def test_one_seed_gives_the_same_bytes_and_another_others(ant):
    ant.reset(7)
    first = played(ant, 10)
    ant.reset(7)
    assert torch.equal(first, played(ant, 10))
    ant.reset(8)
    assert not torch.equal(first, played(ant, 10))


def test_a_state_continues_bit_by_bit_through_a_reset(ant):
    ant.reset(7)
    played(ant, 5)
    ant._elapsed[1] = ant.episode_length - 3  # ends, and draws a new beginning
    state = ant.state()
    first = played(ant, 8, seed=1)
    ant.load_state(state)
    assert torch.equal(first, played(ant, 8, seed=1))


def test_environments_that_end_begin_again_within_the_step(ant):
    ant.reset(7)
    ant._elapsed[0] = ant.episode_length - 1
    ant._q[1, 2] = 0.1  # fallen
    with torch.no_grad():
        step = ant.step(torch.zeros(3, 8))
    assert step.truncated.tolist() == [True, False, False]
    assert step.terminated.tolist() == [False, True, False]
    assert step.final_observation[1, 0] < tasks.ANT_FALL < step.observation[1, 0]
    assert torch.equal(step.observation[2], step.final_observation[2])
    assert ant._elapsed.tolist() == [0, 0, 1]


def test_a_world_that_blows_up_ends_alone_and_is_counted(ant):
    ant.reset(7)
    before = ant.failures
    action = torch.zeros(3, 8, requires_grad=True)
    ant.step(action)
    ant._qd = ant._qd + torch.tensor([0.0, torch.nan, 0.0])[:, None]
    step = ant.step(action)
    step.reward.sum().backward()
    assert step.terminated.tolist() == [False, True, False]
    assert ant.failures == before + 1
    assert step.final_observation[[0, 2]].isfinite().all() and step.observation.isfinite().all()
    assert action.grad.isfinite().all() and (action.grad[[0, 2]] != 0).any(1).all()


def test_gradients_end_where_they_are_detached_and_at_a_reset(ant):
    ant.reset(7)
    actions = [torch.zeros(3, 8, requires_grad=True) for _ in range(3)]
    ant.step(actions[0])
    ant.detach()
    ant._elapsed[1] = ant.episode_length - 1
    ant.step(actions[1])
    ant.step(actions[2]).reward.sum().backward()
    assert actions[0].grad is None
    assert (actions[1].grad[[0, 2]] != 0).any(1).all() and (actions[1].grad[1] == 0).all()
    assert (actions[2].grad != 0).any(1).all()


def test_gymnasium_sees_arrays_and_what_episodes_ended_with(ant):
    env = LocomotionVectorEnv(ant)
    first, info = env.reset(seed=3)
    assert first.dtype == np.float32 and first in env.observation_space and info == {}
    ant._elapsed[2] = ant.episode_length - 1
    actions = np.zeros((3, 8), dtype=np.float32)
    observation, reward, terminated, truncated, info = env.step(actions)
    assert observation in env.observation_space
    assert (reward.shape, terminated.any(), truncated.tolist()) == ((3,), False, [0, 0, 1])
    assert info["_final_obs"].tolist() == [False, False, True]
    assert info["final_obs"][0] is None and info["final_obs"][2] in env.single_observation_space
    assert not np.array_equal(info["final_obs"][2], observation[2])
    kept = observation.copy()
    env.step(actions)
    assert np.array_equal(kept, observation)
    again, _ = env.reset(seed=3)
    assert np.array_equal(first, again)
    assert env.metadata["autoreset_mode"].value == "SameStep"


def test_the_muscles_are_152_in_mirrored_pairs_off_their_joints():
    single = robots.HUMANOID.build()
    table = humanoid_muscles(single)
    assert len(table.strength) == 152 and (table.strength > 0).all()
    names = [label.split("/")[-1] for label in single.body_label]
    paired = table.origin_point[20:86] * [1, -1, 1], table.origin_point[86:]
    assert np.allclose(*paired, atol=1e-5)
    mirrored = [names[body].replace("right", "left") for body in table.insertion_body[20:86]]
    assert mirrored == [names[body] for body in table.insertion_body[86:]]


def test_a_muscle_pulls_with_its_strength_more_when_stretched_and_never_pushes():
    tree = rigid_kernels.Tree()
    tree.links, tree.kind = 2, wp.array([rigid_kernels.HINGE] * 2, dtype=int, device="cpu")

    def pull(length: float) -> float:
        forces = wp.zeros(2, dtype=wp.spatial_vector, device="cpu")
        places = [wp.transform_identity(), wp.transform((0.0, 0.0, length), wp.quat_identity())]
        first, second = (wp.array([link], dtype=int, device="cpu") for link in (0, 1))
        centre = wp.zeros(1, dtype=wp.vec3, device="cpu")
        wp.launch(
            force_kernels.muscle_pull,
            dim=(1, 1),
            inputs=[
                tree,
                wp.array(places, dtype=wp.transform, device="cpu"),
                wp.array([[0.5]], dtype=float, device="cpu"),
                *(first, centre, second, centre),
                wp.array([100.0], dtype=float, device="cpu"),
                wp.array([0.2], dtype=float, device="cpu"),
                6.0,
                forces,
            ],
            device="cpu",
        )
        ahead, back = forces.numpy()[:, 2]
        assert ahead == -back
        return float(ahead)

    assert [pull(length) for length in (0.2, 0.22, 0.18, 0.1)] == pytest.approx([50, 80, 20, 0])


@pytest.mark.slow
def test_muscles_that_pull_against_each_other_do_not_buckle_joints():
    robot = make_simulation("humanoid_muscles", num_envs=32, seed=0)

    def steps_before_a_fall(action: float) -> float:
        robot.reset(0)
        stands, steps = torch.ones(32, dtype=torch.bool), 0.0
        with torch.no_grad():
            while stands.any():
                steps += float(stands.float().mean())
                stands &= ~robot.step(torch.full((32, 152), action)).terminated
        return steps

    assert steps_before_a_fall(0.0) > 0.9 * steps_before_a_fall(-1.0)


def test_several_hinges_of_a_body_become_links_in_one_branch():
    tree = LinkTree(robots.HUMANOID.build())
    assert (len(tree.links), tree.coordinates, tree.dofs) == (22, 28, 27)
    assert [link.kind for link in tree.links] == [rigid_kernels.FREE] + 21 * [rigid_kernels.HINGE]
    assert sum(link.mass > 0 for link in tree.links) == 13
    outer = tree.outer_links()
    assert outer[0, 26] == 21 and outer[12, 18] == -1 and (outer == outer.T).all()


def test_a_step_does_not_depend_on_how_many_worlds_there_are(ant):
    alone = ArticulatedStep(robots.ANT, 1, "cpu")
    ant.reset(5)
    played(ant, 20)
    control = torch.full((3, alone.dofs), 0.3)
    with torch.no_grad():
        together = ant._world(ant._q, ant._qd, control, torch.zeros(3, 0))
        single = alone(ant._q[1:2], ant._qd[1:2], control[1:2], torch.zeros(1, 0))
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, single, strict=True))


def test_a_simulator_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "newton", None)
    for name in [name for name in sys.modules if name.startswith("pwm.locomotion.")]:
        if name != "pwm.locomotion.catalog":
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PwmError, match=r"ant needs newton.*\[locomotion\]"):
        make_simulation("ant", num_envs=1)


def test_no_copies_and_unknown_names_are_refused():
    with pytest.raises(PwmError, match="num_envs=0"):
        make_simulation("ant", num_envs=0)
    with pytest.raises(PwmError, match="no locomotion environment antt"):
        make_simulation("antt", num_envs=1)


def test_stiffer_ground_has_shorter_steps_and_softer_ground_the_same():
    for factor, substeps in ((9.0, 3 * ANT.substeps), (0.25, ANT.substeps)):
        robot = ANT.on_stiffer_ground(factor)
        assert robot.ground.stiffness == factor * ANT.ground.stiffness
        assert robot.substeps == substeps
    assert ANT.on_stiffer_ground(1.0) == ANT
