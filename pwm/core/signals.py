"""Stopping at a signal: a long loop at a safe point, everything else at once.

SIGINT and SIGTERM stop, and so do SIGUSR1 and SIGUSR2, which schedulers such as SLURM send before a
job's time is over, unless another library handles these already.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PRE_EMPTION = (signal.SIGUSR1, signal.SIGUSR2)
STOPPING = (signal.SIGINT, signal.SIGTERM, *PRE_EMPTION)


class Interrupted(Exception):  # noqa: N818 - the user asked for it
    """The loop has saved its state and stopped because a signal asked for it.

    Attributes:
        signum: the signal; a command line exits with code 128 + signum.
    """

    def __init__(self, signum: int, hint: str) -> None:
        super().__init__(hint)
        self.signum = signum


class Terminated(KeyboardInterrupt):
    """A signal other than SIGINT came where no loop was waiting for it.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int = signal.SIGTERM) -> None:
        super().__init__()
        self.signum = signum


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated(signum)


def _is_taken(signum: int) -> bool:
    """Whether another library handles a signal of schedulers, as submitit does."""
    return signum in PRE_EMPTION and signal.getsignal(signum) not in (signal.SIG_DFL, _terminate)


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Inside, SIGTERM and the like raise :class:`Terminated` as SIGINT does KeyboardInterrupt.

    So locks are released and records completed on the way out, where the default would end the
    process on the spot. Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken_over = [s for s in (signal.SIGTERM, *PRE_EMPTION) if not _is_taken(s)]
    previous = {signum: signal.signal(signum, _terminate) for signum in taken_over}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class StopSignals:
    """Context manager that notes the signals of `STOPPING` instead of dying from them.

    The loop looks at :attr:`requested` where it can stop. A second signal has its usual effect,
    unless ``patient``: for a process that may get the same signal by several ways.
    Outside the main thread it does nothing, since Python delivers signals there alone.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested: int | None = None
        self._patient = patient
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for signum in STOPPING:
                if not _is_taken(signum):
                    self._previous[signum] = signal.signal(signum, self._note)
        return self

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.requested = signum
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._previous = {}

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def raise_if_requested(self, hint: str) -> None:
        """Raise :class:`Interrupted` if a signal came; call it after saving."""
        if self.requested is not None:
            raise Interrupted(self.requested, hint)
