"""Settings of a run: presets composed once for all runs that choose them, others set on a copy."""

from __future__ import annotations

import shutil
from importlib import import_module
from typing import Any

import pytest
from hydra import compose, initialize
from omegaconf import OmegaConf

from pwm.cli.commands import COMMANDS
from pwm.cli.main import _schema, config_directory
from pwm.cli.overrides import Schema


def schema(name: str) -> Schema:
    command = COMMANDS[name]
    return _schema(name, getattr(import_module(command.module), command.config))


def by_hydra_alone(of_command: Schema, words: list[str]) -> Any:
    of_command.presets.register()
    with initialize(config_path=None, version_base="1.3"):
        return OmegaConf.to_object(compose(of_command.command, words))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(
            "pretrain",
            "data=d out=o lr=1e-3 model=5M model.latent_dim=8 model.latent_dim=9",
            marks=pytest.mark.slow,
        ),
        ("extract", "learner.networks.actor=[8] extract=small_data data=d checkpoint=c out=o"),
        ("grow", 'grow=quick extract.learner.horizon=5 model@pretrain.model=tiny out="a,b"'),
    ],
)
def test_a_run_is_as_hydra_alone_composes_it(name, words):
    of_command = schema(name)
    wanted = by_hydra_alone(of_command, words.split())
    assert of_command.composed(words.split()) == wanted
    assert of_command.composed(["seed=7", *words.split()]).seed == 7
    assert of_command.composed(words.split()) == wanted, "the run before left nothing behind"


def test_a_preset_that_was_edited_is_read_anew(tmp_path):
    directory = shutil.copytree(config_directory(), tmp_path / "configs")
    words = ["extract=mine", "data=d", "checkpoint=c", "out=o"]
    for horizon in (5, 6):
        file = directory / "extract" / "mine.yaml"
        file.write_text(f"# @package learner\nhorizon: {horizon}\n")
        given = schema("extract")
        edited = Schema(given.command, given.config_type, directory, given.example)
        assert edited.composed(words).learner.horizon == horizon
