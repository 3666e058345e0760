"""Tasks that are in no suite, described by a small YAML file.

A file describes one task, or is a list of descriptions and of names of known tasks::

    name: my-pendulum            # also the name of its folder in stores and policy directories
    env_id: Pendulum-v1          # what gymnasium.make takes; package.module:Id imports it first
    env_kwargs: {g: 9.81}        # optional
    obs_dim: 3                   # of the flattened observation
    action_dim: 1
    episode_length: 200          # decision steps
    action_repeat: 1             # environment steps in a decision step, 1 by default
    score: {min: -1500, max: 0}  # returns that score 0 and 100; or `score: success`

This module knows the file, not the task: it gives checked fields, in plain data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pwm.core.errors import PwmError

TASK_FILE_SUFFIXES = (".yaml", ".yml")

RESERVED_NAMES = ("groups", "checkpoints", "manifest.json", "run.json", "config.yaml")
"""Names of files and directories that commands write beside the directories of tasks."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ENV_ID = re.compile(r"([\w.]+:)?([\w.-]+/)?[\w.-]+")
_SIZES = ("obs_dim", "action_dim", "episode_length", "action_repeat")
_NEEDED = ("name", "env_id", "obs_dim", "action_dim", "episode_length", "score")
_KEYS = (*_NEEDED, "env_kwargs", "action_repeat")
LARGEST_SIZE = 2**20
_OWN_ARGUMENTS = ("id", "max_episode_steps", "render_mode", "disable_env_checker")


def is_task_file(name: str) -> bool:
    """Whether a name given for a task or a suite is the path of a task file."""
    return name.endswith(TASK_FILE_SUFFIXES)


def read_task_file(path: str | Path) -> list[str | dict[str, Any]]:
    """The tasks of a file: the name of a known one as text, the fields of an own one.

    The fields are those of :class:`pwm.core.suites.Task`. Nothing in the file is run or looked up:
    interpolations such as ``${oc.env:HOME}`` are text like any other.

    Raises:
        PwmError: if there is no such file, it is no YAML, or an entry is missing, unknown or of a
            value that cannot work; the message names the file and the entry.
    """
    content = _load(path)
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise PwmError(f"{path} lists no task; give one description or name a line.")
    tasks: list[str | dict[str, Any]] = []
    for i, entry in enumerate(entries):
        where = f"{path}, entry {i + 1}" if isinstance(content, list) else str(path)
        if isinstance(content, list) and isinstance(entry, str):
            tasks.append(entry)
        elif isinstance(entry, Mapping):
            tasks.append(_fields(entry, where))
        else:
            raise PwmError(
                f"{where} is no task: give the entries {', '.join(_KEYS)}, or in a list the name "
                "of a known task."
            )
    return tasks


def _load(path: str | Path) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not Path(path).is_file():
        raise PwmError(f"there is no task file {path}; give the path of a YAML file.")
    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PwmError(f"{path} is no YAML of a task ({reason}); correct it.") from error


def _fields(entry: Mapping[Any, Any], where: str) -> dict[str, Any]:
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise PwmError(f"{where}: unknown {', '.join(unknown)}; a task has {', '.join(_KEYS)}.")
    missing = [key for key in _NEEDED if entry.get(key) is None]
    if missing:
        raise PwmError(f"{where}: {', '.join(missing)} missing; a task needs {', '.join(_NEEDED)}.")
    sizes = {key: _size(entry.get(key, 1), key, where) for key in _SIZES}
    low, high = _score(entry["score"], where)
    return {
        "name": _name(entry["name"], where),
        "domain": "gymnasium",
        **sizes,
        "env_id": _text(entry["env_id"], "env_id", ENV_ID, where),
        "env_kwargs": _arguments(entry.get("env_kwargs"), where),
        "score_min": low,
        "score_max": high,
    }


def _name(value: object, where: str) -> str:
    name = _text(value, "name", TASK_NAME, where)
    if name.lower() in RESERVED_NAMES or is_task_file(name):
        raise PwmError(
            f"{where}: name {name} is that of a file or directory that commands write; give your "
            "task another name."
        )
    return name


def _text(value: object, key: str, pattern: re.Pattern[str], where: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        example = "my-task" if key == "name" else "Pendulum-v1 or my_package.envs:Mine-v0"
        raise PwmError(f"{where}: {key} {value!r} is not of the form of {example}.")
    return value


def _size(value: object, key: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_SIZE:
        raise PwmError(f"{where}: {key} is {value!r}; give a whole number from 1.")
    return value


def _score(value: object, where: str) -> tuple[float, float] | tuple[None, None]:
    if value == "success":
        return None, None
    if isinstance(value, Mapping) and set(value) == {"min", "max"}:
        bounds = [_number(value["min"]), _number(value["max"])]
        if None not in bounds and bounds[0] < bounds[1]:  # type: ignore[operator]
            return bounds[0], bounds[1]  # type: ignore[return-value]
    raise PwmError(
        f"{where}: score is {value!r}; give 'success', or the returns that score 0 and 100 as "
        "{min: a, max: b} with a < b."
    )


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _arguments(value: object, where: str) -> str:
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise PwmError(f"{where}: env_kwargs is {value!r}; give names with values.")
    taken = [key for key in value if key in _OWN_ARGUMENTS]
    if taken:
        raise PwmError(
            f"{where}: env_kwargs sets {', '.join(taken)}, which pwm sets itself; leave it out "
            "(episode_length limits an episode)."
        )
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PwmError(
            f"{where}: env_kwargs can hold text, numbers, lists and names with values ({error})."
        ) from error
