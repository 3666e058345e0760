"""What an action changes: in copies of the simulator, and as a world model imagines it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import action_effects
import numpy as np
import pytest
from deployable import observation_policy

from pwm.cli.main import main as pwm
from pwm.core.suites import get_suite
from pwm.envs import make_env
from pwm.evaluation.predictions import Predictor
from pwm.models.actor_critic import ActorCriticSize, Critics, TaskCritic, load_critic
from pwm.models.policy import load_policy
from pwm.models.world_model import load_world_model

TASK = "reacher-easy"


@pytest.fixture(scope="module")
def extracted(toy, toy_world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("extracted") / "policies"
    words = toy.extract(toy_world_model, out, f"tasks=[{TASK}]", "learner.reward_units=real")
    assert pwm(words) == 0
    return out / TASK


def test_unchanged_actions_return_what_the_episode_does():
    (task,) = get_suite(["cartpole-balance"])
    policy = observation_policy(replace(task, episode_length=50))
    critic = TaskCritic(Critics(1, 5, ActorCriticSize([], [4]), 1.0), "real", 0.9)
    found = action_effects.places(policy, episodes=1, states=3, seed=5)
    env, rewards, passed = make_env(policy.task), [], []
    obs = env.reset(seed=5)[0]
    for _ in range(policy.task.episode_length):
        passed.append(obs)
        obs, reward, *_ = env.step(policy.act(obs))
        rewards.append(reward)
    numbers = [
        next(i for i, seen in enumerate(passed) if np.array_equal(seen, place.obs))
        for place in found
    ]
    assert max(numbers) < action_effects.SHARE * policy.task.episode_length
    steps = round((1 - action_effects.SHARE) * policy.task.episode_length)
    weights = critic.discount ** np.arange(steps)
    wanted = [np.dot(weights, rewards[first : first + steps]) for first in numbers]
    for _ in range(2):  # the places are as they were
        given = action_effects.true_return(found, policy, critic, 0.0)
        np.testing.assert_allclose(given, wanted, rtol=1e-5)
    assert not np.allclose(action_effects.true_return(found, policy, critic, 0.5), wanted)


class Ending:
    """Gives a reward of 1 a step, and ends by itself after as many as it is given."""

    def __init__(self, obs_dim: int, steps: int) -> None:
        self.obs, self.left = np.zeros(obs_dim, np.float32), steps

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.left > 0, "a step after the end"
        self.left -= 1
        return self.obs, 1.0, self.left == 0, False, {}


def test_returns_stop_where_an_episode_ends_by_itself():
    (task,) = get_suite(["cartpole-balance"])
    policy = observation_policy(replace(task, episode_length=10))
    critic = TaskCritic(Critics(1, 5, ActorCriticSize([], [4]), 1.0), "real", 1.0)
    action = np.zeros(task.action_dim, np.float32)
    found = [
        action_effects.Place(Ending(task.obs_dim, steps), np.zeros(5), action, action + 1)
        for steps in (3, 1, 100)
    ]
    assert action_effects.true_return(found, policy, critic, 0.1).tolist() == [3, 1, 6]
    assert action_effects.true_return(found[:2], policy, critic, 0.1).tolist() == [3, 1]


@pytest.mark.parametrize("horizon", [1, 3])
def test_unchanged_actions_are_predicted_as_a_policy_is_watched(
    horizon, toy_world_model, extracted
):
    policy, critic = load_policy(extracted), load_critic(extracted)
    model = load_world_model(toy_world_model)
    found = action_effects.places(policy, episodes=1, states=3, seed=5)
    predict = Predictor(model, policy, critic, horizon)

    def predicted(places):
        return action_effects.predicted_return(places, policy, model, critic, 0.0, horizon)

    given = np.concatenate([predicted([place]) for place in found])
    np.testing.assert_allclose(predicted(found), given, atol=1e-6)  # rounding differs by batch
    weights = critic.discount ** np.arange(horizon + 1)
    for place, total in zip(found, given, strict=True):
        imagined = predict(place.obs)
        terms = np.append(imagined.rewards, imagined.values[-1])
        assert total == pytest.approx(np.dot(weights, terms), rel=1e-4)


def test_agreement_is_of_order_signs_sizes_and_gains():
    predicted, true = np.array([1.0, 2.0, -1.0, 3.0]), np.array([0.1, 0.2, 0.3, 0.4])
    rank, signs, imagined_rms, true_rms, won = action_effects.agreement(predicted, true)
    assert (rank, signs, won) == pytest.approx((0.4, 0.75, 0.4))
    assert (imagined_rms, true_rms) == pytest.approx((np.sqrt(3.75), np.sqrt(0.075)))
    rank, *_, won = action_effects.agreement(predicted, np.zeros(4))
    assert np.isnan([rank, won]).all()


def test_the_table_has_a_row_for_each_horizon(toy_world_model, extracted, capsys):
    words = ["--checkpoint", str(toy_world_model), "--horizons", "1", "4", "--episodes", "1"]
    action_effects.main([str(extracted), *words, "--states", "4"])
    heads, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[2].strip() for row in rows] == ["1", "4"]
    assert heads.count("|") == rows[0].count("|") == 8
    with pytest.raises(SystemExit, match="nowhere"):
        action_effects.main(["nowhere"])
