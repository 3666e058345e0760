"""The text of a setting, which Hydra's grammar would refuse or take for something else.

In that grammar ``=``, ``#``, ``~``, quotes, brackets and letters with accents have no place in
plain text, and ``1e3`` is a number. Here the text of a path or name is what stands behind the first
``=``, and a list may do without its brackets, which some shells expand.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable
from typing import Any, get_origin

from hydra.core.override_parser.types import Override

_SETTING = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
_TASKS = ("suite", "tasks")
_QUOTES = "'\""

Parse = Callable[[str], Override | None]
"""Hydra's reading of a word; None for one that it cannot read."""


def key_and_value(word: str) -> tuple[str, str] | None:
    """The name and the text of a word that sets a setting; None for any other."""
    match = _SETTING.fullmatch(word)
    return (match[1], match[2]) if match else None


def as_hydra_reads(key: str, value: str, kind: Any, several: bool, parse: Parse) -> str:
    """A word by which Hydra understands what a setting's text means.

    Args:
        key: the setting's dotted name.
        value: the text behind ``=``.
        kind: the setting's declared type.
        several: whether a setting may have several values, joined with commas, one for each run.
        parse: reads a word.
    """
    word = f"{key}={value}"
    read = parse(word)
    is_list = get_origin(kind) is list
    is_tasks = kind is Any and key.rpartition(".")[2] in _TASKS
    if value == "" and is_list:
        return f"{key}=[]"
    if value in ("", "null") or not (kind is str or is_list or is_tasks):
        return word
    if several and read is not None and read.is_sweep_override():
        return word
    if value[0] in "[{" or is_quoted(value):
        return word if read is not None else f"{key}={_quoted_list(value)}"
    if is_list:
        return f"{key}=[{value}]" if parse(f"{key}=[{value}]") else f"{key}=[{_each(value)}]"
    if several and "," in value:
        return f"{key}={_each(value)}"
    if kind is str and "," in value and read is not None:
        return word  # several values, which is refused
    return f"{key}={quoted(_expanded(value))}"


def is_quoted(value: str) -> bool:
    """Whether quotes enclose a text."""
    return len(value) > 1 and value[0] in _QUOTES and value[-1] == value[0]


def quoted(text: str) -> str:
    """A text in quotes, as Hydra reads it back."""
    escaped = re.sub(r'(\\*)"', lambda match: 2 * match[1] + r"\"", text)
    return '"' + re.sub(r"(\\+)$", lambda match: 2 * match[1], escaped) + '"'


def hydra_value(value: Any) -> str:
    """A value of plain data as Hydra reads it back."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(hydra_value, value))}]"
    return json.dumps(value)


def for_a_shell(key: str, value: str) -> str:
    """A word with its text in quotes, as it is to be typed."""
    return shlex.quote(f"{key}={quoted(value)}")


def _quoted_list(value: str) -> str:
    """A text in brackets with each of its parts in quotes; any other text in quotes."""
    if value[0] == "[" and value[-1] == "]":
        return f"[{_each(value[1:-1])}]"
    return quoted(value)


def _each(value: str) -> str:
    parts = (part.strip() for part in value.split(","))
    return ",".join(part if is_quoted(part) else quoted(_expanded(part)) for part in parts if part)


def _expanded(path: str) -> str:
    return os.path.expanduser(path) if path.startswith("~/") else path
