"""What was remade under its old name is played again, and what was not is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_env import OwnEnv, save_policy

from pwm.core.errors import PwmError
from pwm.core.suites import Suite, get_suite, get_task
from pwm.core.versions import versions
from pwm.evaluation.agents import SavedPolicies
from pwm.evaluation.chosen_tasks import chosen_suite
from pwm.evaluation.episode_log import EpisodeLog, outcome_key
from pwm.evaluation.evaluate import OUTCOMES, EvaluateConfig, evaluate


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnEnv:
    return OwnEnv(tmp_path, monkeypatch)


@pytest.fixture
def config(own: OwnEnv, tmp_path: Path) -> EvaluateConfig:
    save_policy(own.task_file(), tmp_path / "policy")
    return EvaluateConfig(
        str(tmp_path / "policy"), str(tmp_path / "out"), episodes=2, workers=1, baselines=[]
    )


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_an_environment_that_was_edited_is_played_again(own, config, capsys):
    assert evaluate(config).policy.tasks["own"].returns == (5.0, 5.0)
    said(capsys)
    assert evaluate(config).policy.tasks["own"].returns == (5.0, 5.0)
    assert "2 of 2 episodes were played before; they are kept." in said(capsys)
    own.set_reward("2.0")
    assert evaluate(config).policy.tasks["own"].returns == (10.0, 10.0)
    words = said(capsys)
    assert "Module own_reward of own changed since episodes of own were played; they are" in words
    assert "kept" not in words


def test_a_policy_that_was_remade_is_played_again(own, config, capsys):
    evaluate(config)
    save_policy(own.task_file(), Path(config.policy), seed=1)
    said(capsys)
    evaluate(config)
    assert "The agent 'extracted' changed since episodes of own" in said(capsys)
    lines = (Path(config.out) / OUTCOMES).read_bytes().splitlines()
    assert len(lines) == 2


def test_a_file_that_describes_the_task_otherwise_is_what_is_played(own, config, capsys):
    config.tasks = own.task_file("other.yaml", scale=3.0, more="episode_length: 4")
    results = evaluate(config).policy.tasks["own"]
    assert results.returns == (12.0, 12.0)
    assert results.normalized_score == pytest.approx(120)
    assert (
        'own is played as its file describes it: env_kwargs {"scale": 3.0} and not '
        '{"scale": 1.0}, episode_length 4 and not 5 as in'
    ) in said(capsys)
    config.tasks = "own"  # as the policy knows it
    assert evaluate(config).policy.tasks["own"].returns == (5.0, 5.0)


def test_other_sizes_than_the_policys_are_refused(own, tmp_path):
    known = {"own": get_task(own.task_file())}
    other = tmp_path / "other.yaml"
    other.write_text((tmp_path / "own.yaml").read_text().replace("obs_dim: 3", "obs_dim: 4"))
    with pytest.raises(PwmError, match="obs_dim 4 and not 3 as policies has it"):
        chosen_suite(str(other), known, "policies")


def test_tasks_are_those_of_the_owner_and_known_suites_keep_their_name(own):
    quick = {task.name: task for task in get_suite("quick")}
    assert chosen_suite(None, quick, "").name == "quick"
    task = get_task(own.task_file())
    chosen = chosen_suite(["mw-reach", "own"], {**quick, "own": task}, "")
    assert chosen == Suite("mw-reach,own", (quick["mw-reach"], task))
    with pytest.raises(PwmError, match=r"suite or task 'owm'; did you mean 'own'.*are own"):
        chosen_suite("owm", {"own": task}, "")


def test_episodes_of_before_fingerprints_are_kept_and_then_watched(own, config, capsys):
    evaluate(config)
    log = Path(config.out) / OUTCOMES
    (line,) = log.read_bytes().splitlines()
    entry = json.loads(line.split(b" ", 1)[1])
    played = EpisodeLog(log)[entry["key"]]
    log.unlink()
    task = get_task(own.task_file())
    identity = SavedPolicies.at({"own": Path(config.policy)}).identity(task)
    old = outcome_key(identity, task.facts(), entry["seeds"], versions())
    played.returns[:] = 7.0
    EpisodeLog(log).add(old, played, {"method": "extracted", "task": "own"})
    said(capsys)
    assert evaluate(config).policy.tasks["own"].returns == (7.0, 7.0)
    words = said(capsys)
    assert "environment of own had when its episodes were played is not on record" in words
    assert evaluate(config).policy.tasks["own"].returns == (7.0, 7.0)
    assert "not on record" not in said(capsys)
    own.set_reward("2.0")
    assert evaluate(config).policy.tasks["own"].returns == (10.0, 10.0)
