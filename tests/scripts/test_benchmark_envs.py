"""The speed benchmark runs; its figures are for quiet machines and are not asserted here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_envs.py"


def test_benchmark_prints_a_row_a_task() -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--tasks",
        "pendulum-swingup,mw-reach",
        "--repeats",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows[2:-1]] == ["pendulum-swingup", "mw-reach"]
    assert [row[-1] for row in rows[2:-1]] == ["30%", "10%"]
