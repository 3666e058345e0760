"""Programs of the offline benchmark: what they say is kept, and they end when asked."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from offline import commands

from pwm.core.errors import PwmError


def test_a_program_that_fails_is_quoted(tmp_path):
    log = tmp_path / "logs" / "program.log"
    commands.run([sys.executable, "-c", "print('well')"], log)
    assert log.read_text() == "well\n"
    with pytest.raises(PwmError, match=rf"ended with 3: no luck \(see {log}\)"):
        commands.run([sys.executable, "-c", "print('no luck'); exit(3)"], log)
    assert log.read_text() == "well\nno luck\n"
    with pytest.raises(PwmError, match="no-such-python cannot be started"):
        commands.run(["no-such-python"], log)


def test_programs_end_when_asked(tmp_path):
    faults: list[PwmError] = []

    def run() -> None:
        try:
            commands.run(["sleep", "60"], tmp_path / "log")
        except PwmError as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    while not commands._running:
        time.sleep(0.01)
    commands.stop()
    thread.join(timeout=30)
    assert "ended with -15" in str(faults[0])
    assert not commands._running
