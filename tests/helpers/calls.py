"""Having something happen at a moment of a run: just before a function is called."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest


def terminate() -> None:
    """Send this process SIGTERM, as what ends a job does."""
    signal.raise_signal(signal.SIGTERM)


def before_call(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    action: Callable[[], object],
    *numbers: int,
) -> None:
    """Does it before those calls of a module's or a class's function that have these numbers."""
    original, calls = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in numbers:
            action()
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
