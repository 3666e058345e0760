"""Starting worker processes: how many, and from an interpreter that inherits nothing unwanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType

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
def fresh_interpreters() -> Iterator[None]:
    """A process spawned inside gets blocked signals, one BLAS thread and no main module.

    SIGINT and SIGTERM stay with the caller, which decides what is finished first. The caller's main
    module, which a spawned process imports unless it has no file, may import torch or lack the
    ``__name__`` guard. Nor does it know joblib's way of starting processes, which those of joblib's
    hand on.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    main = sys.modules["__main__"]
    variables = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.modules["__main__"] = ModuleType("__main__")
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)
        sys.modules["__main__"] = main
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent() -> None:
    """Has this process end when the one that started it does, even if that one is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
