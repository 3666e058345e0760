"""Checks of settings, one sentence a mistake. Names of settings may be dotted."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from pwm.core.errors import PwmError

T = TypeVar("T")

RESUME = ("auto", "never")
SEEDS = 2**32  # what the simulators' generators take


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5, form: str = "'{}'") -> str:
    """``; did you mean 'x'?`` with the known name that is most like one, else nothing."""
    by_folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=cutoff)
    return f"; did you mean {form.format(by_folded[close[0]])}?" if close else ""


def require_at_least(config: Any, least: float, *names: str) -> None:
    """Raise PwmError for the first named setting that is below ``least`` or not finite."""
    _require(config, names, lambda value: value >= least, f"at least {least}")


def require_positive(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is not above 0, or not finite."""
    _require(config, names, lambda value: value > 0, "above 0")


def require_at_most(config: Any, most: float, *names: str) -> None:
    """Raise PwmError for the first named setting that is above ``most`` or not finite."""
    _require(config, names, lambda value: value <= most, f"at most {most}")


def require_share(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is not in 0..1."""
    _require(config, names, lambda value: 0 <= value <= 1, "between 0 and 1")


def require_finite(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is NaN or infinite."""
    _require(config, names, math.isfinite, "finite")


def require_seed(config: Any, *names: str) -> None:
    """Raise PwmError for the first named setting that is no seed, 0 to 2^32 - 1."""
    _require(config, names, lambda value: 0 <= value < SEEDS, f"from 0 to {SEEDS - 1}")


def require_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """Raise PwmError, with the nearest choice, if a setting is none of ``choices``."""
    value = getattr(config, name)
    if value not in choices:
        hint = nearest(str(value), choices)
        listed = f"{', '.join(choices[:-1])} or {choices[-1]}"
        raise PwmError(f"unknown {name} '{value}'{f'{hint} It' if hint else '; it'} is {listed}.")


def require_resume(config: Any, *traces: Path) -> None:
    """Raise PwmError if ``resume`` is unknown, or never where an earlier run left a trace."""
    require_choice(config, "resume", RESUME)
    left = [path for path in traces if path.exists()]
    if config.resume == "never" and left:
        raise PwmError(
            f"{left[0]} is of an earlier run and resume=never; give another out= or delete it."
        )


def require_exists(path: str | None) -> None:
    """Raise PwmError if there is nothing at a path; None is no path."""
    if path is not None and not os.path.exists(path):
        raise PwmError(f"there is no {path}; check the path.")


def require_writable(out: str, name: str = "out") -> None:
    """Raise PwmError if no directory can be made at a path, or the one there takes no files.

    Nothing is written: what counts is the nearest directory that exists.
    """
    if not out.strip():
        raise PwmError(f"{name}= is empty; give the path of a directory.")
    path = Path(out)
    existing = next(p for p in (path, *path.absolute().parents) if os.path.exists(p))
    if not existing.is_dir():
        raise PwmError(f"{name}={out}: {existing} is a file; give a directory.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PwmError(f"{name}={out}: you may not write in {existing}; give another {name}=.")


def error_prefix(name: str, check: Callable[..., Any], *arguments: Any) -> None:
    """Put the stage's name before the message of a check of its settings."""
    try:
        check(*arguments)
    except PwmError as error:
        raise PwmError(f"{name}: {error}") from error


def require_valid(block: str, config: Any) -> None:
    """Raise what ``config.validate`` raises, with the block of settings that the config is of.

    A message that begins with one of its settings, as ``batch_size=0 must be ...`` or ``unknown
    reward_units 'x'``, then has the name that a command line takes, as ``learner.batch_size=0``.
    """
    try:
        config.validate()
    except PwmError as error:
        named = re.match(r"((?:unknown )?)(\w+)(?=[=.]| ')", str(error))
        if named is None or named[2] not in {field.name for field in dataclasses.fields(config)}:
            raise PwmError(f"{block}: {error}") from error
        raise PwmError(f"{named[1]}{block}.{str(error)[named.start(2) :]}") from error


def from_plain(kind: type[T], values: Any) -> T:
    """A dataclass of settings from plain data such as JSON gives.

    Raises:
        PwmError: for entries that it does not have, or values of another type.
    """
    made = _merged(kind, kind.__name__, values)
    assert isinstance(made, kind)
    return made


def with_changes(config: T, changes: Any) -> T:
    """A dataclass of settings with others, at any depth, as plain data.

    Raises:
        PwmError: for entries that it does not have, or values of another type.
    """
    made = _merged(config, type(config).__name__, changes)
    assert isinstance(made, type(config))
    return made


def _merged(config: Any, name: str, values: Any) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(values, Mapping):
        raise PwmError(f"{name} is no mapping.")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), values))
    except (OmegaConfBaseException, OverflowError) as error:
        reason = str(error).split("\n")[0]
        raise PwmError(f"{name} is malformed: {reason:.200}.") from error


def _require(
    config: Any, names: tuple[str, ...], fits: Callable[[float], bool], expected: str
) -> None:
    for name in names:
        value = attrgetter(name)(config)
        if not math.isfinite(value):
            raise PwmError(f"{name}={value} must be a finite number.")
        if not fits(value):
            raise PwmError(f"{name}={value} must be {expected}.")
