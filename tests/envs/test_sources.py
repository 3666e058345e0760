"""What the environment of a user-defined task is made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from own_env import OwnEnv

from envs.sources import environment_sources
from pwm.core.fingerprints import changed
from pwm.core.suites import Task, get_task


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnEnv:
    return OwnEnv(tmp_path, monkeypatch)


def test_an_edit_of_the_environment_or_of_a_module_it_imports_is_found(own: OwnEnv) -> None:
    task = get_task(own.task_file())
    before = environment_sources(task)
    assert set(before) == {"module own_env_source of own", "module own_reward of own"}
    own.set_reward("2.0")
    assert changed(before, environment_sources(task)) == ["module own_reward of own"]
    own.set_reward("1.0  # as it was")
    assert environment_sources(task) == before
    source = (own.directory / "own_env_source.py").read_text()
    own.write("own_env_source.py", source.replace("np.ones", "np.zeros"))
    assert changed(before, environment_sources(task)) == ["module own_env_source of own"]


def test_a_module_that_a_function_imports_counts(own: OwnEnv) -> None:
    own.write("own_late.py", "NOISE = 0.1\n")
    own.write("own_reward.py", "REWARD = 1.0\ndef noise():\n    from own_late import NOISE\n")
    task = get_task(own.task_file())
    before = environment_sources(task)
    assert "module own_late of own" in before
    own.write("own_late.py", "NOISE = 0.2\n")
    assert changed(before, environment_sources(task)) == ["module own_late of own"]


def test_simulator_models_count(own: OwnEnv) -> None:
    source = (own.directory / "own_env_source.py").read_text()
    own.write("own_env_source.py", source + '\nMODEL = "models/arm.xml"\n')
    (own.directory / "models").mkdir()
    (own.directory / "models" / "arm.xml").write_text("<mujoco/>")
    (own.directory / "leg.xml").write_text("<mujoco/>")
    kwargs = json.dumps({"model": str(own.directory / "leg.xml")})
    task = replace(get_task(own.task_file()), env_kwargs=kwargs)
    before = environment_sources(task)
    for name in ("models/arm.xml", "leg.xml"):
        (own.directory / name).write_text("<mujoco model='other'/>")
        after = environment_sources(task)
        assert changed(before, after) == [f"file {Path(name).name} of own"]
        before = after


def test_what_has_its_version_on_record_has_no_fingerprint() -> None:
    assert environment_sources(get_task("walker-run")) == {}
    assert environment_sources(Task("a", "gymnasium", 3, 1, 9, 1, "Pendulum-v1")) == {}
    assert environment_sources(Task("a", "gymnasium", 3, 1, 9, 1, "no_module_of_that:A-v0")) == {}


def test_what_cannot_be_read_is_passed_over(own: OwnEnv) -> None:
    own.write("own_old.py", "print 'of another Python'\n")
    own.write("own_reward.py", "REWARD = 1.0\ndef old():\n    import own_old\n")
    kwargs = json.dumps({"model": "m" * 5000})
    task = replace(get_task(own.task_file()), env_kwargs=kwargs)
    assert set(environment_sources(task)) == {
        "module own_env_source of own", "module own_reward of own"
    }  # fmt: skip
