from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from calls import before_call

from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.envs import make_env
from pwm.evaluation.played_choice import FIRST_SEED, PlayedJudge
from pwm.extraction.learner import ActorCriticLearner
from pwm.models.policy import load_policy
from pwm.runtime.checkpoint import load_checkpoint

EVERY, EPISODES = 4, 2
SELECT = ["select=simulator", f"select_episodes={EPISODES}", f"estimate_every={EVERY}"]


def scores_by_iteration(run: Path, task: str) -> dict[int, float]:
    (metrics,) = run.glob("groups/*/metrics.jsonl")
    lines = map(json.loads, metrics.read_text().splitlines())
    name = f"{task}/simulator_score"
    return {line["step"]: line[name] for line in lines if name in line}


@pytest.fixture(scope="module")
def chosen(toy, toy_world_model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("chosen") / "policies"
    assert main(toy.extract(toy_world_model, out, *SELECT, "learner.bc.warmup_steps=3")) == 0
    return out


def test_what_is_kept_scores_what_was_found_and_nothing_scored_more(toy, chosen) -> None:
    policies = [load_policy(chosen / task) for task in toy.tasks]
    again = PlayedJudge(EPISODES)(policies)
    for task, played in zip(toy.tasks, again, strict=True):
        found = scores_by_iteration(chosen, task)
        assert list(found) == [3, 3 + EVERY, 3 + 2 * EVERY, 3 + 3 * EVERY]
        assert played.score == pytest.approx(max(found.values()))
        assert played.low <= played.score <= played.high


def test_scores_are_those_of_the_simulator(toy, chosen) -> None:
    policy = load_policy(chosen / toy.tasks[0])
    env, total = make_env(policy.task), 0.0
    obs, _ = env.reset(seed=FIRST_SEED)
    for _ in range(policy.task.episode_length):
        obs, reward, *_ = env.step(policy(torch.from_numpy(obs).unsqueeze(0))[0].numpy())
        total += reward
    (played,) = PlayedJudge(1)([policy])
    assert played.score == pytest.approx(total / 10, rel=1e-3)
    assert played.low == played.high == played.score


def test_policies_that_are_begun_with_are_played_too(toy, toy_world_model, chosen, tmp_path):
    words = toy.extract(toy_world_model, tmp_path, *SELECT, f"init={chosen}")
    assert main([*words, "learner.iterations=4", "learner.optim.actor_lr=0.5"]) == 0
    for task in toy.tasks:
        found = scores_by_iteration(tmp_path, task)
        assert list(found) == [0, 4]
        assert found[0] == pytest.approx(max(scores_by_iteration(chosen, task).values()))


def test_interrupted_and_resumed_equals_uninterrupted(
    toy, toy_world_model, chosen, tmp_path, monkeypatch
):
    words = toy.extract(toy_world_model, tmp_path, *SELECT, "learner.bc.warmup_steps=3")
    with monkeypatch.context() as patch:
        stop = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
        before_call(patch, ActorCriticLearner, "iteration", stop, 6)
        assert main(words) == 143
    assert main(words) == 0
    for task in toy.tasks:
        one, two = (load_checkpoint(run / task, "policy").tensors for run in (chosen, tmp_path))
        for group, tensors in one.items():
            assert all(tensor.equal(two[group][name]) for name, tensor in tensors.items())


def test_a_simulator_that_is_not_there_is_told_before_anything_is_learned() -> None:
    task = replace(get_suite("reacher-easy").tasks[0], domain="gymnasium", env_id="No/Such-v0")
    with pytest.raises(PwmError, match="No/Such"):
        PlayedJudge(1).require([task])
