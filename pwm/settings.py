"""Checks of numbers in settings, one sentence a mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pwm.errors import PwmError


def require_at_least(config: Any, least: float, *names: str) -> None:
    """Raise PwmError for the first named setting that is below ``least`` or not a number."""
    _require(config, names, lambda value: value >= least, f"at least {least}")


def require_positive(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is not above 0."""
    _require(config, names, lambda value: value > 0, "above 0")


def require_share(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is not in 0..1."""
    _require(config, names, lambda value: 0 <= value <= 1, "between 0 and 1")


def _require(
    config: Any, names: tuple[str, ...], fits: Callable[[float], bool], expected: str
) -> None:
    for name in names:
        value = getattr(config, name)
        if not fits(value):
            raise PwmError(f"{name}={value} must be {expected}.")
