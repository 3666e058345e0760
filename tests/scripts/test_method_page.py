"""docs/method.md names functions, files and settings that there are."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from reference import pwm_minimal

from pwm.extraction.config import ExtractConfig
from pwm.extraction.learner import ActorCriticLearner
from pwm.extraction.value_targets import lambda_returns
from pwm.pretraining.config import PretrainConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/method.md").read_text()
ROWS = re.findall(r"^\| .+ \| (.+) in `pwm/(.+)\.py` \| (.+) \|$", PAGE, re.M)


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_parts_is_found():
    assert len(ROWS) >= 15


@pytest.mark.parametrize(("names", "file", "minimal"), ROWS)
def test_a_part_is_where_the_page_says(names, file, minimal):
    module = importlib.import_module("pwm." + file.replace("/", "."))
    for name in quoted(names):
        assert getattr(module, name).__module__ == module.__name__, name
    for name in quoted(minimal):
        assert getattr(pwm_minimal, name).__module__ == pwm_minimal.__name__, name


def test_the_losses_are_called_where_the_page_says():
    methods = re.findall(r"`ActorCriticLearner\.(\w+)`", PAGE)
    for method, name in zip(methods, ("actor_loss(", "bc_loss("), strict=True):
        assert name in inspect.getsource(getattr(ActorCriticLearner, method)), method
    assert "`lambda_returns`, which calls `td_lambda` and `pessimistic_value`" in PAGE
    source = inspect.getsource(lambda_returns)
    assert "td_lambda(" in source and "pessimistic_value(" in source


def test_its_settings_are_settings_and_differ_from_the_defaults():
    changed = re.findall(r"`(?:pwm (\w+) )?([\w.]+=[\w.-]+(?: [\w.]+=[\w.-]+)*)`", PAGE)
    values = [word.split("=") for _, words in changed for word in words.split()]
    assert len(values) >= 8
    configs = OmegaConf.structured(ExtractConfig), OmegaConf.structured(PretrainConfig)
    for name, value in values:
        if name in ("extract", "model"):
            assert (ROOT / f"configs/{name}/{value}.yaml").exists()
            continue
        defaults = [OmegaConf.select(config, name) for config in configs]
        assert any(default is not None and str(default) != value for default in defaults), name


def test_settings_without_a_value_are_settings():
    names = re.findall(r"`(learner\.[a-z_]+)(?:\.\*)?`", PAGE)
    assert len(names) >= 5
    config = OmegaConf.structured(ExtractConfig)
    for name in names:
        assert OmegaConf.select(config, name) is not None, name
