"""Users' environments whose randomness is elsewhere than in their own generator."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import envs
from envs.seeding import seed_layers
from pwm.core.suites import Task
from pwm.simulation.watched_env import require_environments

MT1 = Task(
    "mt1", "gymnasium", 39, 4, 100, 1, "metaworld:Meta-World/MT1", '{"env_name": "reach-v3"}'
)


class Draws(gymnasium.Env[Any, Any]):
    """Its observation is drawn where ``source`` says, in the constructor and at every reset."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Box(-1, 1, (1,))
    entropy = np.random.default_rng()

    def __init__(self, source: str) -> None:
        self.source = source
        self.made = self.draw()

    def draw(self) -> float:
        match self.source:
            case "global numpy":
                return float(np.random.rand())  # noqa: NPY002
            case "global python":
                return random.random()
            case "old method":
                return float(self.np_random.random())
        return float(self.entropy.random())

    def seed(self, seed: int) -> None:
        if self.source == "old method":
            self.np_random = np.random.default_rng(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.float32([self.draw(), self.made]), {}

    def step(self, action: Any) -> Any:
        return np.float32([self.draw(), self.made]), 0.0, False, False, {}


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch, source: str) -> Task:
    spec = gymnasium.envs.registration.EnvSpec("Draws-v0", Draws)
    monkeypatch.setitem(gymnasium.registry, "Draws-v0", spec)
    return Task("d", "gymnasium", 2, 1, 5, 1, "Draws-v0", f'{{"source": "{source}"}}', 0.0, 1.0)


@pytest.mark.parametrize("source", ["global numpy", "global python", "old method"])
def test_what_can_be_seeded_is(draws: Task, source: str, capfd: Any) -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    state = random.getstate()
    env, other = envs.make_env(draws), envs.make_env(draws)
    first, second = env.reset(seed=1)[0], env.reset(seed=2)[0]
    again = other.reset(seed=1)[0]
    assert first[0] != second[0]
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    assert first[0] == again[0]
    if source != "old method":
        assert first[1] == again[1], "what the constructor drew"
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.rand(2), expected)  # noqa: NPY002
    require_environments([draws])
    assert not capfd.readouterr().err


@pytest.mark.parametrize("source", ["entropy"])
def test_what_ignores_seeds_is_named_once(draws: Task, source: str, capfd: Any) -> None:
    require_environments([draws])
    told = " ".join(capfd.readouterr().err.split())
    assert told.count("Draws-v0 ignores seeds") == 1
    assert "super().reset(seed=seed)" in told


def test_a_method_of_another_form_is_left_alone() -> None:
    class Odd(Draws):
        def seed(self) -> None:  # type: ignore[override]
            raise AssertionError("it takes no seed")

    seed_layers(TimeLimit(Odd("entropy"), 5), 0)


def test_meta_worlds_own_environments_follow_seeds() -> None:
    env = envs.make_env(MT1)
    goals = [env.reset(seed=seed)[0][-3:] for seed in (0, 1, 0)]
    np.testing.assert_array_equal(goals[0], goals[2])
    assert not np.array_equal(goals[0], goals[1])
