"""The pages' commands name commands and settings that exist, in words that any shell takes."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from check_links import pages
from documented import pwm_lines

from pwm.cli.commands import COMMANDS
from pwm.cli.main import config_directory
from pwm.cli.overrides import Schema
from pwm.core.errors import PwmError

ROOT = Path(__file__).parents[3]


def check(line: str) -> None:
    """Raise PwmError for a command line that names what does not exist."""
    _, name, *words = shlex.split(line)
    if name == "data":
        assert words[0] in ("info", "verify", "merge", "take", "tasks")
        return
    if name not in COMMANDS:
        raise PwmError(f"there is no command {name}")
    command = COMMANDS[name]
    config_type = getattr(import_module(command.module), command.config)
    Schema(name, config_type, config_directory(), command.example).check(words)


def bare_brackets(line: str) -> list[str]:
    """The words that a shell such as zsh would take for a pattern of file names."""
    return re.findall(r"\S*\[\S*", re.sub(r"'[^']*'|\"[^\"]*\"", "", line))


def test_pages_name_what_exists() -> None:
    lines = {line: page for page in pages() for line in pwm_lines(page.read_text())}
    assert len(lines) > 40
    for line, page in lines.items():
        try:
            check(line)
        except PwmError as error:
            pytest.fail(f"{page.relative_to(ROOT)}: {line}\n{error}")
        assert not bare_brackets(line), f"{page.relative_to(ROOT)}: quote the brackets of {line}"


def test_a_setting_that_does_not_exist_is_found() -> None:
    (line,) = pwm_lines("```sh\n.venv/bin/pwm pretrain data=a \\\n    stepz=3 out=b  # no\n```\n")
    assert line == "pwm pretrain data=a stepz=3 out=b"
    with pytest.raises(PwmError, match="stepz"):
        check(line)


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(PwmError, match="pretrian"):
        check("pwm pretrian data=a")


def test_brackets_without_quotes_are_found() -> None:
    assert bare_brackets("pwm extract tasks=[a,b] 'ensemble=[c]'") == ["tasks=[a,b]"]
