"""Stopping at SIGINT or SIGTERM: a long loop at a safe point, everything else at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - the user asked for it
    """The loop has saved its state and stopped because a signal asked for it.

    Attributes:
        signum: the signal; a command line exits with code 128 + signum.
    """

    def __init__(self, signum: int, hint: str) -> None:
        super().__init__(hint)
        self.signum = signum


class Terminated(KeyboardInterrupt):
    """SIGTERM came where no loop was waiting for it."""


@contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Inside, SIGTERM raises :class:`Terminated` as SIGINT raises KeyboardInterrupt.

    So locks are released and records completed on the way out, where the default would end the
    process on the spot. Outside the main thread it does nothing.
    """

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class StopSignals:
    """Context manager that notes SIGINT and SIGTERM instead of dying from them.

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
            for signum in (signal.SIGINT, signal.SIGTERM):
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
