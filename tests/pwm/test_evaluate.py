from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import envs
from pwm.cli import main
from pwm.dataset import EpisodeStore
from pwm.errors import PwmError
from pwm.evaluate import find_policies, run_episodes
from pwm.methods import Separate, Timed, random_controller
from pwm.scores import Results
from pwm.suites import Task, get_suite, get_task

PENDULUM, REACHER, REACH = (
    get_task(n) for n in ("pendulum-swingup", "reacher-easy", "mw-reach")
)  # fmt: skip


class FakeVectorEnv:
    """What make_vector_env promises, without simulators: task-major slots, frozen when over.

    An episode's observations follow from its seed and step; a reward is the mean action plus a
    hundredth of the seed; success comes at step 10 of every episode and at the last of even seeds.
    """

    made: list[FakeVectorEnv] = []  # noqa: RUF012

    def __init__(self, tasks, n=1, workers=None, seed=None):
        known = [task if isinstance(task, Task) else get_task(task) for task in tasks]
        self.tasks = [task for task in known for _ in range(n)]
        self.num_envs, self.workers = len(self.tasks), workers
        self.obs_dims, self.action_dims, self.lengths = (
            np.array([getattr(task, name) for task in self.tasks])
            for name in ("obs_dim", "action_dim", "episode_length")
        )
        self.obs_dim = self.obs_dims.max()
        self.single_action_space = np.empty(self.action_dims.max())
        self.closed, self.resets, self.actions = False, [], []
        FakeVectorEnv.made.append(self)

    def _obs(self) -> np.ndarray:
        entry = np.arange(self.obs_dim)
        wave = np.sin(np.add.outer(self.seeds + self.steps, entry))
        return np.where(entry < self.obs_dims[:, None], wave, 0).astype(np.float32)

    def reset(self, seed):
        assert len(seed) == self.num_envs
        self.resets.append(list(seed))
        self.seeds, self.steps = np.array(seed), np.zeros(self.num_envs, int)
        self.success = np.zeros(self.num_envs, np.float32)
        return self._obs(), {"success": self.success.copy()}

    def step(self, actions):
        assert actions.shape == (self.num_envs, len(self.single_action_space))
        assert np.abs(actions).max() <= 1
        self.actions.append(actions.copy())
        runs = self.steps < self.lengths  # the rest keeps its observation and success, reward 0
        self.steps += runs
        own = np.arange(actions.shape[1]) < self.action_dims[:, None]
        mean = (actions * own).sum(1) / self.action_dims
        reward = np.where(runs, mean + self.seeds / 100, 0.0)
        over = self.steps == self.lengths
        now = (self.steps == 10) | (over & (self.seeds % 2 == 0))
        self.success = np.where(runs, now, self.success).astype(np.float32)
        done = np.zeros(self.num_envs, bool)
        return self._obs(), reward, done, over, {"success": self.success.copy()}

    def close(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch):
    FakeVectorEnv.made = []
    monkeypatch.setattr(envs, "make_vector_env", FakeVectorEnv)
    return FakeVectorEnv


def constant(value: float, task):
    return lambda obs: np.full((len(obs), task.action_dim), value, np.float32)


TASKS = (PENDULUM, REACHER, REACH)
SEEDS = [1, 2, 4]


def test_returns_and_successes_of_every_method_and_task(fake):
    methods = {
        name: Separate({task.name: constant(value, task) for task in TASKS})
        for name, value in (("half", 0.5), ("zero", 0.0))
    }
    outcomes = run_episodes(methods, TASKS, SEEDS)
    for method, value in (("half", 0.5), ("zero", 0.0)):
        for task in TASKS:
            found = outcomes[method][task.name]
            wanted = [task.episode_length * (value + seed / 100) for seed in SEEDS]
            np.testing.assert_allclose(found.returns, wanted)
            assert found.success_last.tolist() == [0, 1, 1]
            assert found.success_any.tolist() == [1, 1, 1]
    (env,) = fake.made
    assert env.closed
    assert env.resets == [SEEDS * 3] * 2


def test_policies_see_unpadded_observations_of_their_own_episodes(fake):
    seen: dict[str, list[np.ndarray]] = {task.name: [] for task in TASKS}

    def watching(task):
        def act(obs):
            seen[task.name].append(obs.copy())
            return np.zeros((len(obs), task.action_dim), np.float32)

        return act

    run_episodes({"watch": Separate({t.name: watching(t) for t in TASKS})}, TASKS, SEEDS)
    for task in TASKS:
        assert len(seen[task.name]) == task.episode_length  # none after the episode's end
        for step in (0, 7, task.episode_length - 1):
            wanted = np.sin(np.add.outer(np.array(SEEDS) + step, np.arange(task.obs_dim)))
            np.testing.assert_allclose(seen[task.name][step], wanted, rtol=1e-5, atol=1e-6)


def test_actions_are_padded_with_zeros(fake):
    run_episodes({"ones": Separate({t.name: constant(1.0, t) for t in TASKS})}, TASKS, SEEDS)
    (env,) = fake.made
    for i, task in enumerate(env.tasks):
        first = env.actions[0][i]
        assert first[: task.action_dim].tolist() == [1] * task.action_dim
        assert not first[task.action_dim :].any()


def test_waves_bound_the_environments_and_change_no_result(fake):
    def outcome(**options):
        method = Separate({t.name: random_controller(t, SEEDS) for t in TASKS})
        return run_episodes({"random": method}, TASKS, SEEDS, **options)["random"]

    whole = outcome()
    fake.made.clear()
    waves = outcome(max_envs=4, workers=2)
    assert [env.num_envs for env in fake.made] == [3, 3, 3]
    assert all(env.closed and env.workers == 2 for env in fake.made)
    for task in TASKS:
        np.testing.assert_array_equal(waves[task.name].returns, whole[task.name].returns)


def test_environments_are_closed_when_a_policy_fails(fake):
    def broken(obs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_episodes({"x": Separate({PENDULUM.name: broken})}, [PENDULUM], SEEDS)
    assert fake.made[0].closed


def test_random_actions_follow_from_each_episodes_seed():
    obs = np.zeros((2, 6), np.float32)
    first, other = random_controller(REACHER, [5, 6]), random_controller(REACHER, [6, 5])
    a, b = first(obs), other(obs)
    assert a.shape == (2, 2)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a[0], b[1])
    np.testing.assert_array_equal(a[1], b[0])
    assert not np.array_equal(first(obs), a)
    many = random_controller(REACHER, range(1000))(np.zeros((1000, 6)))
    assert -1 <= many.min() < -0.95
    assert 0.95 < many.max() <= 1


def test_decisions_are_timed():
    timed = Timed(Separate({PENDULUM.name: constant(0.0, PENDULUM)}))
    assert timed.milliseconds == 0
    timed.act({PENDULUM.name: np.zeros((5, 3))})
    assert timed.decisions == 5
    assert timed.milliseconds > 0


# --- the command, on policies of the toy tasks ---------------------------------------------------


@pytest.fixture(scope="module")
def policies(toy, toy_world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "policies"
    assert main(toy.extract(toy_world_model, out, "learner.iterations=2")) == 0
    return out


def words(policies: Path, out: Path, *more: str) -> list[str]:
    return ["evaluate", f"policy={policies}", f"out={out}", "episodes=3", "seed=4", *more]


def test_results_follow_the_schema(fake, toy, policies, tmp_path, capsys):
    data = [f"data={toy.data}", "baselines=[random,bc,bc_best,data_mean,data_best]"]
    assert main(words(policies, tmp_path, *data, "cloning.updates=5")) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["episodes"] == 3
    assert results["seeds"] == [4, 5, 6]
    # Named in the benchmark's order, whatever the order of directories.
    assert list(results["tasks"]) == ["reacher-easy", "pendulum-swingup"]
    assert list(results["baselines"]) == ["random", "bc", "bc_best", "data_mean", "data_best"]
    scores = [task["normalized_score"] for task in results["tasks"].values()]
    assert results["mean_normalized_score"] == pytest.approx(np.mean(scores))
    for name, task in results["tasks"].items():
        policy = find_policies(policies)[name]
        assert len(task["returns"]) == 3
        assert task["return"] == pytest.approx(np.mean(task["returns"]))
        assert task["normalized_score"] == pytest.approx(task["return"] / 10)
        env = FakeVectorEnv([name], 3)
        obs, _ = env.reset([4, 5, 6])
        total = np.zeros(3)
        for _ in range(policy.task.episode_length):
            obs, reward, *_ = env.step(policy.act(obs))
            total += reward
        np.testing.assert_allclose(task["returns"], total, rtol=1e-5)
    store = EpisodeStore.open(toy.data)
    for name in toy.tasks:
        returns = store.episodes(name)["return"]
        mean = results["baselines"]["data_mean"]["tasks"][name]
        best = results["baselines"]["data_best"]["tasks"][name]
        assert mean["return"] == pytest.approx(returns.mean())
        assert best["return"] == pytest.approx(returns.max())
        assert mean["return_ci95"] is None
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["task"]) for row in rows} == {
        (method, task)
        for method in ("extracted", *results["baselines"])
        for task in results["tasks"]
    }
    shown = capsys.readouterr().out
    assert "pendulum-swingup" in shown
    assert "mean" in shown


def test_the_same_command_gives_the_same_results(fake, toy, policies, tmp_path):
    more = [f"data={toy.data}", "baselines=[random,bc]", "cloning.updates=5"]
    for name in "ab":
        assert main(words(policies, tmp_path / name, *more)) == 0
    a, b = (json.loads((tmp_path / n / "results.json").read_text()) for n in "ab")
    assert a == b
    assert main(words(policies, tmp_path / "a", "episodes=2")) == 0  # a directory may be used again
    assert Results.load(tmp_path / "a" / "results.json").episodes == 2


def test_one_policy_and_chosen_tasks(fake, policies, tmp_path):
    assert main(words(policies / "pendulum-swingup", tmp_path / "one")) == 0
    assert Results.load(tmp_path / "one" / "results.json").task_names == ("pendulum-swingup",)
    assert main(words(policies, tmp_path / "chosen", "tasks=[reacher-easy]")) == 0
    assert Results.load(tmp_path / "chosen" / "results.json").task_names == ("reacher-easy",)


def test_data_without_a_task_are_refused_before_any_episode(fake, toy, policies, tmp_path, capsys):
    with EpisodeStore.create(tmp_path / "other", get_suite("walker-run")):
        pass
    more = [f"data={tmp_path / 'other'}", "baselines=[data_mean]"]
    assert main(words(policies, tmp_path / "out", *more)) == 1
    assert "reacher-easy" in capsys.readouterr().err
    assert not fake.made


def test_missing_policies_are_named(policies, tmp_path):
    with pytest.raises(
        PwmError, match="no policy for walker-run; it has pendulum-swingup, reacher"
    ):
        find_policies(policies, ["walker-run"])
    with pytest.raises(PwmError, match="holds no policy"):
        find_policies(tmp_path)
    with pytest.raises(PwmError, match="holds no policy"):
        find_policies(tmp_path / "nothing")


def test_videos_without_the_library_say_what_to_install(
    fake, policies, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(words(policies, tmp_path, "video=1")) == 1
    assert "pip install 'pwm[video]'" in capsys.readouterr().err
    assert (tmp_path / "results.json").is_file()  # the scores are not lost
