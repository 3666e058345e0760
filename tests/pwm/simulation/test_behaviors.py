from __future__ import annotations

import numpy as np
import pytest

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES, Task, get_task
from pwm.simulation.behaviors import (
    AutoregressiveNoise,
    PolicyNoise,
    default_mixture,
    draw_name,
    has_controller,
    make_behaviour,
)
from pwm.simulation.scripted_controllers import make_controller


def rollout(behaviour, env, seed: int, steps: int) -> tuple[np.ndarray, float, float]:
    behaviour.reset(np.random.default_rng(seed))
    obs, _ = env.reset(seed=seed)
    actions, total, success = [], 0.0, 0.0
    for _ in range(steps):
        actions.append(behaviour.act(obs))
        obs, reward, _, _, details = env.step(actions[-1])
        total += reward
        success = max(success, details["success"])
    return np.array(actions), total, success


@pytest.mark.parametrize("name", ["random", "ou", "scripted"])
@pytest.mark.parametrize("task", ["pendulum-swingup", "cartpole-swingup"])
def test_actions_are_valid_and_follow_from_the_seed(name, task):
    task = get_task(task)
    env = make_env(task.name)
    behaviour = make_behaviour(name, task)
    first, _, _ = rollout(behaviour, env, 3, 60)
    assert first.dtype == np.float32
    assert first.shape == (60, task.action_dim)
    assert np.abs(first).max() <= 1
    assert first.std() > 0
    again, _, _ = rollout(make_behaviour(name, task), env, 3, 60)
    np.testing.assert_array_equal(first, again)
    other, _, _ = rollout(behaviour, env, 4, 60)
    assert (first != other).any()
    back, _, _ = rollout(behaviour, env, 3, 60)
    np.testing.assert_array_equal(first, back, err_msg="something outlived the episode")


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_noise_has_the_given_magnitude_and_correlation_from_the_start(correlation):
    noises = [
        AutoregressiveNoise(1, np.random.default_rng(seed), 0.5, correlation)
        for seed in range(3000)
    ]
    values = np.array([[noise.draw()[0] for _ in range(3)] for noise in noises])
    np.testing.assert_allclose(values.std(0), 0.5, atol=0.03)
    assert np.corrcoef(values[:, 0], values[:, 1])[0, 1] == pytest.approx(correlation, abs=0.06)


def test_ou_is_correlated_in_time_and_random_is_not():
    task = get_task("walker-run")
    correlations = {}
    for name in ("ou", "random"):
        behaviour = make_behaviour(name, task)
        behaviour.reset(np.random.default_rng(0))
        x = np.array([behaviour.act(np.zeros(24)) for _ in range(2000)])
        correlations[name] = np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1]
    assert correlations["ou"] > 0.6
    assert abs(correlations["random"]) < 0.05


def test_mixtures():
    shares = {task.name: default_mixture(task) for task in SUITES["mt80"]}
    assert shares["mw-push"] == {"scripted": 0.8, "ou": 0.2}
    for name in ("pendulum-swingup", "pendulum-spin", "cartpole-balance", "cartpole-swingup"):
        assert shares[name] == {"scripted": 0.7, "ou": 0.3}
    assert shares["walker-run"] == {"random": 0.5, "ou": 0.5}
    rng = np.random.default_rng(0)
    names = [draw_name({"scripted": 0.8, "ou": 0.2}, rng) for _ in range(2000)]
    assert names.count("scripted") == pytest.approx(1600, abs=90)


def test_what_is_not_possible_is_refused():
    with pytest.raises(PwmError, match="unknown behaviour 'rnadom'"):
        make_behaviour("rnadom", get_task("walker-run"))
    with pytest.raises(PwmError, match="'walker-run' has no scripted controller"):
        make_behaviour("scripted", get_task("walker-run"))
    assert not has_controller(get_task("walker-run"))
    with pytest.raises(PwmError, match="behaviour 'held' needs the environment"):
        make_behaviour("held", get_task("mw-push"))
    with pytest.raises(PwmError, match="'walker-run' is none"):
        make_behaviour("held", get_task("walker-run"), env=object())
    with pytest.raises(PwmError, match="needs a policy"):
        make_behaviour("policy", get_task("walker-run"))


def test_every_meta_world_task_has_a_scripted_policy():
    for task in SUITES["mt50"]:
        behaviour = make_behaviour("scripted", task)
        behaviour.reset(np.random.default_rng(0))
        action = behaviour.act(np.linspace(-0.1, 0.6, 39, dtype=np.float32))
        assert action.shape == (4,)
        assert np.abs(action).max() <= 1


@pytest.mark.slow
def test_scripted_policies_succeed_and_fail_on_meta_world():
    task = get_task("mw-drawer-close")
    env, behaviour = make_env(task.name), make_behaviour("scripted", task)
    outcomes = [rollout(behaviour, env, seed, 100) for seed in range(10)]
    assert sum(success for _, _, success in outcomes) >= 5
    returns = [total for _, total, _ in outcomes]
    assert max(returns) > 1.5 * min(returns)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mw-coffee-button",
        pytest.param("mw-door-open", marks=pytest.mark.slow),
        pytest.param("mw-plate-slide-side", marks=pytest.mark.slow),
    ],
)
def test_held_keeps_the_success_that_the_script_alone_lets_go_of(name):
    task = get_task(name)
    env = make_env(task.name)
    last = {}
    for behaviour in ("scripted", "held"):
        acting = make_behaviour(behaviour, task, env=env)
        for seed in range(8):
            rng = np.random.default_rng(seed)
            acting.reset(rng)
            obs, _ = env.reset(seed=seed)
            for _ in range(task.episode_length):
                obs, _, _, _, details = env.step(acting.act(obs))
            last[behaviour, seed] = details["success"]
    successes = {b: sum(last[b, seed] for seed in range(8)) for b in ("scripted", "held")}
    assert successes["held"] >= max(5, successes["scripted"] + 3)


def test_held_acts_as_the_script_until_there_is_success_and_then_holds_still():
    task = get_task("mw-drawer-close")
    env = make_env(task.name)
    held = make_behaviour("held", task, env=env)
    rng = next(r for r in map(np.random.default_rng, range(50)) if _noise_free(held, r))
    held.reset(rng)
    obs, _ = env.reset(seed=1)
    script = make_controller(task)
    script.reset(rng)
    seen = set()
    for _ in range(task.episode_length):
        action, scripted = held.act(obs), script.act(obs)
        np.testing.assert_array_equal(action[:3], 0 if env.success else scripted[:3])
        assert action[3] == scripted[3]
        seen.add(env.success)
        obs, _, _, _, details = env.step(action)
        assert details["success"] == env.success
    assert seen == {0.0, 1.0}
    env.reset()
    assert env.success == 0.0


def _noise_free(behaviour, rng: np.random.Generator) -> bool:
    """Whether the episode that a generator begins has no noise; the generator stays as it was."""
    state = rng.bit_generator.state
    behaviour.reset(rng)
    acts = {behaviour.act(np.zeros(39, np.float32)).tobytes() for _ in range(3)}
    rng.bit_generator.state = state
    return len(acts) == 1


def returns_of(task_name: str, name: str, episodes: int) -> np.ndarray:
    task = get_task(task_name)
    env, behaviour = make_env(task_name), make_behaviour(name, task)
    return np.array([rollout(behaviour, env, seed, 500)[1] for seed in range(episodes)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["pendulum-swingup", pytest.param("cartpole-balance", marks=pytest.mark.slow)]
)
def test_the_controllers_give_data_from_bad_to_good(task):
    scripted = returns_of(task, "scripted", 16)
    undirected = returns_of(task, "ou", 4)
    assert scripted.mean() > undirected.mean() + 50
    assert scripted.max() > 600
    assert scripted.min() < 300


@pytest.mark.parametrize(
    ("task", "obs"),
    [
        ("pendulum-swingup", [1.0, 0.05, 0.0]),
        ("cartpole-balance", [0.0, 1.0, 0.05, 0.0, 0.0]),
    ],
)
def test_near_upright_the_controllers_push_against_the_lean(task, obs):
    """A pendulum is pushed back up; a cart moves under the pole, to the side it leans to."""
    left = np.array(obs)
    left[obs.index(0.05)] = -0.05
    pushes = []
    for seed in range(20):
        made = make_controller(get_task(task))
        made.reset(np.random.default_rng(seed))
        pushes.append(made.act(np.array(obs))[0] - made.act(left)[0])
    sign = -1 if task == "pendulum-swingup" else 1
    assert (sign * np.array(pushes) > 0).all()


class StubPolicy:
    def __init__(self, task: Task) -> None:
        self.task = task

    def act(self, obs: np.ndarray, normalized: bool) -> np.ndarray:
        assert normalized
        return np.full(self.task.action_dim, 0.5, np.float32)


def test_a_policy_acts_with_noise(monkeypatch):
    task = get_task("walker-run")
    monkeypatch.setattr("pwm.models.policy.load_policy", lambda path: StubPolicy(task))
    monkeypatch.setattr("pwm.models.flat_policy._modules", lambda policy: [])  # it acts itself
    behaviour = make_behaviour("policy", task, "some/dir")
    behaviour.reset(np.random.default_rng(0))
    np.testing.assert_allclose(behaviour.act(np.zeros(24)), 0.5)
    behaviour = make_behaviour("policy", task, "some/dir", PolicyNoise((0.2,)))
    behaviour.reset(np.random.default_rng(0))
    actions = np.array([behaviour.act(np.zeros(24)) for _ in range(300)])
    assert actions.mean() == pytest.approx(0.5, abs=0.03)
    assert actions.std() == pytest.approx(0.2, abs=0.03)
    noise = PolicyNoise((0.0, 0.2), (0.0, 0.9))
    behaviour = make_behaviour("policy", task, "some/dir", noise)
    drawn = set()
    for seed in range(40):
        behaviour.reset(np.random.default_rng(seed))
        x = np.array([behaviour.act(np.zeros(24)) for _ in range(100)]) - 0.5
        smooth = x.std() > 0.01 and np.corrcoef(x[:-1].ravel(), x[1:].ravel())[0, 1] > 0.5
        drawn.add((bool(x.std() > 0.1), bool(smooth)))
    assert drawn == {(False, False), (True, False), (True, True)}
    with pytest.raises(PwmError, match="is for 'walker-run', with 24 observation and 6 action"):
        make_behaviour("policy", get_task("cup-catch"), "some/dir")


@pytest.mark.parametrize(
    "task", ["reacher-hard", pytest.param("reacher-three-hard", marks=pytest.mark.slow)]
)
def test_scripted_reaching_goes_from_useless_to_good(task):
    returns = returns_of(task, "scripted", 12)
    assert returns.max() > 900 and returns.min() < 450
    assert returns.mean() > 200 > returns_of(task, "ou", 4).mean()
