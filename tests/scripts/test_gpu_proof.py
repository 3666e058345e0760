"""The driver of scripts/gpu_proof.py with checks that take no time, and what it says of them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import zipfile
from importlib import import_module
from pathlib import Path

import gpu_proof
import pytest
from gpu import table, wheels
from gpu.commands import gpu_tests
from gpu.driver import Check, Driver

SAY = """
import json, os, sys, time
def say(**facts):
    with open(os.environ['CHECK_FACTS'], 'a') as f:
        f.write(json.dumps(facts) + chr(10))
"""
CODE = {
    "well": "say(a={'holds': True})",
    "false": "say(a={'holds': False}); say(b=1)",
    "breaks": "say(a=1); print('printed'); sys.exit(3)",
    "hangs": "say(a=1); time.sleep(60)",
}


def driver(tmp_path, code=CODE, tell=lambda _: None, **options) -> Driver:
    def command(check):
        return [sys.executable, "-S", "-c", SAY + code[check.name]]

    return Driver(tmp_path / "out", command, tell=tell, **options)


def results(tmp_path):
    return json.loads((tmp_path / "out/results.json").read_text())


def test_a_check_that_is_too_slow_or_breaks_keeps_what_it_said(tmp_path):
    checks = [Check(name, 2 if name == "hangs" else 60) for name in CODE]
    assert driver(tmp_path, jobs=4).run(checks) == 1
    found = results(tmp_path)
    statuses = {name: found[name]["status"] for name in CODE}
    assert statuses == {"well": "ok", "false": "failed", "breaks": "failed", "hangs": "too slow"}
    assert found["hangs"]["facts"] == found["breaks"]["facts"] == {"a": 1}
    assert found["breaks"]["code"] == 3
    assert found["false"]["false"] == ["a"] and found["false"]["facts"]["b"] == 1
    assert "printed" in (tmp_path / "out/log.txt").read_text()


def test_all_well_is_zero_and_nothing_is_started_that_has_no_time(tmp_path):
    assert driver(tmp_path).run([Check("well", 60)]) == 0
    assert driver(tmp_path, budget=5).run([Check("well", 60, least=6)]) == 1
    assert results(tmp_path)["well"]["status"] == "skipped"


def test_what_is_timed_runs_alone(tmp_path):
    file = tmp_path / "order"
    line = "open({0!r}, 'a').write('{1} '); time.sleep(0.1); open({0!r}, 'a').write('/{1} ')"
    code = {name: line.format(str(file), name) for name in ("x", "timed", "y")}
    checks = [Check("x", 60), Check("timed", 60, alone=True), Check("y", 60)]
    assert driver(tmp_path, code, jobs=2).run(checks) == 0
    order = file.read_text().split()
    assert order[-2:] == ["timed", "/timed"]
    assert set(order[:4]) == {"x", "/x", "y", "/y"}


def test_a_driver_that_is_stopped_ends_its_checks_and_what_they_started(tmp_path):
    code = {"hangs": "say(pid=os.getpid()); os.system('sleep 60')", "later": "say(a=1)"}

    def stop(line):
        if "pid" in line:
            raise SystemExit

    with pytest.raises(SystemExit):
        driver(tmp_path, code, stop).run([Check("hangs", 60), Check("later", 60)])
    found = results(tmp_path)
    assert (found["hangs"]["status"], found["later"]["status"]) == ("stopped", "skipped")
    with pytest.raises(ProcessLookupError):
        _wait_for_the_end_of(found["hangs"]["facts"]["pid"])


def _wait_for_the_end_of(group: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # the system reaps what lost its parent
        os.killpg(group, 0)
        time.sleep(0.01)


def test_every_check_and_part_is_there():
    for name in gpu_proof.ORDER:
        kind, _, given = name.partition(":")
        module, function, parts = gpu_proof.FUNCTIONS[kind]
        found = import_module(module)
        assert callable(getattr(found, function))
        if given:
            assert parts is not None
            assert set(given.split(",")) <= set(getattr(found, parts))


def test_checks_that_time_run_alone_and_the_others_have_time():
    checks = gpu_proof.chosen(())
    assert {c.name.split(":")[0] for c in checks if c.alone} == {
        "speed",
        "agents",
        "locomotion",
        "windows",
        "ranks",
    }
    assert all(check.most >= 150 for check in checks if check.name not in ("env", "windows"))
    both = [check.name for check in gpu_proof.chosen(["proof", "timing"])]
    assert sorted(both) == sorted(gpu_proof.ORDER)
    assert [check.name for check in gpu_proof.chosen(["tests", "env"])] == ["tests", "env"]
    with pytest.raises(SystemExit, match="there is no check parity"):
        gpu_proof.chosen(["parity:float32"])


def test_the_tests_that_need_a_gpu_are_found():
    root = Path(gpu_proof.__file__).parents[1]
    assert "tests/pwm/data/windows/test_sampler.py" in gpu_tests()
    for path in gpu_tests():
        assert re.search(r"mark\.gpu\b", (root / path).read_text())


def test_the_table_has_what_was_timed_and_what_was_claimed():
    timed = {"what": "planner", "ms": 70.5, "target_ms": 80, "first_s": 21.0, "peak_gb": 2.5}
    facts = {"planner": timed, "planner, kernels": {"count": 3}}
    text = table.of(
        {
            "speed": {"status": "ok", "facts": facts},
            "parity": {"status": "failed", "facts": {"follows": {"holds": False, "off": 0.5}}},
            "broken": {"status": "failed", "facts": {"part": {"error": "E: no"}}},
        },
        "a card",
    )
    assert "GPU: a card" in text
    assert "| planner | 70.5 | 80 | - | 21.0 | - | 2.5 |" in text
    assert "| parity | follows | NO | off 0.5 |" in text
    assert "| broken | part | NO | error E: no |" in text
    assert "Not well: parity (failed), broken (failed)" in text


def test_wheels_are_of_the_installed_versions_for_the_other_machine(tmp_path):
    versions = dict.fromkeys((*wheels.CARRIED, *wheels.BUILT), "1.2")
    download, build = wheels.commands(tmp_path, "3.12", versions)
    assert download[download.index("--python-version") + 1] == "3.12"
    assert "msgspec==1.2" in download and "--no-deps" in download
    assert build[-1] == "antlr4-python3-runtime==1.2"


def test_of_dm_control_only_what_its_suite_needs_is_carried(tmp_path):
    with zipfile.ZipFile(wheels.slim("dm-control", tmp_path)) as archive:
        names = archive.namelist()
    assert {"dm_control/suite/walker.py", "dm_control/suite/common/materials.xml"} <= set(names)
    assert any(name.endswith("dist-info/RECORD") for name in names)
    assert not [name for name in names if "dog_assets" in name or "locomotion/" in name]
