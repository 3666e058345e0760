"""Run directories: the resolved config, the versions and the seed beside what a command wrote."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pwm.core.errors import PwmError
from pwm.core.files import make_directory, write_atomically
from pwm.core.layout import MANIFEST_NAME
from pwm.core.locks import DirectoryLock
from pwm.core.renamed_settings import tell_renames, with_current_names
from pwm.core.settings import changeable, innermost
from pwm.core.validation import require_resume, require_writable
from pwm.core.versions import git_revision, versions

_CONFIG, _RUN = "config.yaml", "run.json"


def require_output(config: Any) -> None:
    """Raise PwmError if a run of this config cannot be held in its ``out`` directory.

    That is, if nothing can be written there, or if it holds an episode store, whose files are not
    a run's.
    """
    require_writable(config.out)
    if (Path(config.out) / MANIFEST_NAME).exists():
        raise PwmError(f"out={config.out} is an episode store; give a run its own directory.")


@contextmanager
def open_run(directory: Path, command: str, config: Any) -> Iterator[Path]:
    """Hold a run directory for writing, with the config and the versions recorded in it.

    Args:
        directory: created if need be.
        command: recorded, and part of the check on resuming.
        config: a structured config; written as ``config.yaml``. Its ``resume`` is ``"auto"`` to go
            on in a directory that was made with the same config, or ``"never"`` to refuse one that
            holds a run. A setting that there was none of then counts as its default, and one by
            an old name as that of today. What is declared with ``may_change`` may differ, and so
            may ``resume``, and ``out``, since a run's directory may be moved.

    Raises:
        PwmError: if another process writes there, or the directory holds another run.
    """
    require_resume(config, directory / _CONFIG)
    make_directory(directory)
    with DirectoryLock(directory):
        resolved = resolved_config(config)
        _check_same_run(directory, command, resolved, type(config))
        write_atomically(
            directory / _CONFIG, OmegaConf.to_yaml(OmegaConf.create(resolved)).encode()
        )
        started, before = time.time(), float(read_run(directory).get("seconds") or 0.0)
        _record(directory, command, resolved, started, before, finished=False)
        finished = False
        try:
            yield directory
            finished = True
        finally:
            seconds = before + time.time() - started
            with nullcontext() if finished else suppress(PwmError):  # what ended it counts
                _record(directory, command, resolved, started, seconds, finished)


def resolved_config(config: Any) -> dict[Any, Any]:
    """A structured config, or its type for the defaults, as plain data for JSON or YAML."""
    resolved = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(resolved, dict)
    return resolved


def _check_same_run(
    directory: Path, command: str, config: dict[Any, Any], config_type: type
) -> None:
    file = directory / _CONFIG
    if not file.is_file():
        return
    maker = read_run(directory).get("command", command)
    if maker != command:
        raise PwmError(f"{directory} holds a run of `pwm {maker}`; give another out=.")
    new = dict(innermost(config))
    added = {k: v for k, v in innermost(resolved_config(config_type)) if k in new}
    before, renames = with_current_names(config_type, read_config(directory))
    tell_renames(renames, str(file))
    old = added | dict(innermost(before))
    may_change = {"out", "resume", *changeable(config_type)}
    changed = [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not may_change & _with_blocks(key)
    ]
    if changed:
        raise PwmError(
            f"{directory} holds a run with other settings ({'; '.join(changed)}); repeat those "
            "settings to go on with it, or give another out=."
        )


def _with_blocks(key: str) -> set[str]:
    """A dotted name, and those of the blocks that it lies in."""
    parts = key.split(".")
    return {".".join(parts[:i]) for i in range(1, len(parts) + 1)}


def _record(
    directory: Path,
    command: str,
    config: dict[Any, Any],
    started: float,
    seconds: float,
    finished: bool,
) -> None:
    record = {
        "command": command,
        "typed": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}",
        "seed": config.get("seed"),
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
