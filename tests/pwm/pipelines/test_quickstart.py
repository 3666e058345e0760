from __future__ import annotations

import base64
import json
import shutil
import signal

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

import pwm
import pwm.pipelines.quickstart
from pwm.cli.main import main
from pwm.core.errors import PwmError
from pwm.core.suites import SUITES
from pwm.evaluation.episode_log import Outcomes
from pwm.evaluation.episode_queue import EvalRun

STAGES = ("collect", "pretrain", "extract", "evaluate")


@pytest.fixture
def calls(monkeypatch):
    """Every stage replaced by a note of its name and settings."""
    noted = []
    picture = "policies_picture"
    monkeypatch.setattr(pwm.pipelines.quickstart, picture, lambda run, policies: None)
    for stage in (*STAGES, "report"):
        monkeypatch.setattr(
            pwm.pipelines.quickstart,
            stage,
            lambda config, stage=stage: noted.append((stage, config)),
        )
    return noted


def test_stages_run_in_order_with_one_seed_device_and_directory(calls, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    assert main(["quickstart", f"out={out}", "seed=5", "device=cpu"]) == 0
    assert [name for name, _ in calls] == [*STAGES, "report"]
    collect, pretrain, extract, evaluate, report = (config for _, config in calls)
    assert [config.seed for config in (collect, pretrain, extract)] == [5, 5, 5]
    assert [config.device for config in (pretrain, extract)] == ["cpu", "cpu"]
    assert collect.out == pretrain.data == extract.data == evaluate.data == f"{out}/data"
    assert pretrain.out == extract.checkpoint == f"{out}/world_model"
    assert extract.out == evaluate.policy == f"{out}/policies"
    assert evaluate.out == str(report) == str(out)
    timing = json.loads((out / "timing.json").read_text())
    assert set(timing) == {*STAGES, "total"}


def test_the_quick_recipe_is_the_quick_suite(calls, tmp_path):
    assert main(["quickstart", f"out={tmp_path}"]) == 0
    settings = dict(calls)
    assert settings["collect"].suite == "quick"
    assert set(settings["collect"].episodes) == set(SUITES["quick"].names)
    assert {"random", "bc", "bc_best", "data_mean", "data_best"} <= set(
        settings["evaluate"].baselines
    )
    assert settings["evaluate"].episodes == 10
    for config in (settings["pretrain"], settings["extract"], settings["evaluate"]):
        config.validate()


def test_every_stage_can_be_adjusted(calls, tmp_path):
    words = ["pretrain.steps=7", "extract.learner.horizon=8", "evaluate.episodes=2"]
    assert main(["quickstart", f"out={tmp_path}", *words]) == 0
    settings = dict(calls)
    assert settings["pretrain"].steps == 7
    assert settings["extract"].learner.horizon == 8
    assert settings["evaluate"].episodes == 2


def test_a_stage_that_fails_stops_the_rest(calls, tmp_path, monkeypatch, capsys):
    def fail(config):
        raise PwmError("no disk left; make room.")

    monkeypatch.setattr(pwm.pipelines.quickstart, "extract", fail)
    assert main(["quickstart", f"out={tmp_path}"]) == 1
    assert [name for name, _ in calls] == ["collect", "pretrain"]
    assert "no disk left" in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_a_signal_in_any_stage_stops_the_line_and_says_how_to_go_on(
    stage, calls, tmp_path, monkeypatch, capsys
):
    def stopped(config):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(pwm.pipelines.quickstart, stage, stopped)
        assert main(["quickstart", f"out={tmp_path}"]) == 143
    assert [name for name, _ in calls] == list(STAGES[: STAGES.index(stage)])
    message = capsys.readouterr().err
    assert "the same command goes on from there" in message
    assert "Traceback" not in message
    assert not (tmp_path / "timing.json").exists()
    assert main(["quickstart", f"out={tmp_path}"]) == 0


@pytest.mark.parametrize(
    "override", ["pretrain.steps=0", "extract.learner.horizon=0", "evaluate.episodes=0"]
)
def test_later_stages_settings_are_checked_before_the_first(override, calls, tmp_path):
    assert main(["quickstart", f"out={tmp_path / 'run'}", override]) == 1
    assert calls == []


class Mute(PendulumEnv):
    """Cannot draw itself."""

    def render(self) -> None:
        raise NotImplementedError


gymnasium.register("Mute-v0", Mute)


def test_an_environment_that_cannot_be_filmed_is_refused_before_the_first_stage(
    calls, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("pwm.evaluation.evaluate.require_video", lambda: None)
    task = tmp_path / "mute.yaml"
    task.write_text(
        "{name: mute, env_id: Mute-v0, obs_dim: 3, action_dim: 1, episode_length: 20, "
        "score: {min: -1, max: 0}}"
    )
    words = [f"collect.suite={task}", "collect.episodes=2", "collect.behaviour=random"]
    assert main(["quickstart", f"out={tmp_path / 'run'}", *words, "evaluate.video=1"]) == 1
    error = capsys.readouterr().err
    assert "evaluate: environment Mute-v0 cannot draw a frame (NotImplementedError" in error
    assert not calls
    assert main(["quickstart", f"out={tmp_path}", *words, "evaluate.video=0"]) == 0


def test_the_whole_line_without_simulators(toy, tmp_path, monkeypatch, capsys):
    """Toy data in the place of collection, and episodes scored by a formula."""

    def collect(config):
        if not (tmp_path / "run" / "data").exists():
            shutil.copytree(toy.data, config.out)

    def run_episodes(methods, tasks, seeds, batch, pool, log, recording):
        def outcomes(method, task):
            obs = np.random.default_rng(0).standard_normal((len(seeds), task.obs_dim))
            action = method.begin(task, seeds)(obs.astype(np.float32))
            none = np.zeros(len(seeds))
            return Outcomes(action.sum(1), none, none)

        found = {n: {t.name: outcomes(m, t) for t in tasks} for n, m in methods.items()}
        return EvalRun(found, steps=0, seconds=0.0, simulating_seconds=0.0)

    monkeypatch.setattr(pwm.pipelines.quickstart, "collect", collect)
    monkeypatch.setattr("pwm.evaluation.evaluate.run_episodes", run_episodes)
    frames = np.full((9, 240, 320, 3), 7, np.uint8)
    monkeypatch.setattr("pwm.evaluation.videos._film", lambda *episode: frames)
    words = [
        f"out={tmp_path / 'run'}", "device=cpu", "evaluate.episodes=3",
        "evaluate.cloning.updates=3",
    ]  # fmt: skip
    drop = ("data=", "out=", "checkpoint=", "device=", "model=")
    for stage, line in (
        ("pretrain", toy.pretrain(tmp_path)), ("extract", toy.extract(tmp_path, tmp_path))
    ):  # fmt: skip
        words += [f"{stage}.{word}" for word in line[1:] if not word.startswith(drop)]
    assert main(["quickstart", *words]) == 0
    run = tmp_path / "run"
    results = json.loads((run / "results.json").read_text())
    assert np.isfinite(results["mean_normalized_score"])
    assert set(results["tasks"]) == set(toy.tasks)
    for name in toy.tasks:
        assert np.isfinite(results["tasks"][name]["normalized_score"])
        for baseline in ("random", "bc", "bc_best", "data_mean", "data_best"):
            assert np.isfinite(results["baselines"][baseline]["tasks"][name]["normalized_score"])
    page = (run / "report.html").read_text()
    assert all(name in page for name in toy.tasks)
    picture = base64.b64encode((run / "policies.png").read_bytes()).decode()
    assert f"data:image/png;base64,{picture}" in page
    assert f"What the policies do: {run / 'policies.png'}" in capsys.readouterr().err
    made = {p: p.stat().st_mtime_ns for p in (run / "policies").glob("*/*.safetensors")}
    before = (run / "results.json").read_text()
    assert main(["quickstart", *words]) == 0  # nothing is trained again
    assert {p: p.stat().st_mtime_ns for p in made} == made
    assert (run / "results.json").read_text() == before
