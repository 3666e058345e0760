"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Such as ``1 task`` or ``1,200 tasks``, of a noun whose plural ends with ``s``."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"
