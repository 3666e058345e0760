"""Jobs for worker pools under test, importable in workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.worker_pool import Caller


def square(caller: Caller, number: int) -> int:
    return number**2


def whose(caller: Caller) -> int:
    return os.getpid()


def threads(caller: Caller) -> str:
    return os.environ["OMP_NUM_THREADS"]


def meet(caller: Caller, directory: str, name: int, everyone: int) -> None:
    """Ends when so many have begun."""
    (Path(directory) / str(name)).touch()
    while len(list(Path(directory).iterdir())) < everyone:
        caller.at(0)
        time.sleep(0.01)


def live_slowly(caller: Caller, seconds: float) -> str:
    """Takes its time, and says so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        caller.at(0)
        time.sleep(0.01)
    return "done"


def fault(caller: Caller, kind: str, flag: str, times: int) -> str:
    """Dies, hangs or fails at its second part, the first times that it runs."""
    caller.at(1)
    before = Path(flag).stat().st_size if Path(flag).exists() else 0
    if before < times:
        with Path(flag).open("a") as file:
            file.write("x")
        if kind == "died":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hung":
            time.sleep(60)
        raise ZeroDivisionError("the sky fell")
    return kind


def mistake(caller: Caller) -> None:
    caller.at(1)
    raise PwmError("that cannot work.")


def add_up(caller: Caller, numbers: list[int]) -> list[Any]:
    """Asks for every number's square."""
    return [caller.ask(number) for number in numbers]


def ask_then_die(caller: Caller, flag: str) -> Any:
    answers = [caller.ask(1)]
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [*answers, caller.ask(2)]


def count_up(caller: Caller, number: int, times: int, seconds: float, flag: str) -> int:
    """Asks for the next number; the last of three dies once before it asks at all."""
    if number == 20 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    for _ in range(times):
        time.sleep(seconds)
        number = caller.ask(number)
    return number
