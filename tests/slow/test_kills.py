"""What docs/reliability.md says of kills, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "reliability" / "kills.py"


def test_killed_at_random_moments_nothing_is_lost_and_the_results_are_the_same():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "15", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for command in ("collect", "convert", "pretrain", "extract", "evaluate"):
        (row,) = (line for line in result.stdout.splitlines() if line.startswith(f"| {command} "))
        _, _, kills, lost, identical, _ = (cell.strip() for cell in row.split("|"))
        assert (kills, lost) == ("3", "0")
        rounds, _, of = identical.partition(" of ")
        assert rounds == of
