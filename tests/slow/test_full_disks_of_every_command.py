"""What docs/reliability.md says of full disks, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

SCRIPT = Path(__file__).parents[2] / "scripts" / "reliability" / "full_disk.py"


def test_every_command_names_the_file_keeps_what_was_there_and_goes_on():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--tries", "2", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "lets no user mount" in result.stderr:
        pytest.skip("this system lets no user mount")
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[1:4] for row in rows] == [["2", "0", "2 of 2"]] * 9
