from __future__ import annotations

import numpy as np
import pytest

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, get_task
from pwm.simulation.behaviors import make_behaviour
from pwm.simulation.simulator_mpc import SimulatorMPCConfig, SimulatorPlanner


def steps(env, actions: np.ndarray) -> list[np.ndarray]:
    return [np.append(obs, reward) for obs, reward, *_ in map(env.step, actions)]


DOMAINS = {task.name.split("-")[0]: task.name for task in SUITES["mt30"]}


@pytest.mark.parametrize("name", DOMAINS.values())
def test_looking_ahead_tells_the_return_and_leaves_the_episode_as_it_was(name):
    task = get_task(name)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (30, task.action_dim)).astype(np.float32)
    plans = rng.uniform(-1, 1, (3, 12, task.action_dim)).astype(np.float32)
    plans[1] = actions[10:22]
    asked, left_alone = make_env(name), make_env(name)
    for env in (asked, left_alone):
        env.reset(seed=5)
        steps(env, actions[:10])
    returns = asked.lookahead(plans)
    after, undisturbed = steps(asked, actions[10:]), steps(left_alone, actions[10:])
    np.testing.assert_array_equal(after, undisturbed)
    np.testing.assert_allclose(returns[1], np.sum(after[:12], 0)[-1], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(asked.reset()[0], left_alone.reset()[0])


class Hill:
    """Rewards actions near one that is far from zero."""

    seconds_per_step = 0.05

    def lookahead(self, plans: np.ndarray) -> np.ndarray:
        return -np.square(plans - 0.7).sum((1, 2))


class Plain:
    """Rewards nothing."""

    seconds_per_step = 0.05

    def lookahead(self, plans: np.ndarray) -> np.ndarray:
        return np.zeros(len(plans))


def test_plans_move_to_what_is_rewarded_and_stay_where_nothing_is():
    task = get_task("reacher-easy")
    planner = SimulatorPlanner(Hill(), task)
    planner.reset(np.random.default_rng(0))
    actions = np.array([planner.act() for _ in range(60)])
    assert np.abs(actions).max() <= 1
    assert np.abs(actions[-10:] - 0.7).mean() < 0.25 < np.abs(actions[:2] - 0.7).mean()
    planner = SimulatorPlanner(Plain(), task)
    planner.reset(np.random.default_rng(0))
    assert not np.array([planner.act() for _ in range(7)]).any()


def test_a_plan_reaches_as_far_as_its_seconds_within_bounds():
    asked = []

    class Slow(Plain):
        seconds_per_step = 0.1

        def lookahead(self, plans: np.ndarray) -> np.ndarray:
            asked.append(plans.shape)
            return super().lookahead(plans)

    for seconds in (0.5, 2.0, 90.0):
        size = SimulatorMPCConfig(samples=6, seconds=seconds, least=8, most=30)
        planner = SimulatorPlanner(Slow(), get_task("reacher-easy"), size)
        planner.reset(np.random.default_rng(0))
        planner.act()
    assert asked == [(6, 8, 2), (6, 20, 2), (6, 30, 2)]


@pytest.mark.slow
def test_it_does_what_noise_does_not_and_follows_from_the_seed():
    task = get_task("reacher-easy")

    def rewards_of(name: str, seed: int, steps: int) -> list[float]:
        env = make_env(task)
        behaviour = make_behaviour(name, task, env=env)
        behaviour.reset(np.random.default_rng(seed))
        obs, _ = env.reset(seed=seed)
        rewards = []
        for _ in range(steps):
            obs, reward, *_ = env.step(behaviour.act(obs))
            rewards.append(reward)
        return rewards

    planned = rewards_of("mpc", 1, 30)
    assert np.mean(planned[-15:]) > 1.0, "after half a second; 2 at most"
    assert np.mean([rewards_of("ou", seed, 70)[-30:] for seed in range(4)]) < 0.5
    assert rewards_of("mpc", 1, 4) == planned[:4]


def test_tasks_whose_simulator_cannot_be_asked_are_refused():
    with pytest.raises(PwmError, match=r"'mw-push' is not of dm_control"):
        make_behaviour("mpc", get_task("mw-push"), env=Plain())
    with pytest.raises(PwmError, match="needs the environment"):
        make_behaviour("mpc", get_task("cup-catch"))
