from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from envs import make_env
from pwm.core.errors import PwmError
from pwm.core.suites import Task, get_task
from pwm.evaluation.agents import ActFunction, UniformActions
from pwm.evaluation.play import play

SEEDS = (3, 4, 9)


class Quiet:
    """A caller that nobody listens to."""

    def __init__(self, answer: ActFunction | None = None) -> None:
        self.parts: list[int] = []
        self.questions: list[Any] = []
        self._answer = answer

    def at(self, part: int) -> None:
        self.parts.append(part)

    def ask(self, question: Any) -> np.ndarray:
        self.questions.append(question)
        assert self._answer is not None
        return self._answer(question[1])


@dataclass(frozen=True)
class Leaning:
    """Actions that follow from the observations."""

    def begin(self, task: Task, seeds: Sequence[int]) -> ActFunction:
        return lambda obs: np.tanh(obs[:, : task.action_dim]).astype(np.float32)


def one_by_one(task: Task, act: ActFunction) -> list[tuple[float, float, float, int, int]]:
    """Return, success at the end and at any time, length and first success, the plain way."""
    found = []
    env = make_env(task)
    for seed in SEEDS:
        obs, _ = env.reset(seed=seed)
        total, successes, over = 0.0, [], False
        while not over:
            obs, reward, terminated, truncated, info = env.step(act(obs[None])[0])
            total += float(reward)
            successes.append(info["success"])
            over = terminated or truncated
        first = next((i for i, success in enumerate(successes, 1) if success), 0)
        found.append((total, successes[-1], max(successes), len(successes), first))
    env.close()
    return found


FALLS = Task(
    "falls", "gymnasium", 4, 1, 50, 1, "InvertedPendulum-v5",
    '{"frame_skip": 1, "reset_noise_scale": 0.1}', 0.0, 50.0,
)  # fmt: skip


@pytest.mark.parametrize(
    "task",
    [replace(get_task("reacher-easy"), episode_length=40), get_task("mw-drawer-close"), FALLS],
    ids=lambda task: task.name,
)
def test_side_by_side_is_as_one_by_one(task: Task) -> None:
    caller = Quiet()
    found = play(caller, Leaning(), task, SEEDS)  # type: ignore[arg-type]
    plain = one_by_one(task, Leaning().begin(task, SEEDS))
    returns, last, some, lengths, first = zip(*plain, strict=True)
    assert found.returns.tolist() == list(returns)
    assert found.success_last.tolist() == list(last)
    assert found.success_any.tolist() == list(some)
    assert found.steps_to_success.tolist() == list(first)
    assert found.steps == sum(lengths)
    assert found.acting_seconds > 0 < found.simulating_seconds
    assert set(caller.parts) == {0, 1, 2}
    if task is FALLS:
        assert len(set(lengths)) > 1
    again = play(caller, Leaning(), task, SEEDS[1:])  # type: ignore[arg-type]
    assert again.returns.tolist() == list(returns[1:])


class Blinks(gymnasium.Env[Any, Any]):
    """It succeeds at step 2, if its seed is even, and at the step that its seed says."""

    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._succeeds = {2 - seed % 2 * 9, seed} if seed is not None else {1}
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        success = self._steps in self._succeeds
        return np.zeros(1, np.float32), 1.0, self._steps == 7, False, {"success": success}


def test_the_first_success_of_each_episode_is_counted_and_none_of_what_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Blinks-v0", Blinks)
    monkeypatch.setitem(gymnasium.registry, "Blinks-v0", spec)
    task = Task("blinks", "gymnasium", 1, 1, 9, 1, "Blinks-v0")
    found = play(Quiet(), Leaning(), task, [4, 5, 7, 9])  # type: ignore[arg-type]
    assert found.steps_to_success.tolist() == [2, 5, 7, 0]
    assert found.success_last.tolist() == [0, 0, 1, 0]
    assert found.success_any.tolist() == [1, 1, 1, 0]


def test_what_is_scored_by_success_must_report_it() -> None:
    task = replace(FALLS, score_min=None, score_max=None)
    with pytest.raises(PwmError, match=r"'falls' is scored by success, and .* reported none"):
        play(Quiet(), Leaning(), task, SEEDS)  # type: ignore[arg-type]


class Cheers(Blinks):
    """Reports a success where there is one, and nothing where there is none."""

    def step(self, action: Any) -> Any:
        *rest, info = super().step(action)
        return *rest, info if info["success"] else {}


@pytest.mark.parametrize(("seeds", "refused"), [([7, 7], False), ([7, 4], True)])
def test_a_success_that_the_last_step_does_not_report_is_not_scored(
    monkeypatch: pytest.MonkeyPatch, seeds: list[int], refused: bool
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Cheers-v0", Cheers)
    monkeypatch.setitem(gymnasium.registry, "Cheers-v0", spec)
    task = Task("cheers", "gymnasium", 1, 1, 9, 1, "Cheers-v0")
    if refused:
        with pytest.raises(PwmError, match="reported none at the end of an episode"):
            play(Quiet(), Leaning(), task, seeds)  # type: ignore[arg-type]
    else:
        found = play(Quiet(), Leaning(), task, seeds)  # type: ignore[arg-type]
        assert found.success_last.tolist() == [1, 1]


def test_what_has_no_method_is_asked_for() -> None:
    task = replace(get_task("mw-drawer-close"), episode_length=8)
    act = Leaning().begin(task, SEEDS)
    caller = Quiet(act)
    asked = play(caller, None, task, SEEDS)  # type: ignore[arg-type]
    told = play(Quiet(), Leaning(), task, SEEDS)  # type: ignore[arg-type]
    np.testing.assert_array_equal(asked.returns, told.returns)
    assert [first for first, _ in caller.questions] == [True] + [False] * 7
    assert {obs.shape for _, obs in caller.questions} == {(3, 39)}


def test_random_actions_follow_from_each_episodes_seed() -> None:
    task, method = get_task("reacher-easy"), UniformActions()
    obs = np.zeros((2, 6), np.float32)
    first, other = method.begin(task, [5, 6]), method.begin(task, [6, 5])
    a, b = first(obs), other(obs)
    assert (a.shape, a.dtype) == ((2, 2), np.float32)
    np.testing.assert_array_equal(a, b[::-1])
    assert not np.array_equal(first(obs), a)
    np.testing.assert_array_equal(method.begin(task, [5, 6])(obs), a)
    many = method.begin(task, range(1000))(np.zeros((1000, 6)))
    assert -1 <= many.min() < -0.95
    assert 0.95 < many.max() <= 1


def test_what_workers_import_has_neither_torch_nor_a_simulator() -> None:
    code = "import sys, pwm.evaluation.play, pwm.core.worker_pool; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "mujoco", "dm_control", "metaworld"} & set(run.stdout.split())
