"""What ``pwm doctor`` says of this machine, and of machines and installations that are odd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from functools import partial
from importlib import metadata
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from pwm.core.errors import PwmError
from pwm.doctor import doctor as command
from pwm.doctor import hardware, simulators, software
from pwm.doctor.doctor import DoctorConfig, Examination, doctor, examine
from pwm.doctor.section import Section
from pwm.doctor.simulators import Trials

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def without_trials(monkeypatch):
    monkeypatch.setattr(command, "begin_trials", partial(Trials, {}))


def test_it_fits_a_screen_and_names_what_an_issue_needs(without_trials, capsys):
    doctor(DoctorConfig())
    shown = capsys.readouterr().out
    assert f"torch {version('torch')}" in shown
    assert str(torch.get_num_threads()) in shown
    for title in ("software", "processor", "threads", "gpu", "rendering", "space"):
        assert f"\n{title}\n" in f"\n{shown}"
    assert "unknown" not in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_json_has_the_same_facts(without_trials, capsys):
    found = doctor(DoctorConfig(format="json"))
    said = json.loads(capsys.readouterr().out)
    assert said["facts"].keys() == found.facts.keys()
    assert said["facts"]["software"]["python"].startswith(sys.version.split()[0])


def test_another_format_is_a_mistake():
    with pytest.raises(PwmError, match="format 'yaml'"):
        doctor(DoctorConfig(format="yaml"))


def test_a_probe_that_fails_is_a_line_among_the_others():
    section = Section()
    section.ask("cores", lambda: str(1 // 0))
    section.ask("name", lambda: "one")
    section.ask("nothing", lambda: None)
    assert section.facts["cores"].startswith("unknown (ZeroDivisionError: ")
    assert section.facts["name"] == "one"
    assert "nothing" not in section.facts


def test_a_section_that_fails_is_a_line_too():
    found = Examination()
    found.add("gpu", lambda: {}["none"])
    found.add("space", lambda: Section({"memory": "much"}, ["slow."], ["broken."]))
    assert found.facts["gpu"]["unknown"].startswith("KeyError: 'none'")
    assert found.facts["space"] == {"memory": "much"}
    assert (found.warnings, found.broken) == (["slow."], ["broken."])


def test_what_is_broken_is_shown_and_ends_with_exit_code_1(monkeypatch, capsys):
    broken = Examination({"software": {"pwm": "1"}}, [], ["torch is not there.", "so is numpy."])
    monkeypatch.setattr(command, "examine", lambda: broken)
    with pytest.raises(PwmError, match=r"^Torch is not there\. So is numpy\.$"):
        doctor(DoctorConfig())
    assert "broken\n  - Torch is not there." in capsys.readouterr().out


_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from pwm.doctor import doctor
doctor.begin_trials = lambda: doctor_trials({})
from pwm.doctor.simulators import Trials as doctor_trials
from pwm.cli.main import main
sys.exit(main(["doctor", "format=json"]))
"""


def test_without_torch_the_rest_is_found_out():
    run = subprocess.run([sys.executable, "-c", _WITHOUT_TORCH], capture_output=True, text=True)
    found = json.loads(run.stdout)
    assert run.returncode == 1
    assert "pwm: error: Torch cannot compute here (ModuleNotFoundError" in run.stderr
    assert found["facts"]["processor"]["cores"]
    assert found["facts"]["processor"]["bfloat16"].startswith("unknown (ModuleNotFoundError")
    assert "GiB" in found["facts"]["space"]["here"]


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("2.9.0+cpu", None),
        ("2.3.1", "torch 2.3.1 is installed, and pwm needs torch>=2.9; pip install 'x'."),
        (None, "torch is not installed, and pwm needs torch>=2.9; pip install 'x'."),
    ],
)
def test_a_version_that_pwm_does_not_work_with_is_broken(version, sentence, monkeypatch):
    monkeypatch.setattr(software, "_version", lambda name: version)
    found = software._faults([Requirement("torch>=2.9")], "x")
    assert found == ([] if sentence is None else [sentence])


def test_of_simulators_only_what_is_there_must_fit(monkeypatch):
    monkeypatch.setattr(software, "_version", {"mujoco": "3.9.0"}.get)
    section, needed = Section(), [Requirement("mujoco==3.3.0"), Requirement("dm-control==1.0.28")]
    assert software._extra(section, "sim", needed) == "mujoco 3.9.0, no dm-control"
    assert [s.split(" is ")[0] for s in section.broken] == ["mujoco 3.9.0"]
    assert software._extra(section, "wandb", [Requirement("wandb>=0.19")]) == "not installed"


def test_an_installation_without_its_checkout_knows_the_same_requirements(tmp_path, monkeypatch):
    project = Path(__file__).parents[3] / "pyproject.toml"
    expected = software._of_project(project)
    lines = ["Metadata-Version: 2.4", "Name: pwm-worldmodels", "Version: 9"]
    lines += [f"Provides-Extra: {extra}" for extra in expected if extra]
    for extra, texts in expected.items():
        marker = f'; extra == "{extra}"' if extra else ""
        lines += [f"Requires-Dist: {text}{marker}" for text in texts]
    (tmp_path / "pwm_worldmodels-9.dist-info").mkdir()
    (tmp_path / "pwm_worldmodels-9.dist-info" / "METADATA").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("pwm-worldmodels") == "9"
    found = {extra: [str(Requirement(t.split(";")[0])) for t in texts]
             for extra, texts in software._as_installed().items()}  # fmt: skip
    assert found == {e: [str(Requirement(t)) for t in texts] for e, texts in expected.items()}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('slow')\nprint('works')", (True, "works")),
        ("print('works', flush=True); import os; os.kill(os.getpid(), 6)", (True, "works")),
        ("import os; os.kill(os.getpid(), 11)", (False, "ended by signal 11")),
        ("raise SystemExit(3)", (False, "ended with exit code 3")),
        ("raise RuntimeError('no driver')", (False, "RuntimeError: no driver")),
        ("import time; time.sleep(60)", (False, "no answer within 1 s")),
    ],
)
def test_a_program_that_dies_or_waits_is_told_of(code, expected, monkeypatch):
    monkeypatch.setattr(simulators, "PATIENCE", 1.0)
    with Trials({"egl": (code, {})}) as trials:
        assert trials.result("egl") == expected


def test_a_simulator_that_is_installed_and_fails_is_broken():
    with Trials({"metaworld": ("raise OSError('no library')", {})}) as trials:
        section = simulators.simulators(trials)
    assert section.facts == {"dm_control": "not installed", "metaworld": "OSError: no library"}
    (sentence,) = section.broken
    assert sentence.startswith("metaworld is installed but does not work (OSError")


def test_pwm_draws_by_the_first_candidate_that_works(monkeypatch):
    monkeypatch.setattr(simulators.sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    programs = {"egl": ("raise OSError('no EGL')", {}), "osmesa": ("print('works')", {})}
    with Trials(programs) as trials:
        facts = simulators.rendering(trials).facts
    assert (facts["egl"], facts["pwm draws by"]) == ("OSError: no EGL", "osmesa")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert simulators._chosen({"egl": False, "osmesa": True}).startswith("nothing, egl do")


def test_more_threads_than_a_container_may_use_are_told_of(tmp_path, monkeypatch):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(hardware, "_CPU_QUOTA", quota)
    monkeypatch.setattr(hardware, "available_cores", lambda: 8)
    assert hardware.more_threads_than_cores(8) is None
    quota.write_text("max 100000\n")
    assert hardware.more_threads_than_cores(8) is None
    quota.write_text("250000 100000\n")
    assert "8 threads" in hardware.more_threads_than_cores(8)
    assert "OMP_NUM_THREADS=2 " in hardware.more_threads_than_cores(8)


def test_a_disk_that_is_nearly_full_is_told_of(tmp_path, monkeypatch):
    section = Section()
    monkeypatch.setattr(hardware.shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**29))
    assert hardware._disk(section, tmp_path / "not" / "yet").endswith("0.5 GiB of 1,024.0 GiB free")
    assert section.warnings[0].startswith("only 0.5 GiB are free on the disk of ")


def test_without_a_compiler_the_kernels_are_told_of(tmp_path, monkeypatch):
    from pwm.runtime.kernels import native

    section = Section()
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("PWM_CACHE", str(tmp_path))
    native.library.cache_clear()
    try:
        assert hardware._kernels(section) == "no"
    finally:
        native.library.cache_clear()
    assert "no-such-compiler" in section.warnings[0]


@pytest.mark.slow
def test_simulators_and_backends_are_really_tried(monkeypatch):
    monkeypatch.setattr(simulators, "PATIENCE", 120.0)  # on a busy machine
    found = examine()
    assert found.facts["simulators"] == {"dm_control": "works", "metaworld": "works"}
    assert {"egl", "osmesa", "glfw", "pwm draws by"} <= found.facts["rendering"].keys()
    assert not found.broken
