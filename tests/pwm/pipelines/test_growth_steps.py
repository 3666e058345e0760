"""Steps in the place of rounds, and the presets that are made of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pwm.pipelines.grow
from pwm.cli.main import config_directory, main
from pwm.core.settings import input_paths
from pwm.core.suites import get_suite
from pwm.pipelines.growth_config import GrowConfig, RoundSettings
from pwm.pipelines.growth_steps import Step
from pwm.simulation.collect import _describe, _recipe, _source_key

NO_STEPS = {"quick", "gpu"}
PRESETS = sorted(file.stem for file in (config_directory() / "grow").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, Any]]:
    """The steps that ran, in the place of running them."""
    noted: list[tuple[str, Any]] = []
    for name in pwm.pipelines.grow._COMMANDS:
        monkeypatch.setitem(
            pwm.pipelines.grow._COMMANDS,
            name,
            lambda config, name=name: noted.append((name, config)),
        )
    return noted


@cache
def composed(*words: str) -> GrowConfig:
    configs: list[GrowConfig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pwm.pipelines.grow, "grow", configs.append)
        assert main(["grow", "out=run", *words]) == 0
    return configs[0]


def test_steps_run_in_order_each_with_what_differs_from_its_block(ran):
    steps = (
        "steps=[{collect: {behaviour: ou, episodes: {mw-reach: 3}}},"
        "{grow: {out: run/first, rounds: 2, pretrain: {steps: 7},"
        "extract: {learner: {bc: {weight: 2.0}}}}},"
        "{extract: {checkpoint: run/first/round_01/world_model, out: run/policies}}]"
    )
    assert main(["grow", "out=run", "device=cpu", "seed=4", steps]) == 0
    assert [name for name, _ in ran] == ["collect", "grow", "extract"]
    collect, grow, extract = (config for _, config in ran)
    assert (collect.out, collect.suite, collect.behaviour) == ("run/data", "quick", "ou")
    assert collect.episodes == {"mw-reach": 3}
    assert (grow.rounds, grow.pretrain.steps, grow.steps, grow.seed) == (2, 7, [], 4)
    assert RoundSettings(grow, []).extract.checkpoint == "run/first/round_00/world_model"
    assert grow.extract.learner.bc.weight == 2.0
    assert grow.extract.learner.bc.weight_final == 0.3, "the preset's"
    assert (extract.out, extract.device) == ("run/policies", "cpu")
    assert extract.learner.iterations == 200


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[{colect: {}}]", "steps[0]: unknown colect; did you mean 'collect'?"),
        ("[{collect: {}, grow: {}}]", "steps[0]="),
        ("[collect]", "steps[0]=collect must be one command"),
        ("[{collect: {}},{collect: {stepz: 1}}]", "steps[1]: CollectConfig is malformed"),
        ("[{collect: {episodes: -1}}]", "steps[0]: episodes=-1"),
        ("[{pretrain: {}}]", "steps[0]: there is no run/data"),
        ("[{collect: {}},{pretrain: {}}]", "steps[1]: pretrain is not of a round"),
        ("[{collect: {}},{pretrain: {out: new, init: nowhere}}]", "steps[1]: there is no nowhere"),
        ("[{grow: {rounds: 0}}]", "steps[0]: rounds=0 must be at least 1"),
    ],
)  # fmt: skip
def test_a_mistake_in_any_step_is_told_before_the_first(steps, message, ran, tmp_path, capsys):
    assert main(["grow", "out=run", f"steps={steps}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pwm: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert ran == []
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_run_where_what_it_reads_is_there(name, monkeypatch):
    config = composed(f"grow={name}", "device=cpu")
    steps, planned = steps_of(name), GrowConfig.planned_steps
    monkeypatch.setattr(  # which takes seconds
        GrowConfig, "planned_steps", lambda other: steps if other is config else planned(other)
    )
    assert bool(steps) == (name not in NO_STEPS)
    made = [Path(step.makes) for step in steps]
    for step in steps or [Step("grow", config)]:
        if step.command != "grow":
            for path in map(Path, input_paths(step.config)):
                if not any(path.is_relative_to(directory) for directory in made):
                    path.mkdir(parents=True, exist_ok=True)
    config.validate()


@cache
def steps_of(name: str) -> list[Step]:
    return composed(f"grow={name}", "device=cpu").planned_steps()


def test_mt80_is_grown_as_its_page_says():
    growths = [step.config for step in steps_of("mt80") if step.command == "grow"]
    assert [(Path(g.out).name, g.rounds) for g in growths] == [
        ("begun", 1), ("begun", 2), *(("grown", number) for number in range(1, 7)),
    ]  # fmt: skip
    page = (config_directory().parent / "docs" / "results" / "growing.md").read_text()
    updates = ["11,000", "4,000", "27,000", "5,000", "3,000", "9,000", "8,000", "1,500"]
    for number, (growth, steps) in enumerate(zip(growths, updates, strict=True)):
        assert growth.pretrain.steps == int(steps.replace(",", ""))
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {number} | "))
        assert f"| {steps} |" in row


def test_agents_of_mt80_begin_with_the_episodes_that_were_planned():
    collections = [step.config for step in steps_of("mt80") if step.command == "collect"]
    planned = set()
    for config in collections:
        if config.behaviour == "mpc":
            recipe = _recipe(config)
            planned.add(_source_key(recipe, _describe(config, recipe, get_suite(config.suite))))
    named = [config.sac.prior for config in collections if config.sac.prior]
    assert len(named) == 2
    assert all(set(prior) == planned for prior in named)
