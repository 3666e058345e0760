"""Settings by the names that they once had, on a command line, in a preset and in a saved run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch import without_hydra

import pwm.cli.main
import pwm.pipelines.grow
from pwm.cli.main import config_directory, main
from pwm.core.renamed_settings import RENAMED
from pwm.pipelines.growth_config import GrowConfig

EXTRACT = ["extract", "data=d", "checkpoint=c", "out=o"]


def resolved(words: list[str], capsys) -> tuple[dict[str, Any], str]:
    """The settings that words come to, and what was said on stderr."""
    assert main([*words, "--cfg", "job"]) == 0
    captured = capsys.readouterr()
    return yaml.safe_load(captured.out), captured.err


def test_old_words_mean_what_they_meant(capsys):
    old = ["learner.clone_weight=0.3", "learner.critic_passes=8", "learner.betas=[0.5,0.9]"]
    new = ["learner.bc.weight=0.3", "learner.critic.iterations=8", "learner.optim.betas=[0.5,0.9]"]
    settings, said = resolved([*EXTRACT, "extract=small_data", *old], capsys)
    assert (settings, "") == resolved([*EXTRACT, "extract=small_data", *new], capsys)
    assert said == (
        "pwm: learner.clone_weight is now learner.bc.weight, learner.critic_passes is now "
        "learner.critic.iterations, learner.betas is now learner.optim.betas; the old names "
        "still work.\n"
    )


@pytest.mark.slow
def test_old_words_within_a_block(capsys):
    settings, said = resolved(
        [*EXTRACT, "learner={clone_first: 5, clone_temperature: null, horizon: 7}"], capsys
    )
    assert settings["learner"]["bc"]["warmup_steps"] == 5
    assert settings["learner"]["horizon"] == 7
    assert said.count("\n") == 1
    assert "learner.clone_first is now learner.bc.warmup_steps" in said
    settings, said = resolved(["grow", "fill={episodes: 4, after: 3}", "least=1"], capsys)
    assert settings["stalled"] == {"episodes": 4, "behaviour": "sac", "after": 3, "below": 50.0}
    assert settings["min_episodes"] == 1
    assert "fill is now stalled, least is now min_episodes" in said


def test_a_name_that_never_was_is_still_refused(capsys):
    assert main([*EXTRACT, "learner.clone_wait=0.3"]) == 1
    assert "has no setting 'learner.clone_wait'" in capsys.readouterr().err


def test_a_wrong_value_of_an_old_word_is_told_by_the_new(toy, toy_world_model, tmp_path, capsys):
    assert main(toy.extract(toy_world_model, tmp_path / "out", "learner.critic_passes=0")) == 1
    told, error = capsys.readouterr().err.splitlines()
    assert "learner.critic_passes is now learner.critic.iterations" in told
    assert error == "pwm: error: learner.critic.iterations=0 must be at least 1."


@pytest.fixture
def presets(tmp_path, monkeypatch) -> Path:
    """A copy of the presets that a test may add to."""
    copy = shutil.copytree(config_directory(), tmp_path / "configs")
    monkeypatch.setattr(pwm.cli.main, "config_directory", lambda: copy)
    return copy


@pytest.mark.slow
def test_a_preset_of_one_s_own_may_have_old_names(presets, capsys):
    (presets / "extract" / "mine.yaml").write_text(
        "# @package learner\ndefaults:\n  - small_data@_here_\n  - _self_\n"
        "clone_weight: 0.7\nclone_best: 0.2\nactor_lr: 2e-3\n"
    )
    _, said = resolved([*EXTRACT, "extract=small_data"], capsys)
    assert said == "", "it was not chosen"
    settings, said = resolved([*EXTRACT, "extract=mine", "learner.bc.top_fraction=0.9"], capsys)
    assert settings["learner"]["bc"]["weight"] == 0.7
    assert settings["learner"]["bc"]["weight_final"] == 0.3
    assert settings["learner"]["bc"]["top_fraction"] == 0.9, "the command line goes before"
    assert settings["learner"]["optim"]["actor_lr"] == 2e-3
    assert said.count("\n") == 1
    assert "clone_weight is now bc.weight" in said
    assert f"in {presets}/extract/mine.yaml" in said
    settings, said = resolved(["grow", "extract@extract.learner=mine"], capsys)
    assert settings["extract"]["learner"]["bc"]["weight"] == 0.7
    assert said.count("\n") == 1


@pytest.mark.slow
def test_growth_of_one_s_own_may_have_old_names(presets, capsys, monkeypatch):
    (presets / "grow" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - quick\n  - _self_\n"
        "clone_decay: 0.5\nfill: {episodes: 3}\npretrain: {init_moments: data}\n"
        "extract: {learner: {clone_weight: 0.9}}\n"
    )
    configs: list[GrowConfig] = []
    monkeypatch.setattr(pwm.pipelines.grow, "grow", configs.append)
    assert main(["grow", "grow=mine"]) == 0
    assert (configs[0].bc_decay, configs[0].stalled.episodes) == (0.5, 3)
    assert configs[0].pretrain.init_normalization == "data"
    assert configs[0].extract.learner.bc.weight == 0.9
    assert capsys.readouterr().err.count("\n") == 1


def with_old_names(learner: dict[str, Any]) -> dict[str, Any]:
    """A learner's settings as they were recorded before."""
    flat = {
        name: value
        for name, value in learner.items()
        if name not in ("optim", "critic", "bc", "ensemble")
    }
    for old, new in RENAMED["ActorCriticConfig"].items():
        block, name = new.split(".")
        flat[old] = learner[block][name]
    return flat


def age(record: Path) -> None:
    """Rewrite what a run or a job says of its settings with the names of before."""
    text = record.read_text()
    content = json.loads(text) if record.suffix == ".json" else yaml.safe_load(text)
    settings = content.get("settings", content)
    settings["learner"] = with_old_names(settings["learner"])
    write = json.dumps if record.suffix == ".json" else yaml.safe_dump
    record.write_text(write(content))


def test_a_run_that_was_made_with_old_names_goes_on(toy, toy_world_model, tmp_path, capsys):
    out = tmp_path / "policies"
    old = ["learner.clone_first=2", "learner.clone_best=0.4"]
    assert main(toy.extract(toy_world_model, out, *old)) == 0
    record = out / "config.yaml"
    age(record)
    assert "clone_weight: 0.1" in record.read_text()
    made = {path: path.read_bytes() for path in out.glob("*/*.safetensors")}
    capsys.readouterr()

    assert main(toy.extract(toy_world_model, out, "learner.clone_best=0.3")) == 1
    assert "learner.bc.top_fraction: 0.4 -> 0.3" in capsys.readouterr().err
    assert main(toy.extract(toy_world_model, out, *old)) == 0
    of_words, of_run, kept = capsys.readouterr().err.splitlines()
    assert "learner.clone_best is now learner.bc.top_fraction" in of_words
    assert f"in {record}" in of_run
    assert made == {path: path.read_bytes() for path in out.glob("*/*.safetensors")}

    new = ["learner.bc.warmup_steps=2", "learner.bc.top_fraction=0.4"]
    assert main(toy.extract(toy_world_model, out, *new)) == 0
    assert capsys.readouterr().err.splitlines() == [kept], "the record has the names of today"


@pytest.mark.slow
def test_jobs_that_were_done_with_old_names_are_done(
    toy, toy_world_model, tmp_path, monkeypatch, capsys
):
    without_hydra(monkeypatch)
    out = tmp_path / "policies"
    first, *words = toy.extract(toy_world_model, out, "learner.iterations=2")
    command = [first, "-m", f"tasks={','.join(toy.tasks)}", *words]
    assert main(command) == 0
    for record in (out / "jobs" / "config.yaml", *out.glob("jobs/*/job.json")):
        age(record)
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "2 of them done already" in said
    assert "learner.actor_lr is now learner.optim.actor_lr" in said
    assert main(["gather", f"run={out}"]) == 0
