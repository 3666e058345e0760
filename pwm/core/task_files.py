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
    actions: {min: -2, max: 2}   # optional: the environment's bounds, a number or one per entry

The fields are returned as plain data, since :mod:`pwm.core.suites`, which has ``Task``, imports
this module.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pwm.core.action_bounds import bounds_fault
from pwm.core.errors import PwmError

TASK_FILE_SUFFIXES = (".yaml", ".yml")

RESERVED_NAMES = ("groups", "checkpoints", "manifest.json", "run.json", "config.yaml")
"""Names of files and directories that commands write beside the directories of tasks."""

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ENV_ID = re.compile(r"([\w.]+:)?([\w.-]+/)?[\w.-]+")
Size = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
_SET_BY_PWM = ("id", "max_episode_steps", "render_mode", "disable_env_checker")


class _Returns(msgspec.Struct, forbid_unknown_fields=True):
    min: float
    max: float

    def __post_init__(self) -> None:
        if not -math.inf < self.min < self.max < math.inf:
            raise ValueError(f"min {self.min:g} must be below max {self.max:g}, and both finite")


class _Actions(msgspec.Struct, forbid_unknown_fields=True):
    min: float | list[float]
    max: float | list[float]

    def bounds(self, action_dim: int) -> dict[str, tuple[float, ...]]:
        given = (b if isinstance(b, list) else [b] * action_dim for b in (self.min, self.max))
        low, high = map(tuple, given)
        if fault := bounds_fault(low, high, action_dim):
            raise ValueError(f"actions: {fault}")
        return {"action_low": low, "action_high": high}


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A description of a task, as it stands in a file."""

    name: str
    env_id: str
    obs_dim: Size
    action_dim: Size
    episode_length: Size
    score: Literal["success"] | _Returns
    env_kwargs: dict[str, Any] | None = None
    action_repeat: Size = 1
    actions: _Actions | None = None

    def __post_init__(self) -> None:
        for key, pattern, example in (
            ("name", TASK_NAME, "my-task"),
            ("env_id", ENV_ID, "Pendulum-v1 or my_package.envs:Mine-v0"),
        ):
            if not pattern.fullmatch(getattr(self, key)):
                raise ValueError(f"{key} {getattr(self, key)!r} is not of the form of {example}")
        if self.name.lower() in RESERVED_NAMES or is_task_file(self.name):
            raise ValueError(f"name {self.name} is that of a file or directory that commands write")
        if taken := [key for key in self.env_kwargs or {} if key in _SET_BY_PWM]:
            raise ValueError(
                f"env_kwargs sets {', '.join(taken)}, which pwm sets itself (episode_length limits "
                "an episode)"
            )

    def fields(self) -> dict[str, Any]:
        """The fields of :class:`pwm.core.suites.Task`."""
        fields = msgspec.structs.asdict(self)
        score, actions = fields.pop("score"), fields.pop("actions")
        low, high = (None, None) if score == "success" else (score.min, score.max)
        try:
            arguments = json.dumps(self.env_kwargs or {}, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"env_kwargs can hold what JSON can: {error}") from error
        own = {"domain": "gymnasium", "env_kwargs": arguments, "score_min": low, "score_max": high}
        return fields | own | (actions.bounds(self.action_dim) if actions else {})


def is_task_file(name: str) -> bool:
    """Whether a name given for a task or a suite is the path of a task file."""
    return name.endswith(TASK_FILE_SUFFIXES)


def split_task_file(name: str) -> tuple[str | None, str | None]:
    """The path of a task file and the task of it that is meant; None for no file, and for all."""
    file, colon, own = name.rpartition(":")
    if colon and is_task_file(file):
        return file, own
    return (name, None) if is_task_file(name) else (None, None)


def read_task_file(path: str | Path) -> list[str | dict[str, Any]]:
    """The tasks of a file: the name of a known one as text, the fields of a described one.

    Nothing in the file is run or looked up: interpolations such as ``${oc.env:HOME}`` are text like
    any other.

    Raises:
        PwmError: if there is no such file, it is no YAML, or an entry is missing, unknown or of a
            value that cannot work; the message names the file and the entry.
    """
    content = _load(path)
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise PwmError(f"{path} lists no task; give one description or name per line.")
    tasks: list[str | dict[str, Any]] = []
    for i, entry in enumerate(entries):
        where = f"{path}, entry {i + 1}" if isinstance(content, list) else str(path)
        if isinstance(content, list) and isinstance(entry, str):
            tasks.append(entry)
            continue
        try:
            tasks.append(msgspec.convert(entry, _Entry).fields())
        except (TypeError, ValueError) as error:
            raise PwmError(
                f"{where} describes no task: {error}. Give name, env_id, obs_dim, action_dim, "
                "episode_length and score (success, or {min: a, max: b} with a < b), and where "
                "needed env_kwargs, action_repeat and actions (min and max); a list may also name "
                "known tasks."
            ) from error
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
