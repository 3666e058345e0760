from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import envs
import pwm
from pwm.cli.commands import COMMANDS


@pytest.mark.parametrize("name", pwm.__all__)
def test_public_names_import_from_where_they_live(name):
    assert getattr(pwm, name).__name__ == name
    assert name in dir(pwm)


def test_every_public_name_is_on_the_reference_page():
    page = Path(__file__).parents[2] / "docs" / "reference" / "index.md"
    lines = page.read_text().splitlines()
    shown = [line.removeprefix("::: pwm.") for line in lines if line.startswith("::: ")]
    assert sorted(shown) == sorted(pwm.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'load_polciy'"):
        pwm.load_polciy  # noqa: B018


def test_importing_the_package_imports_neither_torch_nor_a_simulator():
    code = "import sys, pwm, envs; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "mujoco", "dm_control", "metaworld", "hydra"} & set(run.stdout.split())


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_each_command_names_a_module_that_has_its_function_and_config(command):
    module = importlib.import_module(command.module)
    assert callable(getattr(module, command.function))
    assert isinstance(getattr(module, command.config), type)


@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("pwm.dataset", ["Episode", "EpisodeStore"]),
        ("pwm.suites", ["Suite", "Task", "get_suite", "get_task"]),
    ],
)
def test_documented_modules_of_before_still_import_and_say_what_to_use(old, names):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match="use `from pwm import"):
        module = importlib.import_module(old)
    assert all(getattr(module, name) is getattr(pwm, name) for name in names)


def test_the_vector_environment_of_before_warns_and_works():
    with pytest.warns(DeprecationWarning, match="use envs.TaskVectorEnv"):
        assert envs.ProcessVectorEnv is envs.TaskVectorEnv
    with pytest.warns(DeprecationWarning, match="workers="):
        envs.make_vector_env(["pendulum-swingup"], n=1, workers=2).close()
