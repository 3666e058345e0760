"""Configs with a few settings changed."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def changed(config: T, **changes: Any) -> T:
    """A config with other settings; those of a block are a mapping."""
    made = {
        name: changed(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **made)
