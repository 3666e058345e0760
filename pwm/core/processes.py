"""Starting worker processes: how many, and from an interpreter that inherits nothing unwanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import ModuleType

from pwm.core.signals import STOPPING

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def is_main_rank() -> bool:
    """Whether this is the process that speaks for all that torchrun started, if it did."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Inside, the environment has these variables; afterwards they are as they were before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def fresh_interpreters() -> Iterator[None]:
    """A process spawned inside gets blocked signals, one BLAS thread and no main module.

    The caller alone gets the signals of `STOPPING`, and decides what is finished first. Its main
    module, which a spawned process imports unless it has no file, may import torch or lack the
    ``__name__`` guard. joblib's way of starting processes, which its own workers pass on, does not
    apply.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    main = sys.modules["__main__"]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    resource_tracker.ensure_running()  # which unblocks SIGINT and SIGTERM when it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    sys.modules["__main__"] = ModuleType("__main__")
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with environment_variables(**dict.fromkeys(_THREAD_VARIABLES, "1")):
            yield
    finally:
        multiprocessing.set_start_method(method, force=True)
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent() -> None:
    """Makes this process end when the one that started it does, even if that one is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
