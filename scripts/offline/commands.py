"""Programs that do the work, each on one thread, with a log of what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pwm.core.errors import PwmError

ROOT = Path(__file__).resolve().parents[2]
_running: set[subprocess.Popen[bytes]] = set()
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def pwm(words: Sequence[str], log: Path) -> None:
    """Run ``pwm`` with these words; it goes on where it was stopped."""
    run([sys.executable, "-m", "pwm", *words], log)


def run(words: Sequence[str], log: Path) -> None:
    """Run a program.

    Args:
        words: the program and its arguments.
        log: gets what it prints, behind what is there.

    Raises:
        PwmError: if it fails, with the last line that it printed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    with log.open("ab") as file:
        try:
            program = subprocess.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
            )
        except OSError as error:
            raise PwmError(f"{words[0]} cannot be started ({error.strerror}).") from error
    _running.add(program)
    try:
        code = program.wait()
    finally:
        _running.discard(program)
    if code:
        lines = log.read_text(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        raise PwmError(f"{Path(words[0]).name} ended with {code}: {last} (see {log}).")


def stop() -> None:
    """Ask all programs that run to end; those of ``pwm`` save first."""
    for program in list(_running):
        program.terminate()
