"""Which settings of every command are paths to read, and which may change when it goes on."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import get_type_hints

import pytest

from pwm.cli.commands import COMMANDS
from pwm.cli.main import _JOB_COMMANDS
from pwm.core.settings import block_types, changeable, input_settings
from pwm.evaluation.evaluate import EvaluateConfig
from pwm.extraction.estimate import EstimateConfig
from pwm.pipelines.jobs import KINDS

INPUTS = {
    "quickstart": set(),
    "collect": {"policy"},
    "convert": {"source"},
    "sample": {"data"},
    "import": {"checkpoint"},
    "export": {"checkpoint"},
    "pretrain": {"data", "init"},
    "adapt": {"checkpoint", "data", "old_data"},
    "analyze": {"checkpoint", "data"},
    "extract": {"checkpoint", "data", "init", "ensemble"},
    "estimate": {"policies", "data", "checkpoint"},
    "evaluate": {"policy", "data", "checkpoint", "policies"},
    "watch": {"policy", "checkpoint"},
    "deploy": {"policy", "checkpoint"},
    "serve": {"policy"},
    "push": {"source"},
    "pull": set(),
    "grow": set(),
    "report": {"run", "grow", "strips", "notes"},
    "status": {"run"},
    "gather": {"run"},
    "doctor": set(),
    "compare": set(),
    "landscape": {"checkpoint"},
}

# Of the commands that compare their settings with those of an earlier run.
MAY_CHANGE = {
    "collect": {
        "suite", "episodes", "workers", "worker_timeout", "max_faults",
        "agents.device", "agents.compile", "agents.precision",
    },
    "pretrain": {
        "device", "log_every", "save_every", "keep_last", "max_skipped", "wandb_project",
        "on_error", "data_device", "data_memory", "accumulate", "parallel",
    },
    "adapt": {
        "device", "log_every", "save_every", "keep_last", "max_skipped", "wandb_project",
        "on_error", "data_device", "data_memory",
    },
    "analyze": {"device", "on_error", "clusters"},
    "extract": {
        "tasks", "on_error", "device", "group_size", "log_every", "save_every", "keep_last",
        "wandb_project", "expected_score",
    },
    "estimate": {field.name for field in fields(EstimateConfig)},
    "evaluate": {field.name for field in fields(EvaluateConfig)},
    "grow": {
        "rounds", "device", "episodes", "improvement", "min_episodes", "stalled", "bc_decay",
        "collect", "pretrain", "extract", "evaluate", "collect_with", "record_evaluation", "solved",
    },
    "compare": {"tasks", "methods", "seeds", "device", "save_every", "videos"},
    "landscape": {"device"},
}  # fmt: skip

# Settings of text, or a list of texts, that name no file to read.
NO_PATHS = {
    "out", "results", "record",  # written
    "device", "data_device", "compile", "precision", "resume", "on_error", "balance", "parallel",
    "aggregate", "finetune", "sharing", "collect_with", "map_from", "embedding_of",
    "init_normalization", "episodic", "select", "behaviour", "to", "action_units", "wandb_project",
    "baselines", "metaworld", "task", "tasks", "methods", "format", "license", "message",  # words
    "repo", "revision", "datasets", "host",  # of services
}  # fmt: skip


def config(command: str) -> type:
    described = COMMANDS[command]
    return getattr(import_module(described.module), described.config)


@pytest.mark.parametrize("command", COMMANDS)
def test_paths_to_read(command):
    assert set(input_settings(config(command))) == INPUTS[command]
    for block in block_types(config(command)).values():  # or one would be found by no check
        if block not in map(config, COMMANDS):
            assert input_settings(block) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_setting_of_text_is_a_path_to_read_or_known_to_be_none(command):
    kind = config(command)
    hints = get_type_hints(kind)
    texts = {f.name for f in fields(kind) if hints[f.name] in (str, str | None, list[str])}
    assert texts <= NO_PATHS | INPUTS[command]


@pytest.mark.parametrize("command", MAY_CHANGE)
def test_what_may_change(command):
    assert changeable(config(command)) == MAY_CHANGE[command]


def test_the_commands_whose_tasks_can_be_jobs():
    assert tuple(KINDS) == _JOB_COMMANDS
