"""Fingerprints of what a result is made from: they tell when that was remade under its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pwm.core.errors import PwmError
from pwm.core.suites import Task

MadeOf = dict[str, str]
"""What a result is made from: how people call each part, and its fingerprint."""


def fingerprint(content: Any) -> str:
    """16 hexadecimal digits that follow from bytes, or from what JSON can hold."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def definitions(tasks: Iterable[Task]) -> MadeOf:
    """The descriptions of user-defined tasks; those of the suites never change."""
    own = (task for task in tasks if task.domain == "gymnasium")
    return {f"the description of {task.name}": fingerprint(task.table()) for task in own}


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the parts that both know and that differ."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def require_unchanged(owner: object, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise PwmError if something that ``owner`` is made from has been made anew since."""
    if names := changed(before, now):
        raise PwmError(
            f"{owner} was made before {in_words(names)} changed, and its content is of before; put "
            "that back as it was to go on, or give another out= to make it of what is there now."
        )


def in_words(names: Iterable[str]) -> str:
    """Names as part of a sentence, without repeats."""
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last
