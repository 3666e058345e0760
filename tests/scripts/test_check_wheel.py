"""The wheel alone, in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import check_wheel
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", out, ROOT]
    subprocess.run(command, check=True)
    return next(out.glob("pwm_worldmodels-*.whl"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_runs_a_quickstart(wheel, tmp_path):
    assert check_wheel.check(wheel, tmp_path, borrow=True) == []


def test_a_command_runs_without_the_checkouts_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "import os; print(os.environ.get('PYTHONPATH'), os.getcwd())"
    said = check_wheel._run([sys.executable, "-S", "-c", code], tmp_path)
    assert said == f"None {os.path.realpath(tmp_path)}"
    with pytest.raises(SystemExit, match="exit code 3"):
        check_wheel._run([sys.executable, "-S", "-c", "raise SystemExit(3)"], tmp_path)
