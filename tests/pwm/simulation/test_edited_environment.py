"""Episodes of an environment that was edited do not join those of before."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_env import OwnEnv, save_policy
from stores import rewrite_manifest

from pwm.core.errors import PwmError
from pwm.core.suites import get_suite
from pwm.data.store import EpisodeStore
from pwm.pipelines import grow, jobs
from pwm.pipelines.growth_config import GrowConfig
from pwm.pipelines.job_records import DONE, JobRecord
from pwm.runtime.run_dir import resolved_config
from pwm.simulation.collect import collect, join_stores
from pwm.simulation.collect_config import CollectConfig


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnEnv:
    return OwnEnv(tmp_path, monkeypatch)


@pytest.fixture
def config(own: OwnEnv, tmp_path: Path) -> CollectConfig:
    return CollectConfig(
        str(tmp_path / "data"), own.task_file(), episodes=2, workers=1, behaviour="random"
    )


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def test_collecting_goes_on_in_the_same_environment_alone(own, config, capsys):
    collect(config)
    assert "kept" not in said(capsys)
    collect(config)
    assert "data has 2 of these episodes already; they are kept." in said(capsys)
    own.set_reward("2.0")
    config.episodes = 3
    with pytest.raises(PwmError, match=r"\(own\) was made before module own_reward of own changed"):
        collect(config)
    own.set_reward("1.0")
    config.suite = "own"  # the store knows the task by now
    collect(config)
    store = EpisodeStore.open(config.out)
    assert store.count("own") == 3
    assert store.suite == get_suite(str(own.directory / "own.yaml"))


def test_episodes_of_a_policy_that_was_remade_are_told_apart(own, config, tmp_path, capsys):
    config.behaviour, config.policy = "policy", str(tmp_path / "policy")
    for seed, told in ((0, False), (0, False), (1, True)):
        save_policy(config.suite, tmp_path / "policy", seed)
        collect(config)
        assert ("policy has changed since its episodes in" in said(capsys)) == told
    store = EpisodeStore.open(config.out)
    assert [store.count("own", key) for key in store.sources] == [2, 2]


def test_a_store_of_before_fingerprints_is_kept_and_said_so_once(own, config, capsys):
    collect(config)
    rewrite_manifest(Path(config.out), lambda document: document.pop("environments"))
    said(capsys)
    collect(config)
    assert "has episodes of own, and which source the environment had" in said(capsys)
    collect(config)
    assert "which source" not in said(capsys)
    own.set_reward("2.0")
    with pytest.raises(PwmError, match="own_reward of own changed"):
        collect(config)


def test_parts_of_another_environment_are_not_gathered(own, config, tmp_path):
    part = collect(config)
    own.set_reward("2.0")
    config.out = str(tmp_path / "whole")
    with pytest.raises(PwmError, match="own_reward of own changed"):
        join_stores(config, {"own": part})


def test_a_job_of_another_environment_is_not_done(own, config, tmp_path):
    made_of = jobs.job_made_of("collect", config, config.suite)
    record = JobRecord("collect", config.suite, ["own"]).begun(resolved_config(config), made_of)
    record.ended(DONE).write(tmp_path)
    assert jobs._is_done(tmp_path, "collect", config, config.suite)
    own.set_reward("2.0")
    assert not jobs._is_done(tmp_path, "collect", config, config.suite)


def test_growth_does_not_go_on_in_another_environment(own, config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grow, "read_rounds", lambda out: ["a round"])
    monkeypatch.setattr(grow, "_keep_best", lambda config, rounds: None)
    growth = GrowConfig(str(tmp_path / "grow"), suite=config.suite, rounds=1)
    for _ in range(2):
        grow._grow_in_rounds(growth)
    assert "has 1 of 1 rounds; they are kept" in said(capsys)
    own.set_reward("2.0")
    with pytest.raises(PwmError, match="grow was made before module own_reward of own changed"):
        grow._grow_in_rounds(growth)
