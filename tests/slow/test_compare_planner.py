"""The comparison of policies and planners, on the world model that ships."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]


def test_scores_and_times_of_what_ships(tmp_path):
    run = shutil.copytree(ROOT / "checkpoints" / "quick", tmp_path / "run")
    words = ["--tasks", "mw-reach", "--episodes", "1", "--device", "cpu"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compare_planner.py"), str(run), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = dict(
        line.strip("│").split("│", 1)
        for line in result.stdout[result.stdout.index("┡") :].splitlines()
        if line.startswith("│")
    )
    table = {name.strip(): [float(v) for v in cells.split("│")] for name, cells in rows.items()}
    assert table["mw-reach"] == table["mean"] == [100, 100]
    acting, planning = table["ms a decision (1 at once)"]
    assert planning > 10 * acting > 0
