"""What docs/reliability.md says of workers' deaths, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "reliability" / "workers.py"


def test_workers_that_die_hang_and_fail_at_random_moments_change_nothing():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--faults", "10", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for command in ("collect", "evaluate"):
        (row,) = (line for line in result.stdout.splitlines() if line.startswith(f"| {command} "))
        _, _, *kinds, survived, identical, _ = (cell.strip() for cell in row.split("|"))
        assert sum(map(int, kinds)) == int(survived) >= 5
        rounds, _, of = identical.partition(" of ")
        assert rounds == of
