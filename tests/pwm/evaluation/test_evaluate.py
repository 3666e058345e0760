from __future__ import annotations

import csv
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_env import Harm, faulty_task
from forked import forked_command

from envs import make_env
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import Task, get_suite
from pwm.data.store import EpisodeStore
from pwm.evaluation.evaluate import OUTCOMES, EvaluateConfig, evaluate, find_policies
from pwm.evaluation.scores import Results
from pwm.models.actor_critic import ActorCriticSize, Actors
from pwm.models.policy import Policy

BASELINES = ("random", "bc", "bc_best", "data_mean", "data_best")
SEEDS = [4, 5, 6]


@pytest.fixture(scope="module")
def policies(toy, toy_world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "policies"
    assert main(toy.extract(toy_world_model, out, "learner.iterations=2")) == 0
    return out


def words(policies: Path, out: Path, *more: str) -> list[str]:
    return ["evaluate", f"policy={policies}", f"out={out}", "episodes=3", "seed=4", *more]


def with_baselines(toy, policies: Path, out: Path, *more: str) -> list[str]:
    names = f"baselines=[{','.join(BASELINES)}]"
    return words(policies, out, f"data={toy.data}", names, "cloning.updates=5", "batch=2", *more)


@pytest.fixture(scope="module")
def evaluated(toy, policies, tmp_path_factory) -> Path:
    """An undisturbed evaluation by one worker."""
    out = tmp_path_factory.mktemp("evaluated")
    assert main(with_baselines(toy, policies, out, "workers=1")) == 0
    return out


def lockstep(policy: Policy, seeds: list[int]) -> np.ndarray:
    """Returns of episodes side by side, the plain way."""
    envs = [make_env(policy.task) for _ in seeds]
    obs = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    total = np.zeros(len(seeds))
    for _ in range(policy.task.episode_length):
        steps = [env.step(action) for env, action in zip(envs, policy.act(obs), strict=True)]
        obs = np.stack([step[0] for step in steps])
        total += [step[1] for step in steps]
    return total


def test_results_follow_the_schema(toy, policies, evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    assert results["episodes"] == 3
    assert results["seeds"] == SEEDS
    # Named in the benchmark's order, whatever the order of directories.
    assert list(results["tasks"]) == ["reacher-easy", "pendulum-swingup"]
    assert tuple(results["baselines"]) == BASELINES
    scores = [task["normalized_score"] for task in results["tasks"].values()]
    assert results["mean_normalized_score"] == pytest.approx(np.mean(scores))
    for name, task in results["tasks"].items():
        assert len(task["returns"]) == 3
        assert task["return"] == pytest.approx(np.mean(task["returns"]))
        assert task["normalized_score"] == pytest.approx(task["return"] / 10)
        policy = find_policies(policies)[name]
        assert task["returns"] == [*lockstep(policy, SEEDS[:2]), *lockstep(policy, SEEDS[2:])]
    store = EpisodeStore.open(toy.data)
    for name in toy.tasks:
        returns = store.episodes(name)["return"]
        mean = results["baselines"]["data_mean"]["tasks"][name]
        best = results["baselines"]["data_best"]["tasks"][name]
        assert mean["return"] == pytest.approx(returns.mean())
        assert best["return"] == pytest.approx(returns.max())
        assert mean["return_ci95"] is None
    with (evaluated / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["task"]) for row in rows} == {
        (method, task)
        for method in ("extracted", *results["baselines"])
        for task in results["tasks"]
    }
    played = ("extracted", "random", "bc", "bc_best")
    times = json.loads((evaluated / "decision_times.json").read_text())
    assert set(times) == set(played)
    assert min(times.values()) > 0
    rates = json.loads((evaluated / "throughput.json").read_text())
    assert rates["steps"] == len(played) * 2 * 3 * 50
    assert rates["simulator_steps_per_second"] > rates["steps_per_second"] > 0
    assert rates["faults"] == {}


@pytest.mark.slow
def test_many_workers_that_die_and_hang_give_the_same_results(
    toy, policies, evaluated, tmp_path, capsys
):
    more = ("workers=2", "worker_timeout=6", "max_faults=50")
    with Harm([signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL], every=0.5):
        assert main(with_baselines(toy, policies, tmp_path, *more)) == 0
    for name in ("results.json", "results.csv"):
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes()
    faults = json.loads((tmp_path / "throughput.json").read_text())["faults"]
    assert sum(faults.values()) >= 1
    said = capsys.readouterr()
    assert "Workers replaced" in said.err
    assert "pendulum-swingup" in said.out


def test_what_was_played_is_not_played_again(toy, policies, evaluated, capsys):
    before = (evaluated / OUTCOMES).read_bytes()
    results = (evaluated / "results.json").read_bytes()
    clones = {p: p.stat().st_mtime_ns for p in (evaluated / "cloned").glob("*/*/*")}
    assert len(clones) == 2 * 2 * 2
    assert main(with_baselines(toy, policies, evaluated)) == 0
    assert (evaluated / "results.json").read_bytes() == results
    assert main(words(policies, evaluated, "episodes=2", "batch=2")) == 0  # other settings
    assert Results.load(evaluated / "results.json").episodes == 2
    assert {p: p.stat().st_mtime_ns for p in clones} == clones
    assert (evaluated / OUTCOMES).read_bytes() == before
    assert "decision steps in" not in capsys.readouterr().err
    assert main(words(policies, evaluated, "tasks=[reacher-easy]", "seed=5", "episodes=1")) == 0
    assert len((evaluated / OUTCOMES).read_bytes()) > len(before)


def save_policy(task: Task, path: Path) -> Path:
    """Untrained, of three observations and one action."""
    torch.manual_seed(0)
    size = ActorCriticSize([8], [])
    actors = Actors(3, torch.ones(1, 1), size)
    policy = Policy.from_observation_actor(task, torch.zeros(3), torch.ones(3), actors, 0, size)
    policy.save(path)
    return path


def test_stopped_or_killed_it_goes_on_where_it_was(tmp_path):
    policy = save_policy(faulty_task(tmp_path / "none", length=120), tmp_path / "policy")
    out = tmp_path / "stopped"
    command = words(policy, out, "episodes=12", "batch=1", "workers=1")

    def lines() -> int:
        return (out / OUTCOMES).read_bytes().count(b"\n") if (out / OUTCOMES).exists() else 0

    for how, least in ((signal.SIGKILL, 1), (signal.SIGTERM, 5)):
        process = forked_command(command, tmp_path / "log", group=True)
        process.wait_until(lambda least=least: lines() >= least)
        if how == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, how)  # as a terminal does: to the workers too
        assert process.wait() == (-how if how == signal.SIGKILL else 128 + how)
        said = " ".join(process.printed.split())
        assert ("the same command goes on" in said) == (how != signal.SIGKILL)
        assert not (out / "results.json").exists()
    before = lines()
    assert main(command) == 0
    assert main([*command[:2], f"out={tmp_path / 'whole'}", *command[3:]]) == 0
    for name in ("results.json", "results.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    entries = [json.loads(line.split(b" ", 1)[1]) for line in (out / OUTCOMES).open("rb")]
    assert len({entry["key"] for entry in entries}) == len(entries) == 2 * 12 > before
    rates = json.loads((out / "throughput.json").read_text())
    assert rates["steps"] == 120 * (len(entries) - before)


@pytest.fixture
def faulty(tmp_path) -> Path:
    """A policy for a task whose simulator fails on demand."""
    return save_policy(faulty_task(tmp_path / "token", cursed=77), tmp_path / "policy")


def test_simulators_that_raise_die_or_give_nan_are_run_again(faulty, tmp_path):
    config = EvaluateConfig(str(faulty), str(tmp_path / "plain"), episodes=8, batch=2, workers=1)
    plain = evaluate(config)
    for kind in ("nan", "raise", "die"):
        (tmp_path / f"token.{kind}").touch()
    assert evaluate(replace(config, out=str(tmp_path / "faulty"), workers=2)) == plain
    assert not list(tmp_path.glob("token.*"))
    rates = json.loads((tmp_path / "faulty" / "throughput.json").read_text())
    assert rates["faults"] == {"failed": 2, "died": 1}


def test_an_episode_that_always_fails_ends_it_by_name_and_the_rest_is_kept(
    faulty, tmp_path, capsys
):
    more = ("seed=74", "batch=2", "baselines=[]", "workers=1", "max_faults=2")
    assert main(words(faulty, tmp_path / "out", "episodes=4", *more)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "failed at task 'faulty' with seed 77" in error
    assert "not finite" in error
    assert "fault 2 of max_faults=2" in error
    assert (tmp_path / "out" / OUTCOMES).read_bytes().count(b"\n") == 1  # of seeds 74 and 75
    assert main(words(faulty, tmp_path / "out", "episodes=2", *more)) == 0


def test_a_policy_that_gives_nan_is_no_fault_of_the_simulator(policies, tmp_path, capsys):
    policy = find_policies(policies)["reacher-easy"]
    with torch.no_grad():
        policy.obs_mean.fill_(torch.nan)
    policy.save(tmp_path / "policy")
    assert main(words(tmp_path / "policy", tmp_path / "out", "episodes=1")) == 1
    error = capsys.readouterr().err
    assert "task 'reacher-easy' with seed 4: the policy of reacher-easy gives NaN" in error
    assert "is replaced" not in error


def test_one_policy_and_chosen_tasks(policies, tmp_path):
    one = words(policies / "pendulum-swingup", tmp_path / "one", "episodes=1")
    assert main(one) == 0
    assert Results.load(tmp_path / "one" / "results.json").task_names == ("pendulum-swingup",)
    chosen = words(policies, tmp_path / "chosen", "tasks=[reacher-easy]", "episodes=1")
    assert main(chosen) == 0
    assert Results.load(tmp_path / "chosen" / "results.json").task_names == ("reacher-easy",)


def test_data_without_a_task_are_refused_before_any_episode(policies, tmp_path, capsys):
    with EpisodeStore.create(tmp_path / "other", get_suite("walker-run")):
        pass
    more = [f"data={tmp_path / 'other'}", "baselines=[data_mean]"]
    assert main(words(policies, tmp_path / "out", *more)) == 1
    assert "reacher-easy" in capsys.readouterr().err
    assert not (tmp_path / "out" / OUTCOMES).exists()


def test_missing_policies_are_named(policies, tmp_path):
    with pytest.raises(
        PwmError, match="no policy for walker-run; it has pendulum-swingup, reacher"
    ):
        find_policies(policies, ["walker-run"])
    with pytest.raises(PwmError, match="holds no policy"):
        find_policies(tmp_path)
    with pytest.raises(PwmError, match="holds no policy"):
        find_policies(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"worker_timeout": 0}, "worker_timeout=0"),
        ({"max_faults": 0}, "max_faults=0"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_settings_of_workers_that_cannot_work_are_refused(wrong, message):
    with pytest.raises(PwmError, match=message):
        EvaluateConfig("policies", "out", **wrong).validate()


def test_videos_without_the_library_say_what_to_install(policies, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main(words(policies, tmp_path / "out", "video=1", "episodes=1")) == 1
    assert "pip install 'pwm-worldmodels[video]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
