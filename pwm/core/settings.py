"""Facts about a setting, said where it is declared, and what follows from them.

A config is a dataclass; ``setting(...)`` declares a field of it with facts beside the default::

    data: str = setting(MISSING, input_path=True)
    device: str = setting("auto", may_change=True)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from pwm.core.validation import require_exists

T = TypeVar("T")

Choices = Mapping[str, str | None]
"""By group of presets, which is chosen unless the command line says otherwise."""

_INPUT, _WORDS, _CHANGES = "input_path", "words", "may_change"

_NO_DEFAULT: Any = dataclasses.MISSING


def setting(
    default: Any = _NO_DEFAULT,
    *,
    default_factory: Any = _NO_DEFAULT,
    input_path: bool = False,
    words: Collection[str] = (),
    may_change: bool = False,
) -> Any:
    """A field of a config.

    Args:
        default: as for :func:`dataclasses.field`.
        default_factory: likewise.
        input_path: whether it is a path to read, or a list of such paths.
        words: values of an input path that are no paths but have a meaning of their own.
        may_change: whether a run that goes on may have another value than when it began.
    """
    facts = {_INPUT: input_path, _WORDS: tuple(words), _CHANGES: may_change}
    return dataclasses.field(default=default, default_factory=default_factory, metadata=facts)


def all_may_change(config: type[T]) -> type[T]:
    """A class decorator: every setting of the config may change when a run goes on."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        field.metadata = MappingProxyType({**field.metadata, _CHANGES: True})
    return config


def innermost(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested plain data that are no blocks, by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from innermost(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@cache
def block_types(config: type) -> Mapping[str, type]:
    """The configs that lie within a config, by the setting that holds them."""
    hints = get_type_hints(config)
    names = [field.name for field in dataclasses.fields(config)]
    return {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}


def block_type(config: type, name: str) -> type | None:
    """The config at a dotted name within a config; None if there is none."""
    kind: type | None = config
    for part in name.split("."):
        kind = block_types(kind).get(part) if kind is not None else None
    return kind


@cache
def changeable(config: type) -> frozenset[str]:
    """Dotted names of the settings that may change; that of a block stands for all in it."""
    found = {f.name for f in dataclasses.fields(config) if f.metadata.get(_CHANGES)}
    for block, kind in block_types(config).items():
        if block not in found:
            found |= {f"{block}.{name}" for name in changeable(kind)}
    return frozenset(found)


def input_settings(config: Any) -> list[str]:
    """Names of a config's settings that are paths to read; of an instance or its type."""
    return [f.name for f in dataclasses.fields(config) if f.metadata.get(_INPUT)]


def input_paths(config: Any) -> list[str]:
    """The paths that a config reads from."""
    found: list[str] = []
    for field in dataclasses.fields(config):
        if field.metadata.get(_INPUT):
            value = getattr(config, field.name)
            given = value if isinstance(value, list) else [value]
            found += [p for p in given if p is not None and p not in field.metadata[_WORDS]]
    return found


def require_inputs(config: Any, made: Iterable[str] = ()) -> None:
    """Raise PwmError for the first path that a config reads from and that is not there.

    Args:
        config: of one command.
        made: directories that earlier stages will have made; what lies in them counts as there.
    """
    later = [Path(os.path.abspath(path)) for path in made]
    for path in input_paths(config):
        if not any(Path(os.path.abspath(path)).is_relative_to(directory) for directory in later):
            require_exists(path)
