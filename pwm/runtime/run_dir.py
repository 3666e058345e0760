"""Run directories: the resolved config, the versions and the seed beside what a command wrote."""

from __future__ import annotations

import copy
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.fingerprints import MadeOf, require_unchanged
from pwm.core.layout import MANIFEST_NAME
from pwm.core.locks import LOCK_NAME, DirectoryLock
from pwm.core.progress import console
from pwm.core.renamed_settings import tell_renames, with_current_names
from pwm.core.settings import changeable, innermost, input_settings
from pwm.core.validation import require_resume, require_writable
from pwm.core.versions import git_revision, versions
from pwm.runtime.inputs import is_same_input

_CONFIG, _RUN = "config.yaml", "run.json"
_TASKS = ("suite", "tasks")  # settings that name tasks
_MOST_RESOLVED = 64  # configs of which the plain data is kept
_resolved: dict[tuple[type, str], dict[Any, Any]] = {}


def require_output(config: Any) -> None:
    """Raise PwmError if a run of this config cannot be held in its ``out`` directory.

    That is, if nothing can be written there, or if it holds an episode store, whose files are not
    a run's.
    """
    require_writable(config.out)
    if (Path(config.out) / MANIFEST_NAME).exists():
        raise PwmError(f"out={config.out} is an episode store; give a run its own directory.")


@contextmanager
def open_run(
    directory: Path,
    command: str,
    config: Any,
    made_of: Mapping[str, str] | None = None,
    settled: Collection[str] = (),
) -> Iterator[Path]:
    """Hold a run directory for writing, with the config and the versions recorded in it.

    Args:
        directory: created if need be.
        command: recorded, and part of the check on resuming.
        config: a structured config; written as ``config.yaml``. Its ``resume`` is ``"auto"`` to go
            on in a directory that was made with the same config, or ``"never"`` to refuse one that
            holds a run. A setting that there was none of then counts as its default, and one by
            an old name as that of today. What is declared with ``may_change`` may differ, and so
            may ``resume``, and ``out``, since a run's directory may be moved. A path to read may
            be written otherwise, where it leads to the same content.
        made_of: fingerprints of what the run is made from, recorded with those of before.
        settled: the names of those that there is a result of, and which may not have changed.

    A mistake that is found within, before the first file is written, takes back the records of a
    run that it began: the command with the mistake mended then has the directory to itself.

    Raises:
        PwmError: if another process writes there, the directory holds another run, or what its
            results were made from has changed.
    """
    require_resume(config, directory / _CONFIG)
    make_directory(directory)
    with DirectoryLock(directory), _nothing_of_mistakes(directory):
        resolved, made_of = resolved_config(config), dict(made_of or {})
        was = _check_same_run(directory, command, resolved, type(config), made_of)
        if settled and not was and (directory / _RUN).is_file():
            console.print(
                f"What {directory} was made from is not on record; it is kept.", soft_wrap=True
            )
        require_unchanged(directory, was, {name: made_of[name] for name in settled})
        made_of = was | made_of
        write_atomically(
            directory / _CONFIG, OmegaConf.to_yaml(OmegaConf.create(resolved)).encode()
        )
        started, before = time.time(), float(read_run(directory).get("seconds") or 0.0)
        _record(directory, command, resolved, made_of, started, before, finished=False)
        finished = False
        try:
            yield directory
            finished = True
        finally:
            seconds = before + time.time() - started
            with nullcontext() if finished else suppress(PwmError):  # what ended it counts
                _record(directory, command, resolved, made_of, started, seconds, finished)


@contextmanager
def _nothing_of_mistakes(directory: Path) -> Iterator[None]:
    """Remove the records of a run that began within, and came to a mistake and to nothing else."""
    begins = not (directory / _CONFIG).exists()
    try:
        yield
    except PwmError:
        if begins and {path.name for path in directory.iterdir()} <= {_CONFIG, _RUN, LOCK_NAME}:
            (directory / _CONFIG).unlink(missing_ok=True)
            (directory / _RUN).unlink(missing_ok=True)
        raise


def resolved_config(config: Any) -> dict[Any, Any]:
    """A structured config, or its type for the defaults, as plain data for JSON or YAML.

    OmegaConf takes long over it, and a run asks for that of one config several times.
    """
    key = type(config), repr(config)
    if key not in _resolved:
        if len(_resolved) == _MOST_RESOLVED:
            del _resolved[next(iter(_resolved))]
        resolved = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
        assert isinstance(resolved, dict)
        _resolved[key] = resolved
    return copy.deepcopy(_resolved[key])


def _check_same_run(
    directory: Path,
    command: str,
    config: dict[Any, Any],
    config_type: type,
    made_of: Mapping[str, str],
) -> MadeOf:
    """What the run in a directory was made from; raises PwmError if it is another run."""
    file = directory / _CONFIG
    if not file.is_file():
        return {}
    run = read_run(directory)
    maker, was = run.get("command", command), dict(run.get("made_of") or {})
    if maker != command:
        raise PwmError(f"{directory} holds a run of `pwm {maker}`; give another out=.")
    before, renames = with_current_names(config_type, read_config(directory))
    tell_renames(renames, str(file))
    differences = changed_settings(config_type, before, config, was, made_of)
    may_change = {"out", "resume", *changeable(config_type)}
    changed = [
        f"{key}: {old} -> {new}"
        for key, (old, new) in differences.items()
        if not may_change & _with_blocks(key)
    ]
    if changed:
        raise PwmError(
            f"{directory} holds a run with other settings ({'; '.join(changed)}); repeat those "
            "settings to go on with it, or give another out=."
        )
    return was


def changed_settings(
    config_type: type,
    before: Mapping[Any, Any],
    now: Mapping[Any, Any],
    made_before: Mapping[str, str],
    made_now: Mapping[str, str],
) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by dotted name, with their values before and now.

    Args:
        config_type: of the config.
        before: its settings as plain data; one that there was none of counts as its default.
        now: likewise.
        made_before: what was made with them.
        made_now: likewise. A path that is written otherwise is no difference where it leads to the
            same content.
    """
    new = dict(innermost(now))
    added = {k: v for k, v in innermost(resolved_config(config_type)) if k in new}
    old = added | dict(innermost(before))
    paths = input_settings(config_type)
    return {
        key: (old.get(key), new.get(key))
        for key in sorted({*old, *new})
        if not _is_same(*(_value(settings, key) for settings in (old, new)))
        and not (key in paths and is_same_input(key, made_before, made_now))
    }


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """A setting's value; names of tasks that commas join as the list that they stand for."""
    value = settings.get(key)
    if isinstance(value, str) and key.rpartition(".")[2] in _TASKS:
        return [name.strip() for name in value.split(",")]
    return value


def _is_same(old: Any, new: Any) -> bool:
    """Whether two values are equal, or two ways to write the path of one file."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(map(_is_same, old, new))
    if isinstance(old, str) and isinstance(new, str) and os.path.exists(old):
        return os.path.realpath(old) == os.path.realpath(new)
    return bool(old == new)


def _with_blocks(key: str) -> set[str]:
    """A dotted name, and those of the blocks that it lies in."""
    parts = key.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts) + 1)}


def _record(
    directory: Path,
    command: str,
    config: dict[Any, Any],
    made_of: MadeOf,
    started: float,
    seconds: float,
    finished: bool,
) -> None:
    record = {
        "command": command,
        "typed": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}",
        "seed": config.get("seed"),
        "made_of": made_of,
        "git": git_revision(),
        "versions": versions(),
        "python": platform.python_version(),
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": round(seconds, 2),
        "finished": finished,
    }
    write_atomically(directory / _RUN, json.dumps(record, indent=1).encode())


def read_run(directory: Path) -> dict[str, Any]:
    """The ``run.json`` of a run directory, empty if there is none.

    Raises:
        PwmError: if it is damaged.
    """
    file = directory / _RUN
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(file) from error


def read_config(directory: Path) -> dict[Any, Any]:
    """The settings in the ``config.yaml`` of a run directory, as plain data.

    Raises:
        PwmError: if it is missing or damaged.
    """
    file = directory / _CONFIG
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
        if not isinstance(config, dict) or not config:
            raise ValueError("it names no setting")
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise _damaged(file) from error
    return config


def _damaged(file: Path) -> PwmError:
    return PwmError(f"{file} is damaged; put it back from a copy, or give another out=.")
