"""A user's own task: a Gymnasium environment with the face of a suite's task."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from envs.gymnasium_task import check_spaces
from pwm.core.errors import PwmError
from pwm.core.suites import Task
from pwm.evaluation.videos import require_frames
from pwm.simulation.watched_env import require_environments

PENDULUM = Task(
    "gym-pendulum", "gymnasium", 3, 1, 200, 1, "Pendulum-v1", "{}", score_min=-1500.0, score_max=0.0
)
CLIFF = Task("cliff", "gymnasium", 5, 2, 12, 1, "cliff_env:Cliff-v0", '{"fall_at": 6}')

CLIFF_MODULE = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Cliff(gymnasium.Env):
    """Terminates at a step that follows from its seed; a dictionary observation; success."""

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, fall_at, render_mode=None):
        self.fall_at, self.render_mode = fall_at, render_mode
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(
            {"position": box, "goal": box, "age": spaces.Box(0, 100, (), np.float32)}
        )
        self.action_space = spaces.Box(np.float32([0, -4]), np.float32([10, 4]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        self.position = self.np_random.uniform(-1, 1, 2)
        self.fall = self.fall_at + int(self.np_random.integers(0, 3))
        return self.observe(), {}

    def observe(self):
        return {
            "position": self.position,
            "goal": np.array([7.0, 8.0]),
            "age": np.float32(self.age),
        }

    def step(self, action):
        self.age += 1
        self.position = np.asarray(action, np.float64)
        fallen = self.age >= self.fall
        return self.observe(), float(action.sum()), fallen, False, {"is_success": self.age >= 3}

    def render(self):
        return np.full((8, 9, 3), self.age, np.uint8)


class Dials(gymnasium.Env):
    observation_space = spaces.Discrete(4)
    action_space = spaces.Discrete(2)


class Boundless(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Box(-np.inf, np.inf, (1,))


class Clicks(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)


class Odd(Cliff):
    """Goes wrong in the way that it is told."""

    def __init__(self, fault, render_mode=None):
        super().__init__(6, render_mode)
        self.fault = fault
        if fault == "make":
            raise FileNotFoundError("scene.xml")

    def reset(self, *, seed=None, options=None):
        if self.fault == "reset":
            raise KeyError("goal")
        obs, info = super().reset(seed=seed)
        return (obs | {"goal": np.zeros(3)} if self.fault == "obs" else obs), info

    def step(self, action):
        if self.fault == "step":
            raise AttributeError("no torque")
        obs, reward, *rest = super().step(action)
        return obs, {"ones": np.full(1, reward), "two": [reward] * 2}.get(self.fault, reward), *rest

    def render(self):
        if self.fault == "render":
            raise NotImplementedError
        return np.zeros((8, 9, 4), np.float32) if self.fault == "frame" else super().render()


gymnasium.register("Odd-v0", entry_point=Odd)
gymnasium.register("Cliff-v0", entry_point=Cliff, max_episode_steps=3)
gymnasium.register("Dials-v0", entry_point=Dials)
gymnasium.register("Boundless-v0", entry_point=Boundless)
gymnasium.register("Clicks-v0", entry_point=Clicks)
'''


@pytest.fixture
def cliff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    (tmp_path / "cliff_env.py").write_text(CLIFF_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return CLIFF


def test_is_the_bare_environment_with_scaled_actions() -> None:
    env, bare = envs.make_env(PENDULUM), gymnasium.make("Pendulum-v1").unwrapped
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (3,), np.float32)
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
    rng = np.random.default_rng(0)
    for seed in (4, None):
        obs, info = env.reset(seed=seed)
        expected, _ = bare.reset(seed=seed)
        assert info == {"success": 0.0}
        for step in range(1, 201):
            np.testing.assert_array_equal(obs, expected)
            assert obs.dtype == np.float32
            action = rng.uniform(-1.5, 1.5, 1).astype(np.float32)
            obs, reward, terminated, truncated, info = env.step(action)
            expected, bare_reward, *_ = bare.step(2 * np.clip(action, -1, 1))
            assert reward == pytest.approx(bare_reward, rel=1e-6)
            assert not terminated
            assert truncated == (step == 200)
            assert info == {"success": 0.0, "success_known": False}
    with pytest.raises(PwmError, match="call reset"):
        env.step(action)
    env.close()


def test_make_env_seed_starts_the_stream() -> None:
    env, again = envs.make_env(PENDULUM, seed=9), envs.make_env(PENDULUM)
    first, second = env.reset()[0], env.reset()[0]
    np.testing.assert_array_equal(first, again.reset(seed=9)[0])
    np.testing.assert_array_equal(second, again.reset()[0])
    assert not np.array_equal(first, second)


def test_actions_repeat_and_rewards_sum() -> None:
    env = envs.make_env(replace(PENDULUM, action_repeat=3, episode_length=5))
    bare = gymnasium.make("Pendulum-v1").unwrapped
    env.reset(seed=1), bare.reset(seed=1)
    for step in range(1, 6):
        obs, reward, _, truncated, _ = env.step(np.array([0.5], np.float32))
        steps = [bare.step(np.array([1.0], np.float32)) for _ in range(3)]
        np.testing.assert_array_equal(obs, steps[-1][0])
        assert reward == pytest.approx(sum(one[1] for one in steps))
        assert truncated == (step == 5)


def test_dictionaries_flatten_and_termination_passes(cliff: Task) -> None:
    env = envs.make_env(cliff)
    inner = gymnasium.make("cliff_env:Cliff-v0", fall_at=6)
    obs, _ = env.reset(seed=3)
    raw, _ = inner.reset(seed=3)
    np.testing.assert_allclose(obs, spaces.flatten(inner.observation_space, raw), rtol=1e-6)
    successes, ended, steps = [], False, 0
    while not ended:
        obs, reward, ended, truncated, info = env.step(np.array([-1.0, 0.5], np.float32))
        steps += 1
        assert reward == pytest.approx(0 + 2)
        assert not truncated
        assert info["success_known"]
        successes.append(info["success"])
    assert 6 <= steps < 9  # the time limit of 3 that it is registered with does not apply
    assert successes == [0.0, 0.0] + [1.0] * (steps - 2)
    with pytest.raises(PwmError, match="call reset"):
        env.step(np.zeros(2, np.float32))

    # A repeated action ends with the episode.
    env = envs.make_env(replace(cliff, action_repeat=4))
    env.reset(seed=3)
    assert env.step(np.zeros(2, np.float32))[2] is False
    _, reward, terminated, *_ = env.step(np.zeros(2, np.float32))
    assert terminated
    assert reward == pytest.approx(5 * (steps - 4))


def test_renders(cliff: Task) -> None:
    env = envs.make_env(cliff, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    frame = env.render()
    assert frame is not None
    assert frame.shape == (8, 9, 3)
    assert (frame == 1).all()
    assert envs.make_env(cliff).render() is None
    with pytest.raises(PwmError, match="unknown render mode 'human'"):
        envs.make_env(cliff, render_mode="human")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs_dim": 4}, "has 5 entries, and task 'cliff' states obs_dim 4"),
        ({"action_dim": 1}, r"shape \(2,\), and task 'cliff' states action_dim 1"),
        ({"env_id": "NoSuchThing-v0"}, "NoSuchThing-v0, which cannot be made"),
        ({"env_id": "no_such_module:X-v0"}, "install its package"),
        ({"env_kwargs": '{"fall_ta": 6}'}, "fall_ta"),
        ({"env_id": "cliff_env:Dials-v0", "env_kwargs": "{}"}, "continuous observations"),
        ({"env_id": "cliff_env:Clicks-v0", "env_kwargs": "{}", "obs_dim": 2}, "Discrete"),
        (
            {"env_id": "cliff_env:Boundless-v0", "env_kwargs": "{}", "obs_dim": 2, "action_dim": 1},
            "needs bounds",
        ),
    ],
)
def test_what_does_not_fit_is_refused(cliff: Task, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PwmError, match=message):
        envs.make_env(replace(cliff, **change))


def odd(fault: str) -> Task:
    return replace(CLIFF, env_id="cliff_env:Odd-v0", env_kwargs=f'{{"fault": "{fault}"}}')


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("make", r"cannot be made \(FileNotFoundError: scene.xml, cliff_env.py line \d+\)"),
        ("reset", r"failed in reset\(\) \(KeyError: 'goal', cliff_env.py line \d+\)"),
        ("step", r"failed in step\(\) \(AttributeError: no torque, cliff_env.py line \d+\)"),
        ("obs", r"an observation of 6 numbers, and its observation_space has 5"),
        ("two", r"a reward \[2.0, 2.0\] of shape \(2,\); step\(\) must return one number"),
    ],
)
def test_what_an_environment_raises_is_a_sentence(cliff: Task, fault: str, message: str) -> None:
    def play() -> None:
        env = envs.make_env(odd(fault))
        env.reset(seed=0)
        env.step(np.array([-1.0, 0.5], np.float32))

    with pytest.raises(PwmError, match=message):
        play()


def test_a_module_that_raises_when_it_is_imported_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_env.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PwmError, match=r"\(ZeroDivisionError: .*, broken_env.py line 1\)"):
        envs.make_env(replace(CLIFF, env_id="broken_env:Any-v0"))


def test_a_reward_in_an_array_of_one_number_is_that_number(cliff: Task) -> None:
    env = envs.make_env(odd("ones"))
    env.reset(seed=0)
    assert env.step(np.array([-1.0, 0.5], np.float32))[1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("render", r"cannot draw a frame \(NotImplementedError, "), ("frame", r"\(8, 9, 4\)")],
)
def test_frames_that_cannot_be_drawn_are_found_before_any_episode(
    cliff: Task, fault: str, message: str
) -> None:
    require_frames([cliff])
    with pytest.raises(PwmError, match=message):
        require_frames([odd(fault)])


def test_the_environment_tells_the_action_bounds_and_refuses_others(cliff: Task) -> None:
    known = require_environments([cliff])[0]
    assert (known.action_low, known.action_high) == ((0.0, -4.0), (10.0, 4.0))
    assert envs.make_env(known).task.action_high == (10.0, 4.0)
    with pytest.raises(PwmError, match=r"from \[0, -4\] to \[10, 4\] here and is recorded with"):
        envs.make_env(replace(known, action_low=(-1.0, -4.0)))


def test_an_action_in_units_is_warned_of_once() -> None:
    env = envs.make_env(PENDULUM)
    env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(np.ones(1, np.float32))
    with pytest.warns(UserWarning, match=r"'gym-pendulum' lies beyond .*act\(obs, normalized=True"):
        env.step(np.float32([1.5]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.step(np.float32([-2.0]))


def test_terminated_slots_freeze_and_the_others_go_on(cliff: Task) -> None:
    seeds = [0, 1, 2, 3]
    vector = envs.make_vector_env([cliff, "pendulum-swingup"], n=2)
    singles = [envs.make_env(task) for task in vector.slot_tasks]
    obs, _ = vector.reset(seed=seeds)
    for env, seed in zip(singles, seeds, strict=True):
        env.reset(seed=seed)
    lasts: dict[int, Any] = {}
    rng = np.random.default_rng(5)
    for _ in range(11):
        actions = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
        before = obs
        obs, rewards, terminated, truncated, infos = vector.step(actions)
        for slot, env in enumerate(singles):
            if slot in lasts:
                assert rewards[slot] == 0
                assert terminated[slot]
                assert infos["success"][slot] == 1
                np.testing.assert_array_equal(obs[slot], before[slot])
                continue
            one = env.step(actions[slot, : env.task.action_dim])
            np.testing.assert_array_equal(obs[slot, : one[0].size], one[0])
            assert (rewards[slot], terminated[slot], truncated[slot]) == one[1:4]
            if one[2]:
                lasts[slot] = one
    assert set(lasts) == {0, 1}
    vector.reset(options={"reset_mask": np.array([True, False, False, False])})
    _, rewards, terminated, *_ = vector.step(actions)
    assert terminated.tolist() == [False, True, False, False]
    vector.close()


class Reports(gymnasium.Env):
    """Says of step t what it is given for it, counts seconds since 1970, and lasts 3 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, says):
        self.says = says

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.array([1.7e9]), {}

    def step(self, action):
        self.steps += 1
        said = self.says[self.steps - 1]
        info = {} if said is None else {"success": said}
        return np.array([1.7e9 + self.steps]), 0.0, False, self.steps == 3, info


def _last_info(monkeypatch: pytest.MonkeyPatch, says: list[Any]) -> dict[str, Any]:
    spec = gymnasium.envs.registration.EnvSpec("Reports-v0", lambda: Reports(says))
    monkeypatch.setitem(gymnasium.registry, "Reports-v0", spec)
    env = envs.make_env(Task("reports", "gymnasium", 1, 1, 3, 1, "Reports-v0"))
    env.reset(seed=0)
    infos = [env.step(np.zeros(1, np.float32))[4] for _ in says]
    return infos[-1]


@pytest.mark.filterwarnings("ignore:observations of")
@pytest.mark.parametrize(
    ("says", "success", "known"),
    [
        ([None, None, True], 1, True),  # as environments do that report at the end alone
        ([None, True, None], 0, False),
        ([False, True, np.array([False])], 0, True),
        ([0, 1, np.nan], 0, False),
    ],
)
def test_success_is_known_if_the_last_step_says_it(monkeypatch, says, success, known) -> None:
    assert _last_info(monkeypatch, says) == {"success": success, "success_known": known}


@pytest.mark.parametrize("said", ["False", 0.3, -1, [True, False]])
def test_a_success_that_is_no_truth_is_refused(monkeypatch, said: Any) -> None:
    with pytest.raises(PwmError, match="True, False, 0 or 1 was expected"):
        _last_info(monkeypatch, [False, said, False])


def test_observations_that_float32_cannot_tell_apart_are_told(monkeypatch) -> None:
    with pytest.warns(UserWarning, match="entry 0"):
        _last_info(monkeypatch, [False, False, False])


@pytest.mark.parametrize(
    ("space", "match"),
    [
        (spaces.Box(-1, 1, (1, 1)), "its action is one row of numbers"),
        (spaces.Box(-1, 1, ()), "its action is one row of numbers"),
        (spaces.Box(-1, 1, (2,)), "correct action_dim"),
        (spaces.Box(np.float32([1]), np.float32([1])), "entry 0 of its actions has no room"),
    ],
)
def test_an_action_space_that_does_not_fit_says_what_to_do(space, match) -> None:
    task = Task("reports", "gymnasium", 1, 1, 3, 1, "Reports-v0")
    with pytest.raises(PwmError, match=match):
        check_spaces(task, spaces.Box(-1, 1, (1,)), space, "environment Reports-v0")
