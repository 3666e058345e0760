"""Reading a damaged file: what counts as read correctly, refused, or failed."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from pwm.core.errors import PwmError

MEMORY = 2**28  # bytes of resident memory beyond what reading the undamaged file took
SECONDS = 20  # of processor time
_LIMITS = {  # a reader that waits, on a pipe say, takes no processor time
    signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
    signal.SIGALRM: (signal.ITIMER_REAL, 10 * SECONDS),
}
_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect",
    "pickle.find_class",  # of Python's own unpickler, which nothing here may use
)  # fmt: skip


@dataclass
class Tally:
    """Outcomes of damaged copies of one kind of file.

    Attributes:
        read: copies that were read, with the content of the undamaged file.
        refused: copies that were refused with one sentence.
        failures: a line for every other outcome: a traceback, a hang, other data, executed code.
    """

    read: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Damaged copies in all."""
        return self.read + self.refused + len(self.failures)

    def add(self, label: str, outcome: str) -> None:
        """Count what :func:`judged` gave; the label says what was read, if it failed."""
        if outcome == "read":
            self.read += 1
        elif outcome == "refused":
            self.refused += 1
        else:
            self.failures.append(f"{label}, {self.tried + 1}: {outcome}")


def judged(read: Callable[[], Any], right: Callable[[Any], bool]) -> str:
    """What comes of reading: ``read``, ``refused``, or in words how it failed.

    Args:
        read: reads a damaged file.
        right: whether what it gave is what the file may be read as.
    """
    peak = _peak_memory()
    try:
        with watched():
            content = read()
    except PwmError as error:
        return "refused" if "\n" not in str(error) else f"not one sentence: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if _peak_memory() - peak > MEMORY:
        return f"took {(_peak_memory() - peak) >> 20} MiB"
    return "read" if right(content) else "other content than it had"


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_forbidden: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    asks_git = arguments[:1] == ("git",)  # as every run does for the revision it records
    if _forbidden is not None and event in _EVENTS and not asks_git:
        _forbidden.append(f"{event}{arguments!r:.100}")


sys.addaudithook(_audit)


@contextmanager
def watched() -> Iterator[None]:
    """Raise for what a reader must not do, as soon as Python's audit hooks tell, or at its end."""

    def too_long(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"did not end in {SECONDS} s of processor time, or hung")

    global _forbidden
    before = [(number, signal.signal(number, too_long)) for number in _LIMITS]
    left = [(timer, *signal.setitimer(timer, limit)) for timer, limit in _LIMITS.values()]
    _forbidden = []
    try:
        yield
        if _forbidden:
            raise RuntimeError(f"executed {_forbidden}")
    finally:
        _forbidden = None
        for timer, seconds, interval in left:
            signal.setitimer(timer, seconds, interval)
        for number, handler in before:
            signal.signal(number, handler)
