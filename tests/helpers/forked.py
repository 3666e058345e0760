"""Processes of their own without the seconds that a new interpreter takes to import everything.

A forked process begins with what this one has imported. It can be signalled, stopped and killed
like any other, and its exit code is that of the command that it runs.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pwm.cli.main import main

FORK = multiprocessing.get_context("fork")


class Forked:
    """A function in a forked process.

    Args:
        function: gives the exit code; a sentence that it exits with is printed.
        log: a file that takes what is printed.
        group: whether it leads a process group, so that a signal can be sent to its workers too.

    Attributes:
        pid: the process's id.
    """

    def __init__(self, function: Callable[[], int], log: Path, group: bool = False) -> None:
        self._log = log
        log.unlink(missing_ok=True)
        self._process = FORK.Process(target=_run, args=(function, log, group))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.exitcode is not None

    @property
    def printed(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float = 60) -> int:
        """Its exit code, negative for the signal that killed it."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"it did not end: {self.printed}")
        return code

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Waits for something that happens while it runs."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.ended, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.01)


def forked_command(words: list[str], log: Path, group: bool = False) -> Forked:
    """``pwm <words>`` in a forked process."""
    return Forked(partial(main, words), log, group)


def _run(function: Callable[[], int], log: Path, group: bool) -> None:
    if group:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with log.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - until the end
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    try:
        code = function()
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def exit_code_of_fork(function: Callable[[], object]) -> int:
    """Runs a function in a forked process, and gives its exit code."""
    process = FORK.Process(target=function)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def result_of_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a forked process, whose memory begins without what was freed."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise AssertionError("it failed; its traceback stands above") from None
    finally:
        process.join()
