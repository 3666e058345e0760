"""The script runs under a real torchrun, on sizes that take no time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "weak_scaling.py"


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_prints_a_line_for_each_model(ranks):
    words = ["--models", "tiny", "--batch", "2", "--horizon", "2", "--repeats", "2"]
    command = [sys.executable, str(SCRIPT), "--ranks", str(ranks), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    header, _, line = (row.split(" | ") for row in done.stdout.splitlines())
    assert len(line) == len(header)
    assert line[0] == "| tiny"
    assert (line[4] == "-") == (ranks == 1)
